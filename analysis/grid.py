"""A grid of concrete designs as numbered rows, and the arrays that `analysis.sweep` reads.

A grid is families x kernel sizes x C x F. A cell of it is one family at one kernel size and one
C -> F; its rows are the valid assignments of group numbers: each number divides both widths of
its operator, and an inner width r F must be whole. Rows are numbered cell after cell; within a
cell the number of the first open operator changes fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from analysis.theorems import chain, fill, shares
from spaces.design import Design, parse
from spaces.grouped import NumberedGroups, divisors
from spaces.operator import DesignError
from spaces.operators.depthwise import Depthwise

Array = np.ndarray

INNER = ("1/8", "1/4", "1/2")
PAPER = (
    *("STD", "DW+PW", "PW+DW", "GC+PW", "PW+GC", "GC+PWG", "PWG+GC"),
    *("PWG+DW+PWG", "PWG+GC+PWG"),
    *(f"{family}@{r}" for family in ("PW+DW+PW", "PWG+DW+PWG", "PWG+GC+PWG") for r in INNER),
)
"""STD, the plain survivors of the paper's funnel and its bottlenecks, and PWG+GC+PWG, of which
PWG+DW+PWG is the case that the funnel keeps."""

DENSE, DEPTHWISE, OPEN = 0, 1, 2


@dataclass(frozen=True)
class Grid:
    """What is swept: shuffled chains of STD, GC, DW, PW and PWG without numbers.

    kernels: sizes of all spatial operators. size: (H, W) of the map. itemsize: bytes a number.
    """

    families: tuple[Design, ...] = tuple(map(parse, PAPER))
    kernels: tuple[int, ...] = (3, 5, 7)
    channels: tuple[int, ...] = tuple(range(8, 1025, 8))
    features: tuple[int, ...] = tuple(range(8, 1025, 8))
    size: tuple[int, int] = (32, 32)
    itemsize: int = 4

    def members(self) -> Iterator[Design]:
        """Each family at each kernel size; one without a spatial operator once."""
        for family in self.families:
            yield from dict.fromkeys(with_kernel(family, kernel) for kernel in self.kernels)

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{len(self.families)} families ({', '.join(map(str, self.families))}) x kernels "
            f"{', '.join(map(str, self.kernels))} x C {_span(self.channels)} x "
            f"F {_span(self.features)} x every valid assignment of group numbers; "
            f"{height} x {width} map, {self.itemsize} bytes a number"
        )


def with_kernel(design: Design, kernel: int) -> Design:
    """The design with all spatial operators at this kernel size."""
    sized = (replace(op, kernel=kernel) if op.spatial else op for op in chain(design))
    return replace(design, operators=tuple(sized))


def _span(values: Sequence[int]) -> str:
    return f"{values[0]}..{values[-1]} ({len(values)} values)"


@dataclass(frozen=True)
class Row:
    """One concrete design and what the sweep says of it.

    seen: input channels that each output reads. volume: inputs that it reads.
    """

    design: Design
    channels: int
    out_channels: int
    seen: int
    volume: int
    complete: bool
    params: int
    mults: int
    adds: int
    traffic_bytes: int

    @property
    def links(self) -> int:
        """Weights of the dense convolution with the same field: F x volume."""
        return self.out_channels * self.volume


class Members(NamedTuple):
    """The families at their kernel sizes: arrays (members,) or (members, operators).

    Width i of a member is width_c C + width_f F / width_d; window: taps along one axis of the
    whole field.
    """

    length: Array
    kind: Array
    taps: Array
    window: Array
    width_c: Array
    width_f: Array
    width_d: Array


class Divisors(NamedTuple):
    """The divisors of w, ascending, are values[start[w] : start[w + 1]]."""

    start: Array
    values: Array


def describe(designs: Sequence[Design]) -> Members:
    """The designs as arrays. Raises DesignError for one that the sweep cannot number."""
    longest = max(len(design.operators) for design in designs)
    kind, taps = (np.zeros((len(designs), longest), np.int64) for _ in range(2))
    width_c, width_f = (np.zeros((len(designs), longest + 1), np.int64) for _ in range(2))
    width_d = np.ones_like(width_f)
    window = np.ones(len(designs), np.int64)
    for m, design in enumerate(designs):
        if design.unshuffled:
            raise DesignError(f"the sweep knows only shuffled chains; {design} leaves one out")
        for i, operator in enumerate(chain(design)):
            if operator.dilation > 1:
                raise DesignError(f"the sweep knows no dilation; {design} has {operator}")
            if isinstance(operator, NumberedGroups) and not operator.is_open:
                raise DesignError(f"the sweep fills in group numbers; {design} has {operator}")
            fixed = DEPTHWISE if isinstance(operator, Depthwise) else DENSE
            kind[m, i] = OPEN if operator.is_open else fixed
            taps[m, i] = operator.kernel**2
            window[m] += operator.kernel - 1
        for i, (x, y) in enumerate(shares(design)):
            width_c[m, i], width_f[m, i], width_d[m, i] = x, y.numerator, y.denominator
    length = np.array([len(design.operators) for design in designs])
    return Members(length, kind, taps, window, width_c, width_f, width_d)


def tabulate(members: Members, channels: int, features: int) -> Divisors:
    """The divisors of every width of any member up to these largest C and F."""
    inner = members.width_f * features // members.width_d
    largest = int((members.width_c * channels + inner).max())
    values = [divisors(w) for w in range(1, largest + 1)]
    start = np.concatenate([[0, 0], np.cumsum([len(ds) for ds in values])])
    return Divisors(start, np.concatenate(values))


def rows_of(members: Members, m: int, channels: Array, features: Array, counts: Array) -> Array:
    """Rows of each cell (C, F) of one member; counts[w]: number of divisors of w."""
    rows = np.ones((len(channels), len(features)), np.int64)
    before = channels[:, None]
    for i in range(members.length[m]):
        inner, odd = np.divmod(members.width_f[m, i + 1] * features, members.width_d[m, i + 1])
        after = members.width_c[m, i + 1] * channels[:, None] + inner
        if members.kind[m, i] == OPEN:
            rows *= counts[np.gcd(before, after)]
        rows *= odd == 0
        before = after
    return rows


def numbered(family: Design, channels: int, features: int, row: int) -> Design:
    """The design of a row of a cell."""
    groups = []
    widths = pairwise(family.widths(channels, features))
    for operator, pair in zip(family.operators, widths, strict=True):
        if operator.is_open:
            choices = divisors(*pair)
            row, j = divmod(row, len(choices))
            groups.append(choices[j])
    return fill(family, groups)
