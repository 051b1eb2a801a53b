"""Sets of taps (dy, dx) as the bits of integers: their sums, columns and rows.

A tap is a bit of a grid whose pitch leaves room for the sum of any two within the radius, so that
adding a tap to a set is one shift.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import or_


@lru_cache(maxsize=2**16)
def positions(number: int) -> tuple[int, ...]:
    return tuple(bits(number))


def bits(number: int) -> list[int]:
    """The positions of the ones."""
    found = []
    while number:
        low = number & -number
        found.append(low.bit_length() - 1)
        number ^= low
    return found


class Taps:
    """Sets within `radius` of the centre; `target` is the k x k window around it."""

    def __init__(self, kernel: int, radius: int) -> None:
        self.radius = max(radius, kernel // 2)
        self.pitch = 4 * self.radius + 1
        self.centre = self.tap(0, 0)
        self.grid = self.window(self.radius)
        self.target = self.window(kernel // 2)
        self.target_taps = [1 << position for position in bits(self.target)]
        span = range(-self.radius, self.radius + 1)
        self._columns = [reduce(or_, (self.tap(y, x) for y in span)) for x in span]
        self._rows = [reduce(or_, (self.tap(y, x) for x in span)) for y in span]
        self._sums: dict[tuple[int, int], int] = {}
        self._spans: dict[int, tuple[int, int]] = {}

    def tap(self, row: int, column: int) -> int:
        """The set of one tap."""
        return 1 << ((row + 2 * self.radius) * self.pitch + column + 2 * self.radius)

    def window(self, half: int) -> int:
        """All taps of at most so many rows and columns from the centre."""
        span = range(-half, half + 1)
        return reduce(or_, (self.tap(row, column) for row in span for column in span))

    def sum(self, one: int, other: int) -> int:
        """{t + t'}, within the radius."""
        if one == self.centre or other == self.centre:
            return other if one == self.centre else one
        few, many = (one, other) if one.bit_count() <= other.bit_count() else (other, one)
        total = self._sums.get((few, many))
        if total is None:
            origin = self.centre.bit_length() - 1
            total = 0
            for position in bits(few):
                step = position - origin
                total |= many << step if step >= 0 else many >> -step
            total = self._sums[few, many] = total & self.grid
        return total

    def side(self, taps: int) -> int:
        """Columns or rows of a set of taps, whichever are more."""
        return max(self.span(taps))

    def span(self, taps: int) -> tuple[int, int]:
        """Distinct columns and rows of a set of taps."""
        if taps not in self._spans:
            columns = sum(1 for line in self._columns if line & taps)
            self._spans[taps] = columns, sum(1 for line in self._rows if line & taps)
        return self._spans[taps]
