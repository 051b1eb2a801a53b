"""The fields that a composition can have over all its group numbers, without building one.

Forward over the operators, a state is the size (x, y, channels) of the field of the prefix,
first (1, 1, 1). An operator whose `reach` spans c columns and r rows of i channels leads to

    (x + c - 1, y + r - 1, min(C, channels * i)).

With the shuffle of the paper the chains of {GC, DW, PW, PWG} attain this bound at every output;
survivors are verified with the exact field all the same. Few sizes are ever reached, and
compositions share their prefixes, so that each set of states is stepped once.

Source: Penetrating the Fog, section 3.1 and footnote 1 ("we will try all possible numbers of
groups").
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from spaces.design import Design
from spaces.grouped import divisors
from spaces.operator import DesignError, Operator
from spaces.place import Place
from spaces.rules import Composition
from spaces.vocabulary import vocabulary

Size = tuple[int, int, int]
"""Columns, rows and channels of a field, in the order of the paper."""

START: Size = (1, 1, 1)


class Edge(NamedTuple):
    """One operator at its position (counted from 1) leads from one size to the next."""

    position: int
    source: Size
    target: Size

    @property
    def stalls(self) -> bool:
        return self.source == self.target


class Witness(NamedTuple):
    """Operators with their numbers, each number of groups, and the parameters of all."""

    operators: tuple[Operator, ...]
    groups: tuple[int, ...]
    params: int


@cache
def member(symbol: str, kernel: int, groups: int | None = None) -> Operator:
    """The operator of this symbol; `kernel` counts where it has a kernel size."""
    kind = vocabulary()[symbol]
    keys = {f.metadata["key"] for f in kind.arguments()}
    words = [f"g={groups}"] if groups is not None else []
    return kind.read([*words, f"k={kernel}"] if "k" in keys else words)


def members(symbol: str, kernel: int, place: Place) -> tuple[Operator, ...]:
    """Every operator of this symbol that can stand here, group numbers 1 < M <= width.

    1 is left out because it names another operator: GC(1) is STD, PWG(1) is PW.
    """
    if vocabulary()[symbol].grouped:
        numbers = divisors(place.channels, place.features)[1:]
        found = [member(symbol, kernel, groups) for groups in numbers]
    else:
        found = [member(symbol, kernel)]
    return tuple(operator for operator in found if operator.why_invalid(place) is None)


class Reach:
    """The fields of compositions at C -> C channels, with an inner width if `inner` is given."""

    def __init__(self, channels: int, kernel: int = 3, inner: Fraction | None = None) -> None:
        self.channels = channels
        self.kernel = kernel
        self.inner = inner
        self.target: Size = (kernel, kernel, channels)
        self._members: dict[tuple[str, int, int], tuple[tuple[Operator, Size], ...]] = {}
        self._steps: dict[tuple[frozenset[Size], str, int, int], frozenset[Size]] = {}

    # ---- where the operators stand -----------------------------------------------------------

    def why_invalid(self, composition: Composition) -> str | None:
        """None, or why the composition cannot stand at this width with any group numbers."""
        try:
            stations = self._stations(composition)
        except DesignError as error:
            return str(error)
        for symbol, c, f in stations:
            if not self._choices(symbol, c, f):
                return f"{symbol} has no valid group number above 1 from {c} to {f} channels"
        return None

    def _stations(self, composition: Composition) -> list[tuple[str, int, int]]:
        """Each symbol, and the channels before and after it. Raises DesignError."""
        if self.inner is None:
            return [(symbol, self.channels, self.channels) for symbol in composition]
        family = Design(tuple(member(symbol, self.kernel) for symbol in composition), self.inner)
        widths = pairwise(family.widths(self.channels))
        return [(symbol, c, f) for symbol, (c, f) in zip(composition, widths, strict=True)]

    def _choices(self, symbol: str, c: int, f: int) -> tuple[tuple[Operator, Size], ...]:
        """Each operator of the symbol at c -> f channels, with what its boxes span and read."""
        if (symbol, c, f) not in self._members:
            place = Place(c, f, 1, 1)
            found = []
            for operator in members(symbol, self.kernel, place):
                boxes = operator.reach(place)
                columns, rows = max(b.columns for b in boxes), max(b.rows for b in boxes)
                found.append((operator, (columns, rows, sum(b.fan_in for b in boxes))))
            self._members[symbol, c, f] = tuple(found)
        return self._members[symbol, c, f]

    # ---- the dynamic programme ---------------------------------------------------------------

    def _after(self, size: Size, reads: Size) -> Size:
        x, y, channels = size
        columns, rows, fan_in = reads
        return (x + columns - 1, y + rows - 1, min(self.channels, channels * fan_in))

    def layers(self, composition: Composition) -> list[frozenset[Size]]:
        """The sizes that each prefix can have, from the empty prefix on.

        >>> sorted(Reach(4).layers(("GC", "PWG"))[-1])
        [(3, 3, 1), (3, 3, 2), (3, 3, 4)]
        """
        layers = [frozenset([START])]
        for symbol, c, f in self._stations(composition):
            key = (layers[-1], symbol, c, f)
            if key not in self._steps:
                reads = {size for _, size in self._choices(symbol, c, f)}
                self._steps[key] = frozenset(self._after(s, r) for s in layers[-1] for r in reads)
            layers.append(self._steps[key])
        return layers

    def largest(self, composition: Composition) -> Size:
        """The size with the most channels; x and y do not depend on group numbers."""
        return max(self.layers(composition)[-1], key=lambda size: size[2])

    def reaches(self, composition: Composition) -> bool:
        """Whether some group numbers give the field of the dense convolution."""
        return self.why_invalid(composition) is None and self.target in self.layers(composition)[-1]

    def edges(self, composition: Composition, *, to_target: bool) -> list[set[Edge]]:
        """For each operator the steps that some group numbers take; those that lead to the
        target alone if `to_target`. Backward over the operators."""
        layers = self.layers(composition)
        useful = frozenset([self.target]) if to_target else layers[-1]
        backward: list[set[Edge]] = []
        stations = list(enumerate(self._stations(composition), start=1))
        for position, station in reversed(stations):
            reads = {size for _, size in self._choices(*station)}
            steps = {
                Edge(position, source, target)
                for source in layers[position - 1]
                for r in reads
                if (target := self._after(source, r)) in useful
            }
            backward.append(steps)
            useful = frozenset(edge.source for edge in steps)
        return backward[::-1]

    def cheapest(self, composition: Composition, *, growing: bool = True) -> Witness | None:
        """The group numbers with the fewest parameters that reach the target; None if none do.

        `growing`: every operator must grow the field; in a bottleneck the last is exempt.
        """
        if not self.reaches(composition):
            return None
        best: dict[Size, Witness] = {START: Witness((), (), 0)}
        for position, (symbol, c, f) in enumerate(self._stations(composition), start=1):
            place = Place(c, f, 1, 1)
            exempt = self.inner is not None and position == len(composition)
            longer: dict[Size, Witness] = {}
            for size, (operators, groups, params) in best.items():
                for operator, reads in self._choices(symbol, c, f):
                    after = self._after(size, reads)
                    total = params + operator.params(place)
                    if growing and after == size and not exempt:
                        continue
                    if after not in longer or total < longer[after].params:
                        longer[after] = Witness(
                            (*operators, operator), (*groups, operator.groups(place)), total
                        )
            best = longer
        return best.get(self.target)
