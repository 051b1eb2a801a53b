"""Single intra-channel convolution and topological subdivision as operators of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from kernels.factorized import gpu, reference
from kernels.factorized.cpu import SIC_DENSE, SIC_LLVM, TOPOLOGICAL_DENSE
from kernels.operation import KernelError, Operation, defined_by


@defined_by(reference.single_intra_channel)
def single_intra_channel(
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool = True,
    grid: Sequence[int] = (),
    near: Sequence[int] = (),
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H, W): projection(spatial(x)), plus x if `residual`; zero padding.

    As `kernels.factorized.reference`; out: memory for the result. Raises KernelError, TypeError.
    """
    return SINGLE_INTRA_CHANNEL(
        x, spatial, projection, residual, tuple(grid), tuple(near), backend=backend, out=out
    )


@defined_by(reference.topological)
def topological(
    x: Tensor,
    weight: Tensor,
    grid: Sequence[int],
    near: Sequence[int],
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W), zero padding; only connected weights exist.

    As `kernels.factorized.reference`; out: memory for the result. Raises KernelError, TypeError.
    """
    return TOPOLOGICAL(x, weight, tuple(grid), tuple(near), backend=backend, out=out)


def check_map(name: str, x: Tensor) -> None:
    """Raises KernelError unless it is a map (N, C, H, W)."""
    if x.dim() != 4:
        raise KernelError(f"{name}: x has {x.dim()} axes; valid are the four of (N, C, H, W)")


def check_stencil(name: str, what: str, kernel: Tensor, channels: int) -> None:
    """Raises KernelError unless it is one odd square stencil a channel, (C, 1, k, k)."""
    size = tuple(kernel.shape)
    if len(size) != 4 or size[:2] != (channels, 1) or size[2] != size[3] or not size[2] % 2:
        raise KernelError(
            f"{name}: {what} is {size}; valid is ({channels}, 1, k, k) with an odd k for "
            f"{channels} channels of x"
        )


def _check_sic(
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool,
    grid: Sequence[int],
    near: Sequence[int],
) -> None:
    name = "single_intra_channel"
    check_map(name, x)
    channels = x.shape[1]
    check_stencil(name, "spatial", spatial, channels)
    if grid:
        _check_grid(name, channels, projection, grid, near)
        if projection.shape[2:] != (1, 1):
            raise KernelError(
                f"{name}: projection is {tuple(projection.shape)}; valid are kernels of 1 x 1"
            )
    elif projection.dim() != 4 or projection.shape[1:] != (channels, 1, 1):
        raise KernelError(
            f"{name}: projection is {tuple(projection.shape)}; valid is (F, {channels}, 1, 1)"
        )
    if residual and len(projection) != channels:
        raise KernelError(
            f"{name}: {channels} channels cannot be added to {len(projection)}; valid is "
            "residual=False or equal widths"
        )


def _check_topological(x: Tensor, weight: Tensor, grid: Sequence[int], near: Sequence[int]) -> None:
    check_map("topological", x)
    _check_grid("topological", x.shape[1], weight, grid, near)
    if weight.shape[2] != weight.shape[3] or not weight.shape[2] % 2:
        raise KernelError(
            f"topological: weight is {tuple(weight.shape)}; valid are square kernels of odd size"
        )


def _check_grid(
    name: str, channels: int, weight: Tensor, grid: Sequence[int], near: Sequence[int]
) -> None:
    if len(grid) != len(near) or math.prod(grid) != channels or min(grid) < 1:
        raise KernelError(
            f"{name}: grid {tuple(grid)} with neighbours {tuple(near)} for {channels} channels; "
            f"valid are grids of {channels} cells and one number of neighbours an axis"
        )
    if any(not 1 <= t <= d for t, d in zip(near, grid, strict=True)):
        raise KernelError(
            f"{name}: neighbours {tuple(near)} on the grid {tuple(grid)}; valid are 1 to its sizes"
        )
    if weight.dim() != 4 or tuple(weight.shape[:2]) != (channels, math.prod(near)):
        raise KernelError(
            f"{name}: weights {tuple(weight.shape)}; valid is ({channels}, {math.prod(near)}, k, k)"
        )


def _composed_sic(
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool,
    grid: Sequence[int],
    near: Sequence[int],
) -> Tensor:
    return reference.single_intra_channel(
        x, spatial, projection, residual, tuple(grid), tuple(near)
    )


def _composed_topological(
    x: Tensor, weight: Tensor, grid: Sequence[int], near: Sequence[int]
) -> Tensor:
    return reference.topological(x, weight, tuple(grid), tuple(near))


def _shape_sic(x: Tensor, spatial: Tensor, projection: Tensor, *_: object) -> tuple[int, ...]:
    return (x.shape[0], projection.shape[0], *x.shape[2:])


SINGLE_INTRA_CHANNEL = Operation(
    "single_intra_channel",
    _composed_sic,
    ("x", "spatial", "projection"),
    ("bool residual", "int[] grid", "int[] near"),
    _check_sic,
    _shape_sic,
    (gpu.single_intra_channel(), SIC_LLVM, SIC_DENSE),
)
TOPOLOGICAL = Operation(
    "topological",
    _composed_topological,
    ("x", "weight"),
    ("int[] grid", "int[] near"),
    _check_topological,
    lambda x, *_: tuple(x.shape),
    (gpu.topological(), TOPOLOGICAL_DENSE),
)
