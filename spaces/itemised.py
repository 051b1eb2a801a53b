"""Operators whose cost has several ledger lines: the lines are declared, the figures are sums."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from spaces.operator import Line, Operator
from spaces.place import Place


@dataclass(frozen=True)
class Itemised(Operator):
    """An operator that declares `lines`."""

    @abstractmethod
    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        """The cost as ledger lines, at `itemsize` bytes a number."""

    def params(self, place: Place) -> int:
        return sum(line.params for line in self.lines(place, 1))

    def mults(self, place: Place) -> int:
        return sum(line.mults for line in self.lines(place, 1))

    def adds(self, place: Place) -> int:
        return sum(line.adds for line in self.lines(place, 1))

    def traffic(self, place: Place, itemsize: int) -> int:
        return sum(line.bytes for line in self.lines(place, itemsize))
