"""Shift in plain torch: one fixed one-hot tap a channel.

    Y[c](p) = X[c](p + t(c))

The k^2 taps in row-major order get floor(C / k^2) neighbouring channels each, the centre tap
also the remainder. No weights, no arithmetic: it moves memory.

Source: Wu et al. 2018, "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions",
section 3.1; the rival of ShiftResNet in LeanConvNets and Structured Convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shift(x: Tensor, kernel: int = 3, dilation: int = 1, stride: int = 1) -> Tensor:
    """(N, C, H, W) -> (N, C, H', W'); the outside counts as zero."""
    channels, height, width = x.shape[1:]
    half = kernel // 2
    share, rest = divmod(channels, kernel**2)
    reach = dilation * half
    padded = functional.pad(x, (reach, reach, reach, reach))
    moved, start = [], 0
    for row in range(kernel):
        for column in range(kernel):
            stop = start + share + (rest if row == column == half else 0)
            top, left = dilation * row, dilation * column
            moved.append(
                padded[:, start:stop, top : top + height : stride, left : left + width : stride]
            )
            start = stop
    return torch.cat(moved, 1)
