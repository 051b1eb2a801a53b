"""Channels on a grid, each output reading its neighbours only: topological subdivisioning.

With channels row by row on a grid d_1 x ... x d_s, output j reads the inputs j .. j + t - 1
(mod d) along each axis: t_1 x ... x t_s of them instead of C.
Source: Factorized Convolutional Neural Networks, section 2.3 and equation 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spaces.grouped import divisors
from spaces.operator import DesignError, Mask, Operator, Permutation, argument
from spaces.periodic import wrapped


class Extents(tuple[int, ...]):
    """Sizes along the axes of a grid, written `8x16`."""

    def __str__(self) -> str:
        return "x".join(map(str, self))


def extents(text: str) -> Extents:
    """Whole numbers of at least 1 with an x between: `8x16`."""
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise DesignError(f"{text!r} is no grid; write numbers of at least 1, e.g. 8x16")
    return Extents(map(int, parts))


def halves(grid: Extents) -> Extents:
    """Half of each axis, rounded up: the neighbourhoods of the paper's Table 4."""
    return Extents(-(-size // 2) for size in grid)


def squarest(number: int, axes: int) -> Extents | None:
    """The factorisation into so many factors above 1, ascending, whose largest factor is smallest
    (then the next); None if there is none.

    >>> [str(squarest(n, s)) for n, s in ((128, 2), (128, 3), (24, 2), (7, 1), (7, 2))]
    ['8x16', '4x4x8', '4x6', '7', 'None']
    """
    return min(_factorisations(number, axes, 2), key=lambda grid: grid[::-1], default=None)


def _factorisations(number: int, axes: int, least: int) -> Iterator[Extents]:
    """Ascending factors of at least `least`."""
    if axes == 1:
        if number >= least:
            yield Extents([number])
        return
    for first in divisors(number):
        if first >= least:
            for rest in _factorisations(number // first, axes - 1, first):
                yield Extents([first, *rest])


class Topology(NamedTuple):
    """The grid of channels and how many of them an output reads along each axis."""

    grid: Extents
    near: Extents

    @property
    def channels(self) -> int:
        return math.prod(self.grid)

    @property
    def fan_in(self) -> int:
        return math.prod(self.near)

    def reads(self, needed: Mask) -> Mask:
        """The channels (..., C, H, W) that the needed ones read, at the same pixel."""
        *batch, _, height, width = needed.shape
        cells = needed.reshape(*batch, *self.grid, height, width)
        first = len(batch)
        for axis, count in enumerate(self.near, start=first):
            cells = wrapped(cells, range(count), axis)
        return cells.reshape(needed.shape)

    def carried(self, permutation: Permutation) -> Permutation | None:
        """A translation of the grid is carried as it is."""
        cells = np.arange(self.channels).reshape(self.grid)
        offset = np.unravel_index(permutation[0], self.grid)
        moved = np.roll(cells, [-int(o) for o in offset], range(len(self.grid)))
        return permutation if np.array_equal(moved.ravel(), permutation) else None


@dataclass(frozen=True)
class Subdivided(Operator):
    """An operator whose channels may lie on a grid: `s` axes of the squarest grid with half of
    each axis, or the grid `d` with neighbourhoods `t` (half of each axis unless given)."""

    axes: int | None = argument("s", None, bare=True)
    grid: Extents | None = argument("d", None, extents)
    near: Extents | None = argument("t", None, extents)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axes is not None:
            if self.axes < 1:
                raise DesignError(f"{self.symbol}: {self.axes} axes; valid are 1, 2, 3, ...")
            if self.grid is not None or self.near is not None:
                raise DesignError(f"{self.symbol}: give s={self.axes} or a grid d=, not both")
        if self.grid is None:
            if self.near is not None:
                raise DesignError(f"{self.symbol}: t={self.near} needs a grid d=")
            return
        near = halves(self.grid) if self.near is None else self.near
        object.__setattr__(self, "near", near)
        if len(near) != len(self.grid):
            raise DesignError(f"{self.symbol}: d={self.grid} and t={near} differ in their axes")
        for size, count in zip(self.grid, near, strict=True):
            if count > size:
                raise DesignError(
                    f"{self.symbol}: t={near} reaches around d={self.grid}: {count} neighbours on "
                    f"an axis of {size}; valid are 1 to {size}"
                )

    def topology(self, channels: int) -> Topology | None:
        """Where so many channels lie and what they read; None where they do not fit."""
        grid = self.grid if self.axes is None else squarest(channels, self.axes)
        if grid is None or math.prod(grid) != channels:
            return None
        return Topology(grid, halves(grid) if self.near is None else self.near)

    def why_no_topology(self, channels: int) -> str | None:
        """None, or why so many channels do not lie on the grid."""
        if self.topology(channels) is not None:
            return None
        if self.grid is not None:
            valid = math.prod(self.grid)
            return f"{self}: the grid {self.grid} holds {valid} channels, not {channels}"
        return f"{self}: {channels} channels are no product of {self.axes} factors above 1"
