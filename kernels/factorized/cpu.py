"""Single intra-channel convolution and topological subdivision on the CPU.

llvm    stencil and projection in one pass, the stencil's sums in the cache; gradients too
dense   the connected weights written into a dense kernel, then one convolution: it multiplies by
        zeros, and is still faster than gathering each output's channels
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from kernels.factorized.reference import neighbours
from kernels.jit import maps
from kernels.layout import is_last
from kernels.operation import Gradients, Implementation


class Call(NamedTuple):
    """The arguments of leanfield::single_intra_channel."""

    x: Tensor
    spatial: Tensor
    projection: Tensor
    residual: bool
    grid: tuple[int, ...]
    near: tuple[int, ...]

    @property
    def taps(self) -> maps.Taps:
        return square(self.spatial.shape[-1])

    @property
    def stencil(self) -> Tensor:
        return rows(self.spatial)

    @property
    def matrix(self) -> Tensor:
        """The projection as a dense matrix (F, C)."""
        if self.grid:
            return spread(self.projection, self.grid, self.near)[..., 0, 0]
        return self.projection[..., 0, 0]


@cache
def square(side: int) -> maps.Taps:
    """The taps of a k x k stencil, row by row."""
    half = side // 2
    return tuple((i, j) for i in range(-half, half + 1) for j in range(-half, half + 1))


def rows(spatial: Tensor) -> Tensor:
    """A stencil a channel (C, 1, k, k) as (k k, C, 1)."""
    return spatial.flatten(1).t().unsqueeze(-1)


# ---- generated vector code -----------------------------------------------------------------------


def _why_not_llvm(*arguments: Any) -> str | None:
    call = Call(*arguments)
    return maps.why_not(call.x) or maps.why_not_products(len(call.taps))


def _llvm(*arguments: Any, into: Tensor | None = None) -> Tensor:
    call = Call(*arguments)
    own = into if into is not None and is_last(into) else None
    y = maps.mixed(
        call.x,
        call.matrix,
        call.stencil,
        call.taps,
        residual=call.x if call.residual else None,
        chain=True,
        into=own,
    )
    y = maps.dense(y, is_last(call.x)) if own is None else y
    return y if into is None or own is not None else into.copy_(y)


def _llvm_backward(dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
    """With s the stencil's sums: dP = dY s', ds = P' dY, and the stencil's own from ds."""
    call = Call(*arguments)
    dy, x = maps.last(dy), maps.last(call.x)
    d_x = d_spatial = d_projection = None
    if needs[2]:
        sums = maps.mixed(x, None, call.stencil, call.taps)
        d_matrix, _ = maps.weight_gradients(dy, sums)
        d_projection = _gathered(d_matrix, call)
    if needs[0] or needs[1]:
        d_sums = maps.mixed(dy, call.matrix.t(), None)
        if needs[1]:
            _, found = maps.weight_gradients(d_sums, x, call.taps, mixes=False)
            if found is not None:
                d_spatial = found.squeeze(-1).t().reshape(call.spatial.shape)
        if needs[0]:
            residual = dy if call.residual else None
            d_x = maps.mixed(
                d_sums, None, call.stencil, maps.mirrored(call.taps), residual=residual
            )
            d_x = maps.dense(d_x, is_last(call.x))
    return d_x, d_spatial, d_projection


def _gathered(d_matrix: Tensor | None, call: Call) -> Tensor | None:
    if d_matrix is None:
        return None
    if call.grid:
        d_matrix = d_matrix.gather(1, neighbours(call.grid, call.near))
    return d_matrix.reshape(call.projection.shape)


# ---- dense kernels -------------------------------------------------------------------------------


def spread(weight: Tensor, grid: tuple[int, ...], near: tuple[int, ...]) -> Tensor:
    """Connected weights (C, t_1 x ... x t_s, k, k) as a dense kernel (C, C, k, k)."""
    reads = neighbours(grid, near).to(weight.device)
    channels, side = len(weight), weight.shape[-1]
    where = reads[..., None, None].expand(-1, -1, side, side)
    kernel = weight.new_zeros((channels, channels, side, side))
    return kernel.scatter(1, where, weight)


def _topological(x: Tensor, weight: Tensor, grid: tuple[int, ...], near: tuple[int, ...]) -> Tensor:
    return functional.conv2d(x, spread(weight, grid, near), padding=weight.shape[-1] // 2)


def _single_intra_channel(*arguments: Any) -> Tensor:
    call = Call(*arguments)
    padding = call.spatial.shape[-1] // 2
    own = functional.conv2d(call.x, call.spatial, padding=padding, groups=call.x.shape[1])
    y = functional.conv2d(own, call.matrix[..., None, None])
    return y + call.x if call.residual else y


def _something(x: Tensor, *rest: Any) -> str | None:
    return None if x.numel() else "there is nothing to compute"


SIC_LLVM = Implementation("llvm", _llvm, _llvm_backward, _why_not_llvm, ("cpu",), writes=True)
SIC_DENSE = Implementation("dense", _single_intra_channel, None, _something)
TOPOLOGICAL_DENSE = Implementation("dense", _topological, None, _something)
