"""Topological subdivisioning and the single intra-channel convolution.

Source: Factorized Convolutional Neural Networks, section 2.2 (SIC) and equation 8 (TpS).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def neighbours(grid: tuple[int, ...], near: tuple[int, ...]) -> Tensor:
    """The channels that each channel reads: (d_1 ... d_s, t_1 ... t_s) indices.

    Channels lie row by row on the grid d; channel j reads j .. j + t - 1 (mod d) along each axis.

    >>> neighbours((4,), (2,)).tolist()
    [[0, 1], [1, 2], [2, 3], [3, 0]]
    """
    cells = torch.arange(math.prod(grid)).reshape(grid)
    reads = cells.unsqueeze(-1)
    for axis, count in enumerate(near):
        moved = [reads.roll(-offset, axis) for offset in range(count)]
        reads = torch.stack(moved, -1).flatten(len(grid))
    return reads.reshape(cells.numel(), -1)


def topological(x: Tensor, weight: Tensor, grid: tuple[int, ...], near: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W), zero padding; only connected weights exist.

    weight: (C, t_1 x ... x t_s, k, k). Each output is a group of its own in a copy of the channels
    that it reads, so that nothing is multiplied by a weight that is not there.
    """
    reads = neighbours(grid, near).to(x.device).flatten()
    padding = weight.shape[-1] // 2
    return functional.conv2d(x[:, reads], weight, padding=padding, groups=len(weight))


def single_intra_channel(
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool = True,
    grid: tuple[int, ...] = (),
    near: tuple[int, ...] = (),
) -> Tensor:
    """(N, C, H, W) -> (N, F, H, W): projection(spatial(x)), plus x if `residual`; zero padding.

    spatial: (C, 1, k, k). projection: (F, C, 1, 1); with a grid (C, t_1 x ... x t_s, 1, 1).
    """
    channels, padding = x.shape[1], spatial.shape[-1] // 2
    own = functional.conv2d(x, spatial, padding=padding, groups=channels)
    dense = not grid
    mixed = (
        functional.conv2d(own, projection) if dense else topological(own, projection, grid, near)
    )
    return mixed + x if residual else mixed
