"""All gradients of the lean convolution on a GPU: two kernels, 4 passes over memory.

The input gradient reads dY and writes dX, the weight kernel reads X and dY; separate calls need 11
passes. A prologue adds X to the first (for its mask), and 4 passes if its own gradients are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.cuda import input_gradient
from kernels.lean.cuda_weights import prologue_gradients, weight_gradients

X, CENTRE, OUTER, BIAS, SCALE, SHIFT = range(6)


def backward(
    dy: Tensor,
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Sequence[int]],
    groups: int = 1,
    transposed: bool = False,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    needs: Sequence[bool] = (True,) * 6,
    precision: str = "fp32",
    run: Run = launch,
) -> tuple[Tensor | None, ...]:
    """dx, dcentre, douter, dbias, dscale, dshift of y = lean(relu(scale x + shift)) + bias.

    needs: which of the six are wanted; the others are None and cost nothing. dx has x's dtype, the
    others are fp32. The gradient of a residual is dy itself. Raises ValueError as `forward` does.
    """
    same: dict[str, Any] = {"scale": scale, "shift": shift, "relu": relu}
    same |= {"transposed": transposed, "precision": precision, "run": run}
    found: list[Tensor | None] = [None] * 6
    if needs[X]:
        found[X] = input_gradient(dy, x, centre, outer, taps, groups, **same)
    if any(needs[CENTRE : BIAS + 1]):
        found[CENTRE : BIAS + 1] = weight_gradients(dy, x, taps, groups, bias=needs[BIAS], **same)
    if any(needs[SCALE:]):
        found[SCALE:] = prologue_gradients(dy, x, centre, outer, taps, groups, **same)
    return tuple(one if wanted else None for one, wanted in zip(found, needs, strict=True))
