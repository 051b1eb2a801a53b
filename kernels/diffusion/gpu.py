"""Steps of diffusion on NVIDIA GPUs, as their operations call them.

Block-circulant convolutions have no kernel: transforms over channels, rows and columns are torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kernels.cuda.adapt import COMPONENT, DEVICES, laid, typed, why_not_device
from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.diffusion import cuda
from kernels.implementation import Gradients, Implementation


def explicit(run: Run = launch) -> Implementation:
    """ "cuda" of leanfield::explicit; `run` launches its kernels."""
    return _step(run, cuda.explicit, cuda.explicit_backward, cuda.why_not_explicit)


def implicit(run: Run = launch) -> Implementation:
    """ "cuda" of leanfield::implicit, for maps of up to 64 x 64; torch.fft serves larger ones."""
    return _step(run, cuda.implicit, cuda.implicit_backward, cuda.why_not_implicit)


def _step(
    run: Run,
    step: Callable[..., Tensor],
    backward: Callable[..., Gradients],
    why_not: Callable[..., str | None],
) -> Implementation:
    return Implementation(
        "cuda",
        partial(_forward, partial(step, run=run)),
        partial(_backward, partial(backward, run=run)),
        partial(_why_not, why_not),
        DEVICES,
        COMPONENT,
    )


def _why_not(of: Callable[..., str | None], y: Tensor, *rest: Any) -> str | None:
    return why_not_device(y) or of(y, *rest)


def _forward(step: Callable[..., Tensor], y: Tensor, *rest: Any) -> Tensor:
    return laid(step(y, *rest), y)


def _backward(
    backward: Callable[..., Gradients], dy: Tensor, needs: Sequence[bool], *arguments: Any
) -> Gradients:
    return typed(backward(dy, needs, *arguments), arguments[:3])
