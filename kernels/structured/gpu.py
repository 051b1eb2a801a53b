"""Structured convolution on NVIDIA GPUs, as `leanfield::structured` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kernels.cuda.adapt import COMPONENT, DEVICES, laid, precision, typed, why_not_device
from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.implementation import Gradients, Implementation
from kernels.structured import cuda


def implementation(run: Run = launch) -> Implementation:
    """ "cuda"; `run` launches its kernels."""
    forward, derive = partial(_forward, run), partial(_backward, run)
    return Implementation("cuda", forward, derive, _why_not, DEVICES, COMPONENT)


def _numbers(kernel: int, groups: int, stride: int, dilation: int, padding: int) -> dict[str, Any]:
    numbers = {"kernel": kernel, "groups": groups, "stride": stride, "dilation": dilation}
    return {**numbers, "padding": padding}


def _why_not(
    x: Tensor, weight: Tensor, kernel: int, groups: int, stride: int, dilation: int, padding: int
) -> str | None:
    return why_not_device(x) or cuda.why_not(
        x, weight, kernel, groups, stride=stride, dilation=dilation
    )


def _forward(run: Run, x: Tensor, weight: Tensor, *numbers: int) -> Tensor:
    y = cuda.forward(x, weight, **_numbers(*numbers), precision=precision(), run=run)
    return laid(y, x)


def _backward(
    run: Run, dy: Tensor, needs: Sequence[bool], x: Tensor, weight: Tensor, *numbers: int
) -> Gradients:
    found = cuda.backward(
        dy, needs, x, weight, **_numbers(*numbers), precision=precision(), run=run
    )
    return typed(found, (x, weight))
