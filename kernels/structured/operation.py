"""Structured convolution as an operator of torch."""

from __future__ import annotations

import math

from torch import Tensor

from kernels.operation import KernelError, Operation, defined_by
from kernels.structured import gpu, reference
from kernels.structured.cpu import BAND


@defined_by(reference.structured)
def structured(
    x: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int = 1,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W'), or with three dimensions of space.

    As `kernels.structured.reference`; out: memory for the result. Raises KernelError, TypeError.
    """
    margin = dilation * (kernel // 2) if padding is None else padding
    return STRUCTURED(x, weight, kernel, groups, stride, dilation, margin, backend=backend, out=out)


def _check(
    x: Tensor, weight: Tensor, kernel: int, groups: int, stride: int, dilation: int, padding: int
) -> None:
    space = x.dim() - 2
    if space not in (2, 3):
        raise KernelError(f"structured: x has {x.dim()} axes; valid are four and five, (N, C, ...)")
    size = tuple(weight.shape)
    if len(size) != x.dim() or len(set(size[2:])) != 1 or not 1 <= size[2] <= kernel:
        raise KernelError(
            f"structured: weight is {size} for a kernel of {kernel}; valid is "
            f"(F, c{', n' * space}) with n from 1 to {kernel}"
        )
    channels, features = x.shape[1], size[0]
    if groups < 1 or channels % groups or features % groups or not features:
        raise KernelError(
            f"structured: {groups} groups do not divide {channels} channels and {features} outputs;"
            f" valid are the divisors of {math.gcd(channels, features)}"
        )
    if not 1 <= size[1] <= channels // groups:
        raise KernelError(
            f"structured: c = {size[1]} of {channels // groups} channels a group; valid are "
            f"1 to {channels // groups}"
        )
    if stride < 1 or dilation < 1 or padding < 0:
        raise KernelError(
            f"structured: stride {stride}, dilation {dilation}, padding {padding}; valid are a "
            "stride and a dilation from 1 and a padding from 0"
        )
    if min(shape(x, weight, kernel, groups, stride, dilation, padding)[2:]) < 1:
        raise KernelError(
            f"structured: a map of {tuple(x.shape[2:])} is smaller than the kernel of {kernel} at "
            f"dilation {dilation} and padding {padding}; valid are maps that it fits into"
        )


def shape(
    x: Tensor, weight: Tensor, kernel: int, groups: int, stride: int, dilation: int, padding: int
) -> tuple[int, ...]:
    """(N, F, H', W')."""
    missing = dilation * (kernel - 1) - 2 * padding
    return (x.shape[0], weight.shape[0], *((n - missing - 1) // stride + 1 for n in x.shape[2:]))


STRUCTURED = Operation(
    "structured",
    reference.structured,
    ("x", "weight"),
    ("int kernel", "int groups", "int stride", "int dilation", "int padding"),
    _check,
    shape,
    (gpu.implementation(), BAND),
)
