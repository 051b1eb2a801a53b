"""The exact fields of chains, by an algebra of channel relations and sets of taps.

What an operator reads on an unbounded map is a relation of outputs to inputs for each tap (dy, dx),
told by its `reads` of one output at a time. Few taps differ, so it is a short list of

    (taps T, relation R),   R[f] = the input channels that output f reads at every tap of T,

T disjoint, R distinct: a canonical form. A chain composes without a map:

    (T', R') after (T, R)  reads  R[R'[f]]  at the taps  {t' + t}.

Relations, sets of taps and whole fields are interned, so that each pair is composed once however
many compositions share it. A set is the bits of an integer; an operator that reads the whole plane
reads the whole of a window that is large enough for the length at hand.

Source: Penetrating the Fog, section 3 ("information field"), as in `analysis.field`, without fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from typing import NamedTuple, TypeVar, cast

import numpy as np

from analysis.relations import Interned, Relations
from analysis.taps import Taps
from spaces.operator import Operator
from spaces.place import Place

Value = TypeVar("Value")
Terms = tuple[tuple[int, int], ...]
"""Pairs of a set of taps and the number of a relation."""


def memo(figure: Callable[[Fields, int], Value]) -> Callable[[Fields, int], Value]:
    """Each field's figure is computed once."""
    name = figure.__name__

    def once(self: Fields, field: int) -> Value:
        known = self._memos.setdefault(name, {})
        if field not in known:
            known[field] = figure(self, field)
        return cast("Value", known[field])

    return once


class Seen(NamedTuple):
    """What the output that sees least reads. size: (columns, rows, channels), volume: number of
    inputs. narrowest: the side of the window, over all outputs the smallest."""

    size: tuple[int, int, int]
    volume: int
    narrowest: int


class Fields:
    """Fields within `radius` pixels of the output's own, measured against a k x k window.

    A field is a number; `identity`, `of` and `after` make new ones.
    """

    def __init__(self, channels: int, kernel: int, radius: int) -> None:
        self.channels = channels
        self.taps = Taps(kernel, radius)
        self.relations = Relations()
        self._fields: Interned[Terms] = Interned()
        self._after: dict[tuple[int, int, bool], int] = {}
        self._memos: dict[str, dict[int, object]] = {}

    # ---- fields ------------------------------------------------------------------------------

    def identity(self) -> int:
        """Each output reads itself."""
        return self._field([(self.taps.centre, self.relations.diagonal(self.channels))])

    def of(self, operator: Operator, place: Place) -> int:
        """What the operator reads from C to F channels; the place's map is not looked at."""
        rows, columns = operator.window or (2 * self.taps.radius + 1,) * 2
        self.relations.diagonal(place.channels)
        here = Place(place.channels, place.features, rows, columns)
        one_each = np.zeros((place.features, place.features, rows, columns), bool)
        outputs = np.arange(place.features)
        one_each[outputs, outputs, rows // 2, columns // 2] = True
        packed = np.packbits(operator.reads(one_each, here), axis=1, bitorder="little")
        terms = []
        for row, column in np.ndindex(rows, columns):
            words = packed[:, :, row, column]
            if words.any():
                relation = tuple(int.from_bytes(word.tobytes(), "little") for word in words)
                tap = self.taps.tap(row - rows // 2, column - columns // 2)
                terms.append((tap, self.relations(relation)))
        return self._field(terms)

    def after(self, later: int, earlier: int, *, inside: bool = False) -> int:
        """The field of the later operators on what the earlier ones give; `inside`: only what
        lies within the target window."""
        key = (later, earlier, inside)
        found = self._after.get(key)
        if found is None:
            kept = self.taps.target if inside else self.taps.grid
            pairs = [
                (taps, theirs, ours)
                for their_taps, theirs in self._fields.values[later]
                for our_taps, ours in self._fields.values[earlier]
                if (taps := self.taps.sum(their_taps, our_taps) & kept)
            ]
            terms = [(taps, self.relations.product(theirs, ours)) for taps, theirs, ours in pairs]
            found = self._after[key] = self._field(terms)
        return found

    def collapsed(self, field: int) -> int:
        """The part of a field that is a box of channels: the taps at which every output reads
        every channel, which is a field of its own."""
        return self._field(
            [(taps, one) for taps, one in self._fields.values[field] if self._is_full(one)]
        )

    def _field(self, terms: Iterable[tuple[int, int]]) -> int:
        """The number of a union of terms: taps made disjoint, relations distinct."""
        by_relation: dict[int, int] = {}
        for taps, relation in terms:
            by_relation[relation] = by_relation.get(relation, 0) | taps
        apart: list[tuple[int, int]] = []
        for relation, taps in by_relation.items():
            split = []
            for there, other in apart:
                common = there & taps
                taps &= ~common
                if common:
                    split.append((common, self.relations.union(other, relation)))
                if there != common:
                    split.append((there & ~common, other))
            if taps:
                split.append((taps, relation))
            apart = split
        merged: dict[int, int] = {}
        for taps, relation in apart:
            merged[relation] = merged.get(relation, 0) | taps
        return self._fields(tuple(sorted((taps, relation) for relation, taps in merged.items())))

    # ---- what a field amounts to -------------------------------------------------------------

    def _is_full(self, relation: int) -> bool:
        rows = set(self.relations.values[relation])
        return rows == {(1 << self.channels) - 1}

    def covers(self, field: int) -> bool:
        """Whether every output reads the whole target window."""
        return any(
            taps & self.taps.target == self.taps.target and self._is_full(one)
            for taps, one in self._fields.values[field]
        )

    @memo
    def inside(self, field: int) -> int:
        """Inputs within the target window, of the output that reads fewest there."""
        terms = [(taps & self.taps.target, one) for taps, one in self._fields.values[field]]
        rows = [
            [row.bit_count() * taps.bit_count() for row in self.relations.values[one]]
            for taps, one in terms
            if taps
        ]
        return min(map(sum, zip(*rows, strict=True)), default=0)

    @memo
    def volumes(self, field: int) -> tuple[int, int]:
        """Inputs of the output that reads fewest, and of the one that reads most."""
        rows = [
            [row.bit_count() * taps.bit_count() for row in self.relations.values[one]]
            for taps, one in self._fields.values[field]
        ]
        volumes = [sum(each) for each in zip(*rows, strict=True)]
        return min(volumes), max(volumes)

    @memo
    def most_channels(self, field: int) -> int:
        """Channels of the output that reads most of them."""
        patterns = self._patterns(field)
        return max(reduce(or_, (row for _, row in each)).bit_count() for each in patterns)

    @memo
    def common(self, field: int) -> int:
        """The taps at which every output reads something."""
        terms = self._fields.values[field]
        return reduce(or_, (taps for taps, one in terms if all(self.relations.values[one])), 0)

    def contains(self, more: int, less: int) -> bool:
        """Whether each output reads at least as much in the one field as in the other."""
        for taps, relation in self._fields.values[less]:
            rows = self.relations.values[relation]
            for there, other in self._fields.values[more]:
                if taps & there:
                    taps &= ~there
                    wider = self.relations.values[other]
                    if any(row & ~wide for row, wide in zip(rows, wider, strict=True)):
                        return False
            if taps:
                return False
        return True

    def completes(self, later: int, earlier: int) -> bool:
        """Whether the later operators on what the earlier ones give cover the window."""
        return self._covered(later, earlier) and self.covers(
            self.after(later, earlier, inside=True)
        )

    def _covered(self, later: int, earlier: int) -> bool:
        """Whether the first output reads the whole window: a quick test that most fail."""
        read: dict[int, int] = {}
        for their_taps, inputs in self._patterns(later)[0]:
            for our_taps, ours in self._fields.values[earlier]:
                if taps := self.taps.sum(their_taps, our_taps) & self.taps.target:
                    read[taps] = read.get(taps, 0) | self.relations.read(inputs, ours)
        everything = (1 << self.channels) - 1
        for tap in self.taps.target_taps:
            bits = 0
            for taps, inputs_read in read.items():
                if taps & tap:
                    bits |= inputs_read
            if bits != everything:
                return False
        return True

    def sizes(self, later: int, earlier: int, side: int) -> set[tuple[int, int, int] | None]:
        """The sizes over all outputs of the later operators on what the earlier ones give; None
        for one whose window has a longer side than asked about."""
        terms = self._fields.values[earlier]
        return {self._size(pattern, terms, side) for pattern in self._patterns(later)}

    def _size(
        self, pattern: tuple[tuple[int, int], ...], terms: Terms, side: int
    ) -> tuple[int, int, int] | None:
        taps = read = 0
        for their_taps, inputs in pattern:
            for our_taps, ours in terms:
                if bits := self.relations.read(inputs, ours):
                    read |= bits
                    taps |= self.taps.sum(their_taps, our_taps)
                    if self.taps.side(taps) > side:
                        return None
        return (*self.taps.span(taps), read.bit_count())

    @memo
    def _patterns(self, field: int) -> list[tuple[tuple[int, int], ...]]:
        """The distinct fields of single outputs, the first output's first: taps and inputs."""
        taps = [taps for taps, _ in self._fields.values[field]]
        rows = [self.relations.values[one] for _, one in self._fields.values[field]]
        return [
            tuple((t, row) for t, row in zip(taps, pattern, strict=True) if row)
            for pattern in dict.fromkeys(zip(*rows, strict=True))
        ]

    @memo
    def seen(self, field: int) -> Seen:
        """The figures of a field."""
        terms = self._fields.values[field]
        rows = [self.relations.values[relation] for _, relation in terms]
        counts = [(t.bit_count(), (t & self.taps.target).bit_count()) for t, _ in terms]
        first: dict[tuple[int, ...], int] = {}
        for output, pattern in enumerate(zip(*rows, strict=True)):
            first.setdefault(pattern, output)
        figures = [
            self._figures(pattern, output, terms, counts) for pattern, output in first.items()
        ]
        volume, _, _, size = min(figures)
        return Seen(size, volume, min(max(figure[3][:2]) for figure in figures))

    def _figures(
        self,
        pattern: tuple[int, ...],
        output: int,
        terms: Terms,
        counts: list[tuple[int, int]],
    ) -> tuple[int, int, int, tuple[int, int, int]]:
        """Volume, inputs inside the window, the output itself, and its size: what sorts first
        sees least (as in `analysis.field`)."""
        volume = inside = taps = read = 0
        for row, (term, _), (everywhere, within) in zip(pattern, terms, counts, strict=True):
            if row:
                channels = row.bit_count()
                volume += channels * everywhere
                inside += channels * within
                taps |= term
                read |= row
        return volume, inside, output, (*self.taps.span(taps), read.bit_count())
