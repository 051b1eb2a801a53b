"""Lean convolution in plain torch: the definition that faster versions are compared with.

With the centre tap in the 1 x 1 part and r - 1 outer taps t in g groups of channels,

    Y[f](p) = sum over c of A[f, c] X[c](p) + sum over t, c in group(f) of B[t, f, c] X[c](p + t).

A tap is an offset (rows, columns), or (planes, rows, columns) in three dimensions; the outside
counts as zero. Each tap is a shifted grouped 1 x 1 convolution, so that no multiplication is
spent on a tap that the stencil does not have.

Source: LeanConvNets (Ephrath et al. 2020), section III, equations (5) to (7), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Tap = Sequence[int]


def lean(
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Tap],
    groups: int = 1,
    stride: int = 1,
    transposed: bool = False,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W'), or with three dimensions of space.

    centre: (F, C). outer: (r-1, F, C/g), one matrix a tap. transposed: the result is written as
    [n, f, w, h], so that two calls with taps along the width equal 1x3 followed by 3x1.
    """
    y = pointwise(x, centre, stride=stride)
    for shifted, weight in zip(neighbours(x, taps, stride), outer, strict=True):
        y = y + pointwise(shifted, weight, groups)
    return y.transpose(-1, -2).contiguous() if transposed else y


def lean_depthwise(
    x: Tensor, centre: Tensor, outer: Tensor, taps: Sequence[Tap], stride: int = 1
) -> Tensor:
    """One channel a group where C != F and neither divides the other. outer: (r-1, max(C, F)).

    For C > F input i feeds output floor(i F / C), else output j is fed by input floor(j C / F).
    """
    features, channels = centre.shape
    wide = max(channels, features)
    lane = torch.arange(wide, device=x.device)
    y = pointwise(x, centre, stride=stride)
    lanes = x if channels > features else x[:, lane * channels // wide]
    moved = neighbours(lanes, taps, stride)
    terms = [pointwise(m, w[:, None], wide) for m, w in zip(moved, outer, strict=True)]
    if features > channels:
        for term in terms:
            y = y + term
        return y
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return y.index_add(1, lane * features // wide, total)


def neighbours(x: Tensor, taps: Sequence[Tap], stride: int = 1) -> list[Tensor]:
    """The map as each tap sees it: X(p + t) at every stride-th pixel p, zero outside."""
    sizes = x.shape[2:]
    reach = max(abs(step) for tap in taps for step in tap)
    padded = functional.pad(x, (reach, reach) * len(sizes))
    return [
        padded[
            (
                slice(None),
                slice(None),
                *(
                    slice(reach + step, reach + step + size, stride)
                    for step, size in zip(tap, sizes, strict=True)
                ),
            )
        ]
        for tap in taps
    ]


def pointwise(x: Tensor, weight: Tensor, groups: int = 1, stride: int = 1) -> Tensor:
    """The 1 x 1 convolution by a matrix (F, C/g), in two or three dimensions."""
    space = x.dim() - 2
    convolve = functional.conv3d if space == 3 else functional.conv2d
    return convolve(x, weight.reshape(*weight.shape, *(1,) * space), stride=stride, groups=groups)
