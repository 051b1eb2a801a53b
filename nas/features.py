"""What is known of a network before it is trained, as a vector of numbers.

Its sizes, what its blocks see, how their channels mix, and how often each operator stands in a
block. Sizes and counts that multiply are base-2 logarithms.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from analysis.completeness import volume_seen
from analysis.theorems import resolve
from nas.candidates import Sized
from nas.standing import here, standing
from spaces.design import Design, Step
from spaces.grouped import GroupNumber
from spaces.operator import Operator
from spaces.vocabulary import vocabulary

SIZES = ("params", "mults", "width")
SHAPES = (
    "depth",  # number of blocks
    "length",  # operators in a block
    "spatial",  # of them those that look beyond a pixel
    "side",  # of the largest window
    "reach",  # pixels by which the field of a block grows, its mean over both axes
    "far",  # the same of the whole network, as a logarithm
    "volume",  # inputs that an output of the first block sees, of 3 x 3 x C, as a logarithm
    "inner",  # the bottleneck's ratio, as a logarithm; 0 without one
    "groups",  # product of the group numbers in the last block, as a logarithm
    "share",  # the same as a share of log2 of the width there: at most 1 in a complete field
    "unshuffled",  # shuffles that were removed
)


@cache
def names() -> tuple[str, ...]:
    """What the numbers of a vector stand for, in order."""
    return (*SIZES, *SHAPES, *sorted(vocabulary()))


def features(entry: Sized) -> NDArray[np.float64]:
    """The vector of a network, as long as `names()`. Cost: a tenth of a millisecond."""
    cost, design, depth = entry.cost, entry.candidate.design, sum(entry.candidate.blocks)
    *_, (_, last) = standing(entry.task.input, entry.candidate.blocks)
    channels, outputs = last.channels * entry.width, last.features * entry.width
    steps = _operators(design, channels, outputs)
    windows = [step.item.window or (1, 1) for step in steps]
    reach = sum((rows + columns) / 2 - 1 for rows, columns in windows)
    groups = sum(math.log2(_number(step)) for step in steps)
    volume = volume_seen(here(design, entry.width, entry.width), entry.width, entry.width)
    shapes = (
        depth,
        len(steps),
        sum(max(window) > 1 for window in windows),
        max(max(window) for window in windows),
        reach,
        math.log2(1 + reach * depth),
        0.0 if isinstance(volume, str) else math.log2(volume / (9 * entry.width)),
        0.0 if design.inner is None else math.log2(design.inner),
        groups,
        groups / math.log2(max(2, channels)),
        len(design.unshuffled),
    )
    sizes = (cost.params, cost.mults, entry.width)
    counts = [design.composition.count(symbol) for symbol in sorted(vocabulary())]
    return np.array([*map(math.log2, sizes), *shapes, *counts], dtype=np.float64)


@lru_cache(maxsize=16384)
def _operators(design: Design, channels: int, features: int) -> tuple[Step, ...]:
    """Of the design with its open numbers filled in, where they stand in a block."""
    steps = resolve(design, channels, features).places(channels, features)
    return tuple(step for step in steps if step.position is not None)


def _number(step: Step) -> int:
    """Of groups, where the operator has some: those of DW are its channels."""
    item = step.item
    if isinstance(item, GroupNumber) and (item.q or item.g) is not None:
        return item.number(step.place)
    return item.groups(step.place) if isinstance(item, Operator) else 1
