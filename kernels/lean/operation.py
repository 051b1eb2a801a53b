"""Lean convolution as an operator of torch: y = lean(relu(x scale + shift)) + bias + residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kernels.lean import gpu, reference
from kernels.lean.cpu import CONVOLUTION, LLVM, ONEDNN
from kernels.lean.parts import Call, completed
from kernels.operation import KernelError, Operation, defined_by

Tap = Sequence[int]


@defined_by(reference.lean)
def lean(
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Tap],
    groups: int = 1,
    stride: int = 1,
    transposed: bool = False,
    *,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W'), or with three dimensions of space.

    centre: (F, C). outer: (r-1, F, C/g). taps: r-1 offsets. transposed: axes of the map swapped in
    the result. scale, shift: (C,), applied with the ReLU before; the outside stays zero. bias: (F,)
    and residual, of the size of the result, are added. out: memory for the result.
    backend: auto, torch or one of `LEAN.implementations`.

    Raises KernelError, TypeError, MissingComponentError (see `kernels.operation`).
    """
    return LEAN(
        x,
        centre,
        outer,
        bias,
        scale,
        shift,
        residual,
        flat(tuple(taps), x.dim() - 2),
        groups,
        stride,
        transposed,
        relu,
        backend=backend,
        out=out,
    )


def flat(taps: tuple[Tap, ...], space: int) -> tuple[int, ...]:
    """The offsets in a row, as operators of torch take them. Raises KernelError."""
    for tap in taps:
        if len(tap) != space:
            raise KernelError(f"lean: tap {tuple(tap)} on {space} axes; valid are {space} offsets")
    return tuple(int(step) for tap in taps for step in tap)


def composed(*arguments: Any) -> Tensor:
    """The definition with what is before and behind it."""
    call = Call(*arguments)
    y = reference.lean(
        call.ready,
        call.centre,
        call.outer,
        call.offsets,
        call.groups,
        call.stride,
        call.transposed,
    )
    return completed(y, call.bias, call.residual)


def shape(*arguments: Any) -> tuple[int, ...]:
    """(N, F, H', W'), swapped where the result is transposed."""
    call = Call(*arguments)
    space = [-(-size // call.stride) for size in call.x.shape[2:]]
    if call.transposed:
        space[-1], space[-2] = space[-2], space[-1]
    return (call.x.shape[0], call.centre.shape[0], *space)


def check(*arguments: Any) -> None:
    """Raises KernelError where the shapes and numbers have no meaning together."""
    x, centre, outer, *vectors, taps, groups, stride, _, _ = call = Call(*arguments)
    if not taps:
        raise KernelError("lean: there are no taps; valid are one and more")
    space = x.dim() - 2
    if space not in (2, 3):
        raise KernelError(f"lean: x has {x.dim()} axes; valid are (N, C, H, W) and (N, C, D, H, W)")
    if centre.dim() != 2 or centre.shape[1] != x.shape[1]:
        raise KernelError(
            f"lean: centre is {tuple(centre.shape)}; valid is (F, {x.shape[1]}) for "
            f"{x.shape[1]} channels of x"
        )
    features, channels = centre.shape
    if groups < 1 or channels % groups or features % groups or not features:
        raise KernelError(
            f"lean: {groups} groups do not divide {channels} channels and {features} outputs; "
            f"valid are the divisors of {math.gcd(channels, features)}"
        )
    if stride < 1:
        raise KernelError(f"lean: stride {stride}; valid are 1 and more")
    wanted = (len(taps) // space, features, channels // groups)
    if tuple(outer.shape) != wanted:
        raise KernelError(f"lean: outer is {tuple(outer.shape)}; valid is {wanted}")
    result = shape(*call)
    sizes = {"bias": (features,), "scale": (channels,), "shift": (channels,), "residual": result}
    for (name, size), found in zip(sizes.items(), vectors, strict=True):
        if found is not None and tuple(found.shape) != size:
            raise KernelError(f"lean: {name} is {tuple(found.shape)}; valid is {size}")


LEAN = Operation(
    "lean",
    composed,
    ("x", "centre", "outer", "bias?", "scale?", "shift?", "residual?"),
    ("int[] taps", "int groups", "int stride", "bool transposed", "bool relu"),
    check,
    shape,
    (gpu.implementation(), LLVM, ONEDNN, CONVOLUTION),
    added="residual",
)
