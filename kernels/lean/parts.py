"""What the implementations of lean convolution share: before, behind, stencils as kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Taps = tuple[tuple[int, ...], ...]


class Call(NamedTuple):
    """The arguments of leanfield::lean, the offsets of all taps in a row."""

    x: Tensor
    centre: Tensor
    outer: Tensor
    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    residual: Tensor | None
    taps: tuple[int, ...]
    groups: int
    stride: int
    transposed: bool
    relu: bool

    @property
    def offsets(self) -> Taps:
        return grouped_taps(self.taps, self.x.dim() - 2)

    @property
    def ready(self) -> Tensor:
        """relu(x scale + shift): what is convolved."""
        return activated(self.x, self.scale, self.shift, self.relu)


@lru_cache(maxsize=256)
def grouped_taps(flat: tuple[int, ...], space: int) -> Taps:
    """The offsets, `space` numbers each, from a row of numbers."""
    return tuple(flat[i : i + space] for i in range(0, len(flat), space))


def activated(x: Tensor, scale: Tensor | None, shift: Tensor | None, relu: bool) -> Tensor:
    """relu(x scale + shift), each where given."""
    column = (-1,) + (1,) * (x.dim() - 2)
    if scale is not None:
        x = x * scale.view(column)
    if shift is not None:
        x = x + shift.view(column)
    return x.relu() if relu else x


def activated_backward(
    dy: Tensor,
    needs: Sequence[bool],
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    relu: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, scale and shift from that of `activated`."""
    if relu:
        dy = dy * (activated(x, scale, shift, False) > 0)
    axes = [0, *range(2, x.dim())]
    d_scale = (dy * x).sum(axes) if needs[1] else None
    d_shift = dy.sum(axes) if needs[2] else None
    if needs[0] and scale is not None:
        dy = dy * scale.view((-1,) + (1,) * (x.dim() - 2))
    return dy if needs[0] else None, d_scale, d_shift


def completed(y: Tensor, bias: Tensor | None, residual: Tensor | None) -> Tensor:
    """y + bias + residual, each where given."""
    if bias is not None:
        y = y + bias.view((-1,) + (1,) * (y.dim() - 2))
    return y if residual is None else y + residual


@lru_cache(maxsize=256)
def window(taps: Taps) -> tuple[int, int, tuple[int, ...]]:
    """(reach in steps, dilation, places): the smallest dense kernel around the taps, and where in
    it, flattened, each of them lies."""
    steps = [abs(step) for tap in taps for step in tap]
    dilation = math.gcd(*steps) or 1
    reach = max(steps) // dilation
    side = 2 * reach + 1
    places = []
    for tap in taps:
        place = 0
        for step in tap:
            place = place * side + step // dilation + reach
        places.append(place)
    return reach, dilation, tuple(places)


def spread(outer: Tensor, taps: Taps) -> Tensor:
    """(r-1, F, C/g) -> the dense kernel (F, C/g, k, ..., k), zero where there is no tap."""
    reach, _, places = window(taps)
    side = 2 * reach + 1
    space = len(taps[0])
    kernel = outer.new_zeros((*outer.shape[1:], side**space))
    if len(set(places)) == len(places):
        kernel[..., list(places)] = outer.permute(1, 2, 0)
    else:
        where = torch.tensor(places, device=outer.device)
        kernel.index_add_(-1, where, outer.permute(1, 2, 0))
    return kernel.reshape((*outer.shape[1:], *(side,) * space))


def gathered(kernel: Tensor, taps: Taps) -> Tensor:
    """The taps (r-1, F, C/g) of a dense kernel: the gradient of `spread`."""
    places = window(taps)[2]
    return kernel.flatten(2)[..., list(places)].permute(2, 0, 1).contiguous()
