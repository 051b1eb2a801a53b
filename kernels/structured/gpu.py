"""Structured convolution on NVIDIA GPUs, as `leanfield::structured` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from kernels.cuda.adapt import COMPONENT, DEVICES, laid, precision, typed, why_not_device
from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.implementation import Gradients, Implementation
from kernels.structured import cuda
from kernels.structured.cuda import Numbers


def implementation(run: Run = launch) -> Implementation:
    """ "cuda"; `run` launches its kernels."""
    forward, derive = partial(_forward, run), partial(_backward, run)
    return Implementation("cuda", forward, derive, _why_not, DEVICES, COMPONENT)


def _why_not(x: Tensor, weight: Tensor, *numbers: int) -> str | None:
    return why_not_device(x) or cuda.why_not(x, weight, Numbers(*numbers))


def _forward(run: Run, x: Tensor, weight: Tensor, *numbers: int) -> Tensor:
    return laid(cuda.forward(x, weight, Numbers(*numbers), precision=precision(), run=run), x)


def _backward(
    run: Run, dy: Tensor, needs: Sequence[bool], x: Tensor, weight: Tensor, *numbers: int
) -> Gradients:
    found = cuda.backward(dy, needs, x, weight, Numbers(*numbers), precision=precision(), run=run)
    return typed(found, (x, weight))
