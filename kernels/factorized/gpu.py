"""Single intra-channel and topological convolution on NVIDIA GPUs, as operations call them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kernels.cuda.adapt import COMPONENT, DEVICES, laid, precision, typed, why_not_device
from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.factorized import cuda
from kernels.implementation import Gradients, Implementation


def single_intra_channel(run: Run = launch) -> Implementation:
    """ "cuda" of leanfield::single_intra_channel; `run` launches its kernels."""
    forward, derive = partial(_forward_sic, run), partial(_backward_sic, run)
    return Implementation("cuda", forward, derive, _why_not_sic, DEVICES, COMPONENT)


def topological(run: Run = launch) -> Implementation:
    """ "cuda" of leanfield::topological; `run` launches its kernels."""
    forward, derive = partial(_forward_topological, run), partial(_backward_topological, run)
    return Implementation("cuda", forward, derive, _why_not_topological, DEVICES, COMPONENT)


def _why_not_sic(x: Tensor, spatial: Tensor, projection: Tensor, *_: object) -> str | None:
    return why_not_device(x) or cuda.why_not(x, spatial.shape[-1], spatial, projection)


def _forward_sic(run: Run, x: Tensor, *rest: Any) -> Tensor:
    return laid(cuda.single_intra_channel(x, *rest, precision=precision(), run=run), x)


def _backward_sic(run: Run, dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
    found = cuda.single_intra_channel_backward(
        dy, *arguments, needs=needs, precision=precision(), run=run
    )
    return typed(found, arguments[:3])


def _why_not_topological(x: Tensor, weight: Tensor, *_: object) -> str | None:
    return why_not_device(x) or cuda.why_not(x, weight.shape[-1], weight)


def _forward_topological(run: Run, x: Tensor, *rest: Any) -> Tensor:
    return laid(cuda.topological(x, *rest, precision=precision(), run=run), x)


def _backward_topological(
    run: Run, dy: Tensor, needs: Sequence[bool], *arguments: Any
) -> Gradients:
    found = cuda.topological_backward(dy, *arguments, needs=needs, precision=precision(), run=run)
    return typed(found, arguments[:2])
