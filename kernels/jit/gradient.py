"""The gradients of the weights of `kernels.jit.mix`, in one pass over x and dY.

    dA = sum over p of dY(p) x(p)',      dB[t] = blocks of the sum over p of dY(p) x(p + t)'

x: (N, H, W, C), dY: (N, H, W, F), with F = C where there are taps. The map is cut into shares of
rows with sums of their own, which are added in order at the end, so that the bits do not depend on
which thread took which. A share goes by units of rows that stay in the cache.
"""

from __future__ import annotations

from functools import lru_cache

from llvmlite import ir

from kernels.jit.emit import FLOAT, number
from kernels.jit.machine import Compiled, vectors
from kernels.jit.walk import Taps, Walk, halved, tile

SUMS = 24
"""Vectors of sums that are kept in registers on the way along a row."""
FIELDS = ("ticket", "shares", "x", "dy", "mixing", "stencil", "zeros", "rows", "H", "W", "C", "F",
          "unit", "share")  # fmt: skip
"""The arguments of a run, 64-bit numbers in this order: addresses, sizes in elements."""


@lru_cache(maxsize=256)
def compiled(taps: Taps, size: int, mixes: bool, tail: bool, narrow: bool) -> Compiled:
    """The code for a stencil. mixes: dA is asked for."""
    return Compiled(Gradient(taps, size, mixes, tail, narrow).text(), FIELDS)


class Gradient(Walk):
    """mixing: (shares, F, C) and stencil: (shares, taps, q, C), zero before."""

    def __init__(self, taps: Taps, size: int, mixes: bool, tail: bool, narrow: bool) -> None:
        super().__init__("gradient", taps, size, tail, narrow)
        self.mixes = mixes

    def text(self) -> str:
        sizes = halved(vectors().pixels)
        for rows in sizes if self.mixes else ():
            for wide in (1, 2):
                tile(self.module, rows, wide, self.lanes, self.tail)
        e, names = self.begin(FIELDS)
        self.x_pixel = e.mul(names["C"], number(FLOAT))
        self.y_pixel = e.mul(names["F"], number(FLOAT))
        with self.tickets(names["shares"]) as share:
            start = e.mul(share, names["share"])
            stop = e.least(e.add(start, names["share"]), names["rows"])
            weights = e.mul(e.mul(share, names["F"]), self.x_pixel)
            self.mixing = e.add(names["mixing"], weights)
            taps = e.mul(e.mul(share, number(len(self.taps) * self.size)), self.x_pixel)
            self.stencil = e.add(names["stencil"], taps)
            with e.striding(start, stop, names["unit"]) as first:
                last = e.least(e.add(first, names["unit"]), stop)
                each = max(1, SUMS // self.size)
                for i in range(0, len(self.taps), each):
                    with e.loop(first, last) as row:
                        self._stencil_row(row, i, self.taps[i : i + each])
                if self.mixes:
                    self._mix(first, last, sizes)
        e.ret_void()
        return str(self.module)

    def _stencil_row(self, row: ir.Value, before: int, taps: Taps) -> None:
        """dB += dY x' shifted, for taps behind `before` others, on one row."""
        e, names = self.e, self.names
        lines = self.lines(names["x"], self.x_pixel, row)
        line = e.mul(row, names["W"])
        own = e.add(names["dy"], e.mul(line, self.y_pixel))
        lower = e.mul(e.add(line, e.mul(names["W"], number(2))), self.x_pixel)
        ahead = [(e.add(names["x"], lower), False), (e.add(names["dy"], lower), False)]
        with e.loop(number(0), names["C"], self.lanes) as channel:
            mask = self.mask(channel, names["C"])
            offset = e.mul(channel, number(FLOAT))
            places = [
                e.add(e.add(self.stencil, e.mul(self.x_pixel, number(i))), offset)
                for i in range(before * self.size, (before + len(taps)) * self.size)
            ]
            sums: list[ir.Value] = [ir.Constant(e.vector, None)] * len(places)
            for span in self.spans():
                with self.over(span, sums) as (w, carried, following):
                    self.fetch(ahead, channel, w)
                    place = e.add(e.add(own, offset), e.mul(w, self.y_pixel))
                    dy = e.read(place, mask)
                    terms = self.read_taps(taps, lines, w, offset, span, mask)
                    following.extend(
                        total if term is None else e.multiply_add(dy, term, total)
                        for term, total in zip(terms, carried, strict=True)
                    )
                sums = following
            for place, total in zip(places, sums, strict=True):
                e.write(e.fadd(e.read(place, mask), total), place, mask)

    def _mix(self, first: ir.Value, last: ir.Value, sizes: list[int]) -> None:
        """dA += dY' x on the rows: rows of a tile are outputs, its sums run over pixels."""
        e, names = self.e, self.names
        start, stop = (e.mul(row, names["W"]) for row in (first, last))
        dy = e.add(names["dy"], e.mul(start, self.y_pixel))
        x = e.add(names["x"], e.mul(start, self.x_pixel))
        vector = number(FLOAT * self.lanes)
        with e.loop(number(0), names["C"], 2 * self.lanes) as channel:
            offset = e.mul(channel, number(FLOAT))
            asked = (e.add(x, offset), e.sub(stop, start), e.sub(names["C"], channel))
            steps = (number(FLOAT), self.y_pixel, self.x_pixel, vector, self.x_pixel)
            self.tiles(sizes, names["F"], dy, e.add(self.mixing, offset), asked, steps)
