"""What generated code for maps shares: units of work, taps at the border, tiles in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from llvmlite import ir

from kernels.jit.emit import FLOAT, I32, Emitter, number
from kernels.jit.machine import vectors

Taps = tuple[tuple[int, ...], ...]
Lines = dict[int, tuple[ir.Value, ir.Value]]
"""Step of a tap down the rows -> (address of the row it reads, bytes from pixel to pixel)."""


class Span(NamedTuple):
    """Columns of a row, a single one where there is no `stop`. missing: the steps aside of taps
    that miss the map there; None where that has to be found out."""

    start: ir.Value
    stop: ir.Value | None
    missing: frozenset[int] | None


def reach(taps: Taps) -> tuple[int, int]:
    """At how many columns on the left and on the right some tap misses the map."""
    steps = [tap[1] for tap in taps] or [0]
    return max(0, -min(steps)), max(0, *steps)


class Walk:
    """The function `work` on rows of maps. Each thread takes numbered units until none is left."""

    def __init__(self, name: str, taps: Taps, size: int, tail: bool, narrow: bool) -> None:
        """size: channels of a group of the stencil; it divides the lanes of a vector. tail: a width
        is no multiple of the lanes. narrow: a map may be so small that a tap misses at both sides.
        """
        self.taps, self.size, self.tail, self.narrow = taps, size, tail, narrow
        self.lanes = vectors().lanes
        self.module = ir.Module(name)

    def begin(self, fields: Sequence[str]) -> tuple[Emitter, dict[str, ir.Value]]:
        """The function and its arguments by name, the first of which is the ticket."""
        self.e = Emitter(self.module, "work", 1, self.lanes)
        self.ticket = self.e.own.args[0]
        self.names = {name: self.e.number_at(self.ticket, i) for i, name in enumerate(fields) if i}
        return self.e, self.names

    @contextmanager
    def tickets(self, units: ir.Value) -> Iterator[ir.Value]:
        """The body runs for each unit that this thread takes."""
        e = self.e
        head, body, done = (e.append_basic_block(name) for name in ("take", "unit", "end"))
        e.branch(head)
        e.position_at_end(head)
        unit = e.next_ticket(self.ticket)
        e.cbranch(e.icmp_signed("<", unit, units), body, done)
        e.position_at_end(body)
        yield unit
        e.branch(head)
        e.position_at_end(done)

    def mask(self, channel: ir.Value, width: ir.Value) -> ir.Value | None:
        """The lanes of a vector from `channel` on that exist, None where all do."""
        return self.e.mask(self.e.sub(width, channel)) if self.tail else None

    # ---- taps --------------------------------------------------------------------------------

    def lines(self, start: ir.Value, pixel: ir.Value, row: ir.Value) -> Lines:
        """The rows that taps read around a row; one outside the map is zeros that stay."""
        e, names = self.e, self.names
        height = e.srem(row, names["H"])
        found = {}
        for step in sorted({tap[0] for tap in self.taps}):
            inside = e.within(e.add(height, number(step)), names["H"])
            line = e.mul(e.add(row, number(step)), names["W"])
            address = e.select(inside, e.add(start, e.mul(line, pixel)), names["zeros"])
            found[step] = (address, e.select(inside, pixel, number(0)))
        return found

    def spans(self) -> list[Span]:
        """The columns: each one that is so near to a border that taps miss, and those between."""
        width = self.names["W"]
        if self.narrow:
            return [Span(number(0), width, None)]
        steps = {tap[1] for tap in self.taps}
        left, right = reach(self.taps)
        found = []
        for column in range(left):
            out = frozenset(step for step in steps if column + step < 0)
            found.append(Span(number(column), None, out))
        found.append(Span(number(left), self.e.sub(width, number(right)), frozenset()))
        for column in range(right, 0, -1):
            out = frozenset(step for step in steps if step >= column)
            found.append(Span(self.e.sub(width, number(column)), None, out))
        return found

    @contextmanager
    def over(
        self, span: Span, values: list[ir.Value]
    ) -> Iterator[tuple[ir.Value, list[ir.Value], list[ir.Value]]]:
        """The columns of a span, as `Emitter.carrying`."""
        if span.stop is None:
            yield span.start, values, []
            return
        with self.e.carrying(span.start, span.stop, values) as turn:
            yield turn

    def tapped(
        self, lines: Lines, tap: tuple[int, ...], w: ir.Value, offset: ir.Value, span: Span
    ) -> ir.Value | None:
        """The address that a tap reads at column w, None where it is known to miss the map."""
        e = self.e
        if span.missing is not None and tap[1] in span.missing:
            return None
        address, pixel = lines[tap[0]]
        column = e.add(w, number(tap[1]))
        address = e.add(e.add(address, offset), e.mul(column, pixel))
        if span.missing is not None:
            return address
        return e.select(e.within(column, self.names["W"]), address, self.names["zeros"])

    def read_taps(
        self,
        taps: Taps,
        lines: Lines,
        w: ir.Value,
        offset: ir.Value,
        span: Span,
        mask: ir.Value | None,
    ) -> list[ir.Value | None]:
        """What each tap reads, once for each member of a group; None where it misses."""
        found: list[ir.Value | None] = []
        for tap in taps:
            address = self.tapped(lines, tap, w, offset, span)
            if address is None:
                found += [None] * self.size
            else:
                found += self.members(self.e.read(address, mask))
        return found

    def members(self, own: ir.Value) -> list[ir.Value]:
        """Of a vector of channels: in each lane its group's first one, its second, and so on."""
        if self.size == 1:
            return [own]
        undefined = ir.Constant(own.type, ir.Undefined)
        kind = ir.VectorType(I32, self.lanes)
        return [
            self.e.shuffle_vector(
                own,
                undefined,
                ir.Constant(kind, [i // self.size * self.size + j for i in range(self.lanes)]),
            )
            for j in range(self.size)
        ]

    def fetch(self, ahead: Sequence[tuple[ir.Value, bool]], channel: ir.Value, w: ir.Value) -> None:
        """Ask for a part of rows to come: passing a row once asks for all of each."""
        e = self.e
        passed = e.add(e.mul(channel, self.names["W"]), e.mul(w, number(self.lanes)))
        for address, write in ahead:
            e.prefetch(e.add(address, e.mul(passed, number(FLOAT))), write)

    # ---- tiles -------------------------------------------------------------------------------

    def tiles(
        self,
        sizes: Sequence[int],
        total: ir.Value,
        inputs: ir.Value,
        outputs: ir.Value,
        asked: tuple[ir.Value, ir.Value, ir.Value],
        steps: tuple[ir.Value, ...],
    ) -> None:
        """`tile` for all rows of a strip, two vectors wide or, at the end, one: the largest tile
        as often as it fits, then smaller ones. asked: vectors, count, left."""
        e = self.e
        with e.if_else(e.icmp_signed(">", asked[2], number(self.lanes))) as branches:
            for wide, branch in zip((2, 1), branches, strict=True):
                with branch:
                    done: ir.Value = number(0)
                    for size in sizes:
                        stop = e.sub(total, number(size - 1))
                        with e.carrying(done, stop, [done], number(size)) as (row, _, following):
                            where = (
                                e.add(inputs, e.mul(row, steps[0])),
                                e.add(outputs, e.mul(row, steps[4])),
                            )
                            code = self.module.globals[f"tile{size}x{wide}"]
                            e.call(code, [*where, *asked, *steps])
                            following.append(e.add(row, number(size)))
                        done = following[0]


def tile(module: ir.Module, rows: int, wide: int, lanes: int, tail: bool) -> None:
    """Out[i] += sum over k of In[i, k] V[k], for some rows i and one or two vectors side by side.

    Arguments: addresses of In and Out; address of V, count of k, floats left of a row of Out; bytes
    from row to row and from k to k of In, from k to k of V, from vector to vector of V, and from
    row to row of Out. All sums stay in registers; they start at zero, so that rounding errors do
    not grow with what Out holds already.
    """
    e = Emitter(module, f"tile{rows}x{wide}", 10, lanes)
    e.own.linkage = "internal"
    inputs, outputs, vectors_at, count, left, row, turn, down, across, out_row = e.own.args
    masks: list[ir.Value | None] = [None] * wide
    if tail:
        masks[-1] = e.mask(e.sub(left, number(lanes * (wide - 1))))
    places = [
        e.add(e.add(outputs, e.mul(out_row, number(i))), number(FLOAT * lanes * j))
        for i in range(rows)
        for j in range(wide)
    ]
    nothing: list[ir.Value] = [ir.Constant(e.vector, None)] * len(places)
    with e.carrying(number(0), count, nothing) as (k, sums, following):
        begun = e.add(vectors_at, e.mul(k, down))
        own = [e.read(e.add(begun, e.mul(across, number(j))), masks[j]) for j in range(wide)]
        here = e.add(inputs, e.mul(k, turn))
        for i in range(rows):
            one = e.broadcast(e.add(here, e.mul(row, number(i))))
            following.extend(e.multiply_add(one, own[j], sums[wide * i + j]) for j in range(wide))
    for i, place in enumerate(places):
        mask = masks[i % wide]
        e.write(e.fadd(e.read(place, mask), following[i]), place, mask)
    e.ret_void()


def halved(rows: int) -> list[int]:
    """Tile heights, each at most the half of the one before: 14, 7, 3, 1."""
    found = [rows]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found
