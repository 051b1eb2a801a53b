"""One composition with each choice of its group numbers, and the exact fields of its prefixes.

Two targets (`TARGETS`). `size`: the size of the field is (k, k, C), the paper's test; an operator
grows a field whose size it enlarges. `covers`: every output reads the whole k x k x C window; an
operator grows a field of which it puts more inputs into that window, for the output that sees least
of it. Growth is measured over the designs cut after each operator.

Source: Penetrating the Fog, section 3.1 and footnote 1 ("we will try all possible numbers of
groups").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from analysis.composed import Fields
from analysis.reach import Witness
from spaces.design import Design
from spaces.fixed import Shuffle
from spaces.grouped import GroupNumber, divisors
from spaces.operator import DesignError, Operator
from spaces.place import Place
from spaces.rules import Composition
from spaces.symbols import operator_of, with_kernel

SIZE, COVERS = TARGETS = ("size", "covers")

Station = tuple[str, int, int]
"""A symbol, and the channels before and after it."""


class Choice(NamedTuple):
    """One operator of a symbol at its place. groups: those that a shuffle mixes, 1 for none."""

    operator: Operator
    number: int
    params: int
    field: int
    groups: int


class Path(NamedTuple):
    """One choice for each operator, and the fields of the designs cut after each of them."""

    chosen: tuple[Choice, ...]
    fields: tuple[int, ...]


class Choices:
    """Every choice of group numbers of compositions at C -> C channels, towards one target."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        vocabulary: tuple[str, ...],
        max_length: int,
        target: str,
        inner: Fraction | None = None,
    ) -> None:
        if target not in TARGETS:
            raise DesignError(f"unknown target {target!r}; valid are {', '.join(TARGETS)}")
        self.channels, self.kernel, self.inner = channels, kernel, inner
        self.by_size = target == SIZE
        self.target = (kernel, kernel, channels)
        self.vocabulary = vocabulary
        windows = [with_kernel(operator_of(s), kernel).window or (1, 1) for s in vocabulary]
        farthest = max(max(window) // 2 for window in windows)
        self.fields = Fields(channels, kernel, farthest * max_length + kernel // 2)
        self.start = self.fields.identity()
        self._widths: dict[tuple[bool, ...], tuple[int, ...]] = {}
        self._choices: dict[Station, tuple[Choice, ...]] = {}
        self._shuffles: dict[tuple[int, int], int] = {}
        self._alike: dict[Station, Station] = {}
        self._first: dict[object, Station] = {}

    # ---- where the operators stand -----------------------------------------------------------

    def why_invalid(self, composition: Composition) -> str | None:
        """None, or why the composition cannot stand at this width with any group numbers."""
        try:
            stations = self.stations(composition)
        except DesignError as error:
            return str(error)
        for station in stations:
            if not self.at(station):
                return self._why_none(station)
        return None

    def _why_none(self, station: Station) -> str:
        symbol, c, f = station
        operator = with_kernel(operator_of(symbol), self.kernel)
        if operator.is_open:
            return f"{symbol} has no valid group number above 1 from {c} to {f} channels"
        return str(operator.why_invalid(self._place(operator, c, f)))

    def stations(self, composition: Composition) -> tuple[Station, ...]:
        """Each symbol, and the channels before and after it. Raises DesignError."""
        if self.inner is None:
            return tuple((symbol, self.channels, self.channels) for symbol in composition)
        resizing = tuple(operator_of(symbol).resizes for symbol in composition)
        if resizing not in self._widths:
            family = Design(tuple(operator_of(symbol) for symbol in composition), self.inner)
            self._widths[resizing] = family.widths(self.channels)
        widths = pairwise(self._widths[resizing])
        return tuple((symbol, c, f) for symbol, (c, f) in zip(composition, widths, strict=True))

    def _place(self, operator: Operator, c: int, f: int) -> Place:
        """Large enough for the window, since `reach` and `reads` may look at the map."""
        return Place(c, f, *(operator.window or (self.kernel, self.kernel)))

    def at(self, station: Station) -> tuple[Choice, ...]:
        """The operators that can stand there: group numbers 1 < M <= width, as in
        `analysis.reach`; 1 is another symbol."""
        if station not in self._choices:
            symbol, c, f = station
            family = with_kernel(operator_of(symbol), self.kernel)
            found = []
            for operator in _members(family, c, f):
                place = self._place(operator, c, f)
                if operator.why_invalid(place) is None:
                    groups = operator.groups(place)
                    found.append(
                        Choice(
                            operator,
                            _number(operator, place),
                            operator.params(place),
                            self.fields.of(operator, place),
                            groups if 1 < groups < f else 1,
                        )
                    )
            self._choices[station] = tuple(found)
        return self._choices[station]

    def alike(self, station: Station) -> Station:
        """The first station asked about that reads the same with the same choices, and of which
        the same rules speak."""
        if station not in self._alike:
            symbol, c, f = station
            kind = operator_of(symbol)
            read = frozenset((choice.field, choice.groups) for choice in self.at(station))
            key = (c, f, read, kind.kind == "step", kind.resizes)
            self._alike[station] = self._first.setdefault(key, station)
        return self._alike[station]

    # ---- fields ------------------------------------------------------------------------------

    def complete(self, field: int) -> bool:
        """Whether a field hits the target."""
        if self.by_size:
            return self.fields.seen(field).size == self.target
        return self.fields.covers(field)

    def grows(self, before: int, after: int) -> bool:
        """Whether the later field is strictly larger, in the sense of the target."""
        if before == after:
            return False
        if not self.by_size:
            return self.fields.inside(after) > self.fields.inside(before)
        ours, theirs = self.fields.seen(before).size, self.fields.seen(after).size
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))

    def appended(self, groups: int, choice: Choice, width: int) -> int:
        """What the operator reads through the shuffle of so many groups before it."""
        if groups == 1:
            return choice.field
        key = (groups, width)
        if key not in self._shuffles:
            self._shuffles[key] = self.fields.of(Shuffle(groups), Place(width, width, 1, 1))
        return self.fields.after(choice.field, self._shuffles[key])

    # ---- single choices ----------------------------------------------------------------------

    def paths(self, composition: Composition, *, growing: bool = False) -> Iterator[Path]:
        """Every choice; `growing`: those of which each required operator grows the field."""
        stations = self.stations(composition)
        exempt = len(stations) - 1 if self.inner is not None else None

        def walk(chosen: tuple[Choice, ...], fields: tuple[int, ...]) -> Iterator[Path]:
            at = len(chosen)
            if at == len(stations):
                yield Path(chosen, fields[1:])
                return
            groups = chosen[-1].groups if chosen else 1
            for choice in self.at(stations[at]):
                later = self.appended(groups, choice, stations[at][1])
                after = self.fields.after(later, fields[-1])
                if not growing or at == exempt or self.grows(fields[-1], after):
                    yield from walk((*chosen, choice), (*fields, after))

        return walk((), (self.start,))

    def stalls(self, fields: tuple[int, ...]) -> tuple[int, ...]:
        """The operators, counted from 1, that leave the field as it was or smaller."""
        required = fields[:-1] if self.inner is not None else fields
        cuts = pairwise((self.start, *required))
        return tuple(i for i, cut in enumerate(cuts, start=1) if not self.grows(*cut))

    def ranked(self, composition: Composition, *, growing: bool = True) -> list[Witness]:
        """Every choice that hits the target, the cheapest first."""
        found = [
            Witness(
                tuple(choice.operator for choice in path.chosen),
                tuple(choice.number for choice in path.chosen),
                sum(choice.params for choice in path.chosen),
            )
            for path in self.paths(composition, growing=growing)
            if self.complete(path.fields[-1])
        ]
        return sorted(found, key=lambda witness: (witness.params, witness.groups))

    def cheapest(self, composition: Composition, *, growing: bool = True) -> Witness | None:
        """The choice with the fewest parameters that hits the target; None if none does."""
        return next(iter(self.ranked(composition, growing=growing)), None)


def _number(operator: Operator, place: Place) -> int:
    """Its own group number, which a shuffle need not follow (LEAN); else its groups."""
    if isinstance(operator, GroupNumber) and (operator.g or operator.q):
        return operator.number(place)
    return operator.groups(place)


def _members(family: Operator, c: int, f: int) -> list[Operator]:
    """The operators of a family, or the operator itself where it leaves nothing open."""
    if isinstance(family, GroupNumber) and family.is_open:
        return [replace(family, g=number) for number in divisors(c, f)[1:]]
    return [family]
