"""Which input channels each output channel reads: relations, interned, and their products.

    R[f] = the input channels that output f reads, as the bits of an integer;
    (R' after R)[f] = the union of R[c] over the c in R'[f].

Each relation is known by a number, so that each pair is multiplied once.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import reduce
from operator import or_
from typing import Generic, TypeVar

from analysis.taps import positions

Key = TypeVar("Key", bound=Hashable)


class Interned(Generic[Key]):
    """Distinct values, each known by a number."""

    def __init__(self) -> None:
        self.values: list[Key] = []
        self._numbers: dict[Key, int] = {}

    def __call__(self, value: Key) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


class Relations(Interned[tuple[int, ...]]):
    """Relations of outputs to inputs."""

    def __init__(self) -> None:
        super().__init__()
        self._products: dict[tuple[int, int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._reads: dict[tuple[int, int], int] = {}
        self._diagonals: set[int] = set()

    def diagonal(self, width: int) -> int:
        """Each output reads the input of its own number."""
        number = self(tuple(1 << c for c in range(width)))
        self._diagonals.add(number)
        return number

    def product(self, later: int, earlier: int) -> int:
        """R[R'[f]]: what the later relation's inputs read by the earlier one."""
        if later in self._diagonals:
            return earlier
        if earlier in self._diagonals:
            return later
        key = (later, earlier)
        if key not in self._products:
            rows = self.values[later]
            unions = {row: self.read(row, earlier) for row in set(rows)}
            self._products[key] = self(tuple([unions[row] for row in rows]))
        return self._products[key]

    def union(self, one: int, other: int) -> int:
        """What each output reads by the one or the other."""
        if one == other:
            return one
        key = (one, other) if one < other else (other, one)
        if key not in self._unions:
            rows = zip(self.values[one], self.values[other], strict=True)
            self._unions[key] = self(tuple([a | b for a, b in rows]))
        return self._unions[key]

    def read(self, inputs: int, relation: int) -> int:
        """The union of what some outputs of a relation read."""
        key = (inputs, relation)
        union = self._reads.get(key)
        if union is None:
            rows = self.values[relation]
            union = self._reads[key] = reduce(or_, [rows[i] for i in positions(inputs)], 0)
        return union
