"""Structured convolution in plain torch: sums over a sliding cuboid, then a small convolution.

A kernel over C channels of size N is structured {C, N, c, n} if it is a superposition of c n^2
cuboids of ones, (C-c+1) x (N-n+1) x (N-n+1) each, one at every place where it fits:

    W = 1 * alpha,   X * W = (X * 1) * alpha.

All places share one pass of sums over the map; alpha is the small convolution's weight. The same
holds for kernels in three dimensions and for rows of a matrix (N = n = 1). With dilation both
steps are dilated; the sums have stride 1 on the padded map, the stride goes to the convolution.

Source: Structured Convolutions (Bhalgat et al. 2020), sections 4.1 and 4.3, Figures 3 to 5.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def structured(
    x: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int = 1,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W'), or with three dimensions of space.

    weight: alpha, (F, c, n, n) or (F, c, n, n, n), c of the C/g channels of a group. kernel: N.
    padding: p on each side, by default the one that keeps the map, d (N - 1) / 2.
    """
    if padding is None:
        padding = dilation * (kernel // 2)
    sums = sum_pool(
        functional.pad(x, (padding, padding) * (x.dim() - 2)),
        x.shape[1] // groups - weight.shape[1] + 1,
        kernel - weight.shape[2] + 1,
        groups,
        dilation,
    )
    convolve = functional.conv2d if x.dim() == 4 else functional.conv3d
    return convolve(sums, weight, stride=stride, dilation=dilation, groups=groups)


def structured_linear(x: Tensor, weight: Tensor) -> Tensor:
    """(..., Q) -> (..., P) by a matrix whose rows are structured; weight: (P, R), R <= Q."""
    return functional.linear(window_sum(x, -1, x.shape[-1] - weight.shape[1] + 1), weight)


def sum_pool(x: Tensor, depth: int, side: int, groups: int = 1, dilation: int = 1) -> Tensor:
    """Sums over depth x side x side cuboids at stride 1, depth counted within a group.

    (N, C, H, W) -> (N, g c, H - d (side-1), W - d (side-1)), c = C/g - depth + 1. A cuboid is a
    product of windows, so that it is summed along one axis after another.
    """
    batch, channels, *size = x.shape
    sums = window_sum(x.reshape(batch, groups, channels // groups, *size), 2, depth)
    for axis in range(3, sums.dim()):
        sums = window_sum(sums, axis, side, dilation)
    return sums.flatten(1, 2)


def window_sum(x: Tensor, axis: int, size: int, dilation: int = 1) -> Tensor:
    """Sums of `size` neighbours, `dilation` apart, at every place where they fit."""
    if size == 1:
        return x
    windows = x.unfold(axis, dilation * (size - 1) + 1, 1)
    return windows[..., ::dilation].sum(-1)
