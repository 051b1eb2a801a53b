"""Structured convolution by three convolutions, two of which have weights of ones.

    sums over (C/g-c+1) x s x s:   a 1 x 1 convolution by the band T, (c, C/g), where T[j, i] = 1
                                   for j <= i <= j + C/g - c, then depthwise s x s

A sum over channels by a product multiplies C/g times more often than running sums would, at the
speed of a convolution, which is several times that of running sums.
"""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor
from torch.nn import functional

from kernels.operation import Implementation
from kernels.structured.decompose import band


@lru_cache(maxsize=256)
def _bands(channels: int, kept: int, groups: int) -> Tensor:
    """T of each group, (g c, C/g, 1, 1)."""
    return band(channels, kept).t().float().repeat(groups, 1)[..., None, None]


def _why_not(x: Tensor, *rest: object) -> str | None:
    if x.dim() != 4:
        return f"sums by convolutions take maps (N, C, H, W), not {x.dim()} axes"
    return None if x.numel() else "there is nothing to compute"


def _band(
    x: Tensor, weight: Tensor, kernel: int, groups: int, stride: int, dilation: int, padding: int
) -> Tensor:
    """Beyond d (s - 1) rows of padding the sums would be zero, and the convolution pads."""
    channels, kept, side = x.shape[1] // groups, weight.shape[1], kernel - weight.shape[2] + 1
    if kept < channels:
        x = functional.conv2d(x, _bands(channels, kept, groups).to(x), groups=groups)
    if side > 1:
        before = min(padding, dilation * (side - 1))
        padding -= before
        ones = x.new_ones((x.shape[1], 1, side, side))
        x = functional.conv2d(x, ones, None, 1, before, dilation, x.shape[1])
    return functional.conv2d(x, weight, None, stride, padding, dilation, groups)


BAND = Implementation("band", _band, None, _why_not)
