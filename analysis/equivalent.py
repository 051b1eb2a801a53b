"""Degrees of freedom that a field does not show: the rank of the equivalent convolution.

A chain of linear operators equals one convolution with a k x k x C kernel for each of F outputs:
an F x k^2 C matrix, k the window of the whole chain. Its rank at random weights says how many of
the outputs are independent; an inner width K or shared weights lower it. A residual operator is
linear too; a step is not, and has no such matrix.

The rank is that of the F outputs on F random patches of input, since a random F-column image of a
matrix with F rows keeps its rank. Cost: a chain on F patches as large as its window.
Source: definitions (survivors of the funnel); the paper's own bottleneck has rank F/4.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spaces.design import Design
from spaces.operator import Operator
from spaces.place import Place


def rank(design: Design, channels: int, out_channels: int | None = None) -> int | None:
    """Rank of the design's equivalent matrix at random weights; None where a step stands.

    Raises DesignError where the design cannot stand.

    >>> from spaces.design import parse
    >>> rank(parse("PW+DW+PW@1/4"), 64), rank(parse("DW+PW"), 64)
    (16, 64)
    """
    if any(operator.kind == "step" for operator in design.operators):
        return None
    steps = design.places(channels, out_channels)
    kernels = [_sampled(step.item, step.place, i) for i, step in enumerate(steps)]
    rows, columns = (1 + sum(kernel.shape[axis] - 1 for kernel in kernels) for axis in (2, 3))
    features = steps[-1].place.features
    patches = np.random.default_rng(0).standard_normal((features, channels, rows, columns))
    for kernel in kernels:
        patches = _filtered(patches, kernel)
    return int(np.linalg.matrix_rank(patches[..., 0, 0]))


@lru_cache(maxsize=512)
def _sampled(item: Operator, place: Place, position: int) -> np.ndarray:
    """Its kernel, with other weights at each position of a design."""
    return item.sampled(place, np.random.default_rng(position + 1))


def _filtered(patches: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """(N, C, H, W) by (F, C, rows, columns) without padding, scaled to keep the magnitude."""
    features, _, rows, columns = kernel.shape
    height, width = patches.shape[2] - rows + 1, patches.shape[3] - columns + 1
    total = np.zeros((len(patches), features, height * width))
    for row, column in np.ndindex(rows, columns):
        part = patches[:, :, row : row + height, column : column + width]
        total += kernel[:, :, row, column] @ part.reshape(*part.shape[:2], -1)
    return (total / np.abs(total).max()).reshape(len(patches), features, height, width)
