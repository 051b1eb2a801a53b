"""The information field: exactly which inputs one output activation reads.

    field(output) = reads_1(reads_2( ... reads_n({output}) ... ))

The fold runs from right to left over the operators, shuffles and pools of a design, so it is
exact for any group numbers, stencils and permutations. It is structural: generic weights, an
activation's derivative taken as 1. An operator that reads its whole plane (`window` is None) has
no finite field on an unbounded map: columns, rows and volume are then "all".

Cost: one fold of C x rows x columns for each orbit of output channels (`analysis.symmetry`);
a design of the first family has a handful of them at any width.
Source: Penetrating the Fog, section 3 ("information field").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.symmetry import representatives
from spaces.design import Design, Step
from spaces.operator import DesignError, Mask
from spaces.place import Place

CHUNK = 2**24
"""Activations folded at once, which bounds the memory at some tens of megabytes."""


ALL: Literal["all"] = "all"
"""Every column, row or input of an unbounded map."""

Count = int | Literal["all"]


class Support(NamedTuple):
    """The inputs (C, rows, columns) that one output reads; the output pixel stands at
    (row, column) of them."""

    inputs: Mask
    row: int
    column: int


@dataclass(frozen=True)
class Growth:
    """The field of the design cut after an operator: [x, y, channels] and volume."""

    operator: str
    size: tuple[Count, Count, int]
    volume: Count


@dataclass(frozen=True)
class Field:
    """What the output channel that sees least (or the one asked for) reads.

    size: distinct columns, rows and channels. extent: columns and rows from the first to the
    last, which is more under dilation. volume: number of inputs. complete: every output reads
    all of the target window k x k x C around its pixel. equals_standard: size = (k, k, C).
    uniform: all outputs agree in size, extent and volume. missing_channels: input channels not
    read at all. missing_taps: inputs of the target window not read. steps: the growth over the
    prefixes.
    """

    size: tuple[Count, Count, int]
    extent: tuple[Count, Count]
    volume: Count
    complete: bool
    equals_standard: bool
    uniform: bool
    missing_channels: tuple[int, ...]
    missing_taps: int
    steps: tuple[Growth, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, under the names of the attributes."""
        return asdict(self)


class _Seen(NamedTuple):
    """The figures of one output; `missing` counts inputs of the target window."""

    output: int
    size: tuple[int, int, int]
    extent: tuple[int, int]
    volume: int
    missing: int


def support(
    design: Design,
    channels: int,
    out_channels: int | None = None,
    *,
    output: int,
    size: tuple[int, int] | None = None,
    stride: int = 1,
) -> Support:
    """The inputs that one output channel reads at the centre pixel of its map.

    size: (height, width) of the input map; without it the map is unbounded, that is, large
    enough for nothing to be clipped; where a whole plane is read, every pixel of that map is.
    Raises DesignError where the design cannot stand.

    >>> from spaces.design import parse
    >>> support(parse("GC(2)"), 4, output=3).inputs.any(axis=(1, 2)).tolist()
    [False, False, True, True]
    """
    steps = _standing(design, channels, out_channels, size, stride)
    _check_output(steps, output)
    row, column = _centre(steps)
    return Support(_fold(steps, [output])[0], row * stride, column * stride)


def field(
    design: Design,
    channels: int,
    out_channels: int | None = None,
    *,
    kernel: int = 3,
    size: tuple[int, int] | None = None,
    output: int | None = None,
) -> Field:
    """The information field of a design, measured against a kernel x kernel x C window.

    size: (height, width) of the map, whose centre pixel is asked and whose border clips both
    field and target window; without it the map is unbounded. output: the channel to describe.
    A prefix keeps the widths that it has in the whole design: each of `steps` describes the
    output of the cut that sees least. Raises DesignError where the design cannot stand.

    >>> from spaces.design import parse
    >>> field(parse("GC(32)+PWG(2)"), 64).size
    (3, 3, 64)
    >>> field(parse("GC(32)~+PWG(2)"), 64).size
    (3, 3, 32)
    """
    if kernel < 1 or kernel % 2 == 0:
        raise DesignError(f"the target's kernel size is {kernel}; valid are 1, 3, 5, 7, ...")
    steps = _standing(design, channels, out_channels, size, margin=kernel // 2)
    return _described(steps, kernel, output, unbounded=size is None)


def field_of_steps(steps: Sequence[Step], *, kernel: int = 3) -> Field:
    """The field of items in a row on an unbounded map: of the body of a block, say.

    The window stands around the input pixel of the output's centre. Raises DesignError for an
    item at a place of its own kind (a pool over the whole map), which is nowhere else.
    """
    fixed = next((step.item for step in steps if type(step.place) is not Place), None)
    if fixed is not None:
        raise DesignError(f"{fixed} makes a map of fixed size: there is no unbounded one")
    stride = math.prod(step.place.stride for step in steps)
    height, width = _unbounded(steps, stride, kernel // 2)
    moved = []
    for step in steps:
        place = replace(step.place, height=height, width=width)
        moved.append(step._replace(place=place))
        height, width = place.out_height, place.out_width
    return _described_once(tuple(moved), kernel)


@cache
def _described_once(steps: tuple[Step, ...], kernel: int) -> Field:
    """Networks repeat their blocks."""
    return _described(steps, kernel, None, unbounded=True)


def _described(steps: Sequence[Step], kernel: int, output: int | None, *, unbounded: bool) -> Field:
    """The figures of the output that sees least, or of the one asked for."""
    channels = steps[0].place.channels
    seen = _measure(steps, representatives(steps), kernel)
    least = min(seen, key=_order)
    if output is not None:
        _check_output(steps, output)
        (least,) = _measure(steps, [output], kernel)
    read = _fold(steps, [least.output])[0].any(axis=(1, 2))
    endless = unbounded and _reads_whole_plane(steps)
    return Field(
        size=(ALL, ALL, least.size[2]) if endless else least.size,
        extent=(ALL, ALL) if endless else least.extent,
        volume=ALL if endless else least.volume,
        complete=not any(one.missing for one in seen),
        equals_standard=least.size == (kernel, kernel, channels),
        uniform=len({(one.size, one.extent, one.volume) for one in seen}) == 1,
        missing_channels=tuple(int(c) for c in np.flatnonzero(~read)),
        missing_taps=least.missing,
        steps=tuple(_growth(steps, kernel, unbounded=unbounded)),
    )


def _reads_whole_plane(steps: Sequence[Step]) -> bool:
    return any(item.window is None for item, _, _ in steps)


def _growth(steps: Sequence[Step], kernel: int, unbounded: bool) -> list[Growth]:
    """The field of each prefix that ends with an operator."""
    grown = []
    for end, step in enumerate(steps, start=1):
        if step.position is not None:
            cut = steps[:end]
            least = min(_measure(cut, representatives(cut), kernel), key=_order)
            growth = Growth(str(step.item), least.size, least.volume)
            if unbounded and _reads_whole_plane(cut):
                growth = replace(growth, size=(ALL, ALL, least.size[2]), volume=ALL)
            grown.append(growth)
    return grown


def _order(seen: _Seen) -> tuple[int, int, int]:
    """Sorts first what sees least: fewest inputs, then most missing, then lowest channel."""
    return (seen.volume, -seen.missing, seen.output)


def _standing(
    design: Design,
    channels: int,
    out_channels: int | None,
    size: tuple[int, int] | None,
    stride: int = 1,
    margin: int = 0,
) -> tuple[Step, ...]:
    """The steps on a map of this size, or on one that clips neither field nor margin."""
    if design.is_family:
        raise DesignError(
            f"{design} names a family; its field depends on the group numbers: write them, "
            "e.g. GC(4)+PWG(2)"
        )
    if size is None:
        size = _unbounded(design.places(channels, out_channels, stride=stride), stride, margin)
    return design.places(channels, out_channels, *size, stride)


def _unbounded(steps: Sequence[Step], stride: int, margin: int) -> tuple[int, int]:
    """Height and width that leave room for every stencil around the centre pixel."""
    room = np.array([margin, margin])
    scale = 1
    for item, place, _ in steps:
        room += (np.array(item.window or (1, 1)) // 2 + place.stride - 1) * scale
        scale *= place.stride
    height, width = 2 * stride * -(-room // stride) + 1
    return int(height), int(width)


def _centre(steps: Sequence[Step]) -> tuple[int, int]:
    """Row and column of the output pixel that is asked."""
    last = steps[-1].place
    return last.out_height // 2, last.out_width // 2


def _check_output(steps: Sequence[Step], output: int) -> None:
    features = steps[-1].place.features
    if not 0 <= output < features:
        raise DesignError(f"output channel {output} does not exist; valid are 0 to {features - 1}")


def _fold(steps: Sequence[Step], outputs: Sequence[int]) -> Mask:
    """The inputs (outputs, C, H, W) that these output channels read at the centre pixel."""
    last = steps[-1].place
    needed = np.zeros((len(outputs), last.features, last.out_height, last.out_width), bool)
    needed[(np.arange(len(outputs)), outputs, *_centre(steps))] = True
    for item, place, _ in reversed(steps):
        needed = item.reads(needed, place)
    return needed


def _measure(steps: Sequence[Step], outputs: Sequence[int], kernel: int) -> list[_Seen]:
    """The figures of some output channels; the window stands around the centre pixel."""
    stride = math.prod(step.place.stride for step in steps)
    row, column = (stride * at for at in _centre(steps))
    half = kernel // 2
    widest = max(
        max(place.channels, place.features) * place.height * place.width for _, place, _ in steps
    )
    at_once = max(1, CHUNK // widest)
    seen = []
    for start in range(0, len(outputs), at_once):
        part = outputs[start : start + at_once]
        inputs = _fold(steps, part)
        rows, columns = np.any(inputs, axis=(1, 3)), np.any(inputs, axis=(1, 2))
        read = inputs.any(axis=(2, 3)).sum(axis=1).tolist()
        volume = inputs.sum(axis=(1, 2, 3)).tolist()
        window = inputs[
            ...,
            max(0, row - half) : row + half + 1,
            max(0, column - half) : column + half + 1,
        ]
        missing = (~window).sum(axis=(1, 2, 3)).tolist()
        for i, output in enumerate(part):
            size = (int(columns[i].sum()), int(rows[i].sum()), read[i])
            extent = (_span(columns[i]), _span(rows[i]))
            seen.append(_Seen(output, size, extent, volume[i], missing[i]))
    return seen


def _span(line: Mask) -> int:
    """From the first to the last that is set; 0 where none is."""
    set_at = np.flatnonzero(line)
    return int(set_at[-1] - set_at[0] + 1) if len(set_at) else 0
