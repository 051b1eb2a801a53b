"""Lean convolution on NVIDIA GPUs, as `leanfield::lean` calls it: taps in a row become offsets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kernels.cuda.adapt import COMPONENT, DEVICES, laid, precision, typed, why_not_device
from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.implementation import Gradients, Implementation
from kernels.lean import cuda
from kernels.lean.cuda_backward import backward
from kernels.lean.parts import Call


def implementation(run: Run = launch) -> Implementation:
    """ "cuda"; `run` launches its kernels."""
    forward, derive = partial(_forward, run), partial(_backward, run)
    return Implementation("cuda", forward, derive, _why_not, DEVICES, COMPONENT)


def _why_not(*arguments: Any) -> str | None:
    call = Call(*arguments)
    if reason := why_not_device(call.x):
        return reason
    return cuda.why_not(call.x, call.centre, call.outer, call.offsets, call.groups, call.stride)


def _how(call: Call, run: Run) -> dict[str, Any]:
    """What forward and backward take by keyword."""
    prologue = {"scale": call.scale, "shift": call.shift, "relu": call.relu}
    return {**prologue, "transposed": call.transposed, "precision": precision(), "run": run}


def _forward(run: Run, *arguments: Any) -> Tensor:
    call = Call(*arguments)
    weights = call.centre, call.outer, call.offsets, call.groups
    how = _how(call, run)
    y = cuda.forward(call.x, *weights, bias=call.bias, residual=call.residual, **how)
    return laid(y, call.x)


def _backward(run: Run, dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
    """The residual's gradient is dy itself, which the operation passes on."""
    call = Call(*arguments)
    weights = call.centre, call.outer, call.offsets, call.groups
    found = backward(dy, call.x, *weights, needs=needs[:6], **_how(call, run))
    return [*typed(found, call[:6]), None]
