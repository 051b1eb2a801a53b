"""A stencil a channel or group and a mix of the channels of every pixel, in one pass over the map.

    sum:    y(p) = b + r(p) + sum over t of B[t] x(p + t) + A x(p)         (lean, linear mix)
    chain:  y(p) = b + r(p) + A (sum over t of B[t] x(p + t))              (single intra-channel)

B[t] is block-diagonal, with blocks of as many channels as divide a vector: one for a stencil a
channel. A vector of channels is multiplied by B[t] as q products of a shuffled copy, one for each
member of its groups.

x: (N, H, W, C), y and the residual r: (N, H, W, F), floats, channels last; the outside counts as
zero. A unit of work is some rows of the map. It first sums the stencil into y (sum) or a scratch
area (chain), and then adds A x, a tile of pixels x two vectors of channels in registers at a time.
Both halves of a unit stay in the second-level cache, so that x and y pass the memory once.

Source: LeanConvNets, Algorithm 1, with the stencil first; the tile of outer products is that of
BLIS (Van Zee and van de Geijn 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from llvmlite import ir

from kernels.jit.emit import FLOAT, number
from kernels.jit.machine import Compiled, vectors
from kernels.jit.walk import Lines, Taps, Walk, halved, tile

DEPTH = 256
"""Channels that are summed before a tile goes back to memory: 2 vectors of them fill 32 KB."""
CHAINS = 4
LONG = 12
"""Products of one output above which there are so many sums of them."""
FIELDS = ("ticket", "units", "x", "y", "mixing", "stencil", "bias", "residual", "zeros", "scratch",
          "slots", "room", "rows", "H", "W", "C", "F", "unit")  # fmt: skip
"""The arguments of a run, 64-bit numbers in this order: addresses, sizes in elements."""


@lru_cache(maxsize=256)
def compiled(
    taps: Taps,
    size: int,
    chain: bool,
    mixes: bool,
    residual: bool,
    tail: bool,
    narrow: bool,
) -> Compiled:
    """The code for a stencil; see `Mix` and `kernels.jit.walk.Walk`."""
    return Compiled(Mix(taps, size, chain, mixes, residual, tail, narrow).text(), FIELDS)


class Mix(Walk):
    """The generated code. mixes: there is an A, which a chain always has."""

    def __init__(
        self,
        taps: Taps,
        size: int,
        chain: bool,
        mixes: bool,
        residual: bool,
        tail: bool,
        narrow: bool,
    ) -> None:
        super().__init__("mix", taps, size, tail, narrow)
        self.chain, self.mixes, self.residual = chain, mixes, residual

    def text(self) -> str:
        tiles = halved(vectors().pixels)
        for pixels in tiles if self.mixes else ():
            for wide in (1, 2):
                tile(self.module, pixels, wide, self.lanes, self.tail)
        e, names = self.begin(FIELDS)
        self.x_pixel = e.mul(names["C"], number(FLOAT))
        self.y_pixel = e.mul(names["F"], number(FLOAT))
        self.sums_pixel = self.x_pixel if self.chain else self.y_pixel
        slot = e.next_ticket(names["slots"])
        self.scratch = e.add(names["scratch"], e.mul(slot, names["room"]))
        with self.tickets(names["units"]) as unit:
            first = e.mul(unit, names["unit"])
            last = e.least(e.add(first, names["unit"]), names["rows"])
            self._sum_rows(first, last)
            if self.chain:
                self._fill(first, last)
            if self.mixes:
                self._mix_rows(first, last, tiles)
        e.ret_void()
        return str(self.module)

    # ---- the stencil -------------------------------------------------------------------------

    def _sum_rows(self, first: ir.Value, last: ir.Value) -> None:
        """B x of the rows, with bias and residual if it is a sum."""
        e, names = self.e, self.names
        with e.loop(first, last) as row:
            line = e.mul(row, names["W"])
            target = e.add(names["y"], e.mul(line, self.y_pixel))
            if self.chain:
                begun = e.mul(e.sub(row, first), e.mul(names["W"], self.x_pixel))
                target = e.add(self.scratch, begun)
            lines = self.lines(names["x"], self.x_pixel, row)
            lower = e.add(line, e.mul(names["W"], number(2)))
            ahead = [(e.add(names["x"], e.mul(lower, self.x_pixel)), False)]
            if not self.chain:
                ahead.append((e.add(target, e.mul(names["W"], self.y_pixel)), True))
            with e.loop(number(0), names["C" if self.chain else "F"], self.lanes) as channel:
                self._sum_row(channel, target, line, lines, ahead)

    def _sum_row(
        self,
        channel: ir.Value,
        target: ir.Value,
        line: ir.Value,
        lines: Lines,
        ahead: Sequence[tuple[ir.Value, bool]],
    ) -> None:
        """One vector of channels along a row."""
        e, names = self.e, self.names
        mask = self.mask(channel, names["C" if self.chain else "F"])
        offset = e.mul(channel, number(FLOAT))
        weights = []
        for i in range(len(self.taps) * self.size):
            begun = e.add(names["stencil"], e.mul(names["C"], number(FLOAT * i)))
            weights.append(e.read(e.add(begun, offset), mask))
        start = ir.Constant(e.vector, None)
        if not self.chain:
            start = e.read(e.add(names["bias"], offset), mask)
        for span in self.spans():
            with self.over(span, []) as (w, _, _):
                self.fetch(ahead, channel, w)
                total = start
                if self.residual and not self.chain:
                    where = e.mul(e.add(line, w), self.y_pixel)
                    address = e.add(e.add(names["residual"], where), offset)
                    total = e.fadd(total, e.read(address, mask))
                terms = self.read_taps(self.taps, lines, w, offset, span, mask)
                total = self._products(weights, terms, total)
                e.write(total, e.add(e.add(target, e.mul(w, self.sums_pixel)), offset), mask)

    def _products(
        self, weights: list[ir.Value], terms: list[ir.Value | None], start: ir.Value
    ) -> ir.Value:
        """start + the sum of products, in CHAINS sums where there are many, which do not wait for
        one another."""
        e = self.e
        sums = [start]
        if len(terms) > LONG:
            sums += [ir.Constant(e.vector, None)] * (CHAINS - 1)
        for i, (weight, term) in enumerate(zip(weights, terms, strict=True)):
            if term is None:
                continue
            sums[i % len(sums)] = e.multiply_add(weight, term, sums[i % len(sums)])
        while len(sums) > 1:
            sums = [e.fadd(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return sums[0]

    def _fill(self, first: ir.Value, last: ir.Value) -> None:
        """y = bias + residual on the rows."""
        e, names = self.e, self.names
        start, stop = (e.mul(row, names["W"]) for row in (first, last))
        with e.loop(number(0), names["F"], self.lanes) as channel:
            mask = self.mask(channel, names["F"])
            offset = e.mul(channel, number(FLOAT))
            bias = e.read(e.add(names["bias"], offset), mask)
            with e.loop(start, stop) as pixel:
                where = e.add(e.mul(pixel, self.y_pixel), offset)
                total = bias
                if self.residual:
                    total = e.fadd(total, e.read(e.add(names["residual"], where), mask))
                e.write(total, e.add(names["y"], where), mask)

    # ---- the mix -----------------------------------------------------------------------------

    def _mix_rows(self, first: ir.Value, last: ir.Value, tiles: list[int]) -> None:
        """y += A x: DEPTH channels of two vectors of outputs at a time stay in the cache."""
        e, names = self.e, self.names
        start, stop = (e.mul(row, names["W"]) for row in (first, last))
        source = self.scratch if self.chain else e.add(names["x"], e.mul(start, self.x_pixel))
        target = e.add(names["y"], e.mul(start, self.y_pixel))
        vector = number(FLOAT * self.lanes)
        panel = e.mul(names["C"], vector)
        with e.loop(number(0), names["C"], DEPTH) as depth:
            count = e.least(number(DEPTH), e.sub(names["C"], depth))
            inputs = e.add(source, e.mul(depth, number(FLOAT)))
            with e.loop(number(0), names["F"], 2 * self.lanes) as feature:
                begun = e.mul(e.udiv(feature, number(self.lanes)), panel)
                packed = e.add(e.add(names["mixing"], begun), e.mul(depth, vector))
                outputs = e.add(target, e.mul(feature, number(FLOAT)))
                left = e.sub(names["F"], feature)
                steps = (self.x_pixel, number(FLOAT), vector, panel, self.y_pixel)
                self.tiles(tiles, e.sub(stop, start), inputs, outputs, (packed, count, left), steps)
