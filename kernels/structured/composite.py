"""Convolution with composite kernels in plain torch: sums over binary masks, then a 1 x 1.

A kernel is composite over a basis of binary masks beta_1, ..., beta_M if

    W = sum over m of alpha_m beta_m,   so that   X * W = sum over m of alpha_m (X * beta_m),

and X * beta_m only adds. The sums are shared by all outputs. A basis over fewer channels than
the map has is repeated over consecutive channels.

Source: Structured Convolutions (Bhalgat et al. 2020), section 3, equations (1) and (2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Mask = Sequence[tuple[int, int, int]]
"""Where a mask is 1: (channel, row, column)."""


def composite(
    x: Tensor,
    weight: Tensor,
    masks: Sequence[Mask],
    depth: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W').

    weight: alpha, (F, C/depth, M). masks: the basis over depth x kernel x kernel.
    """
    batch, _, height, width = x.shape
    margin = dilation * (kernel // 2)
    padded = functional.pad(x, (margin, margin, margin, margin))
    padded = padded.reshape(batch, -1, depth, height + 2 * margin, width + 2 * margin)
    sums = []
    for mask in masks:
        parts = [
            padded[
                :,
                :,
                channel,
                dilation * row : dilation * row + height,
                dilation * column : dilation * column + width,
            ]
            for channel, row, column in mask
        ]
        sums.append(torch.stack(parts).sum(0))
    flat = torch.stack(sums, 2).reshape(batch, -1, height, width)
    return functional.conv2d(flat, weight.reshape(len(weight), -1, 1, 1), stride=stride)
