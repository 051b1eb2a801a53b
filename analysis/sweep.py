"""Every concrete design of a grid, by the million: validity, exact field and costs of each.

The channels that one output sees fold from right to left, f -> min(W(i-1), f W(i-1) / g_i)
(`analysis.theorems`), and params, mults, adds and traffic add up over the operators
(`spaces.grouped`). The fold over what stands in front of the first open operator is a single
min(cap, slope f), so the innermost loop, over that operator's numbers, takes a few instructions.

The Pareto filter keeps complete designs that no other one beats: few parameters, little traffic,
many links, where links = F x volume of the field is the number of weights of the dense
convolution that sees as much. All complete rows of a cell have the same links, and their traffic
is that of the cell's maps and their parameters: only the first of the fewest can stay.

Memory: for each worker one table of the largest cell and the candidates of one task, and the
first row's number of each cell; nothing grows with the number of rows.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit

from analysis.grid import (
    DEPTHWISE,
    OPEN,
    Array,
    Divisors,
    Grid,
    Members,
    Row,
    describe,
    numbered,
    rows_of,
    tabulate,
)

PARAMS, MULTS, ADDS, TRAFFIC, SEEN, COMPLETE = range(6)
LINKS, LEAST, BYTES, ROW = range(4)
NEVER = np.int64(2**62)


@dataclass(frozen=True)
class Summary:
    """rows: evaluated; complete: how many of them are. totals: sums of params, mults, adds and
    traffic over all rows, modulo 2^64. front: the Pareto set, most links first."""

    rows: int
    complete: int
    totals: tuple[int, ...]
    front: tuple[Row, ...]
    seconds: float


class Sweep:
    """The numbered rows of a grid: `len(sweep)`, `sweep[n]`, `sweep.run()`."""

    def __init__(self, grid: Grid) -> None:
        """Raises DesignError for a family that the sweep cannot number."""
        self.grid = grid
        self.designs = tuple(grid.members())
        self.members = describe(self.designs)
        self.divisors = tabulate(self.members, max(grid.channels), max(grid.features))
        self.channels = np.array(grid.channels, np.int64)
        self.features = np.array(grid.features, np.int64)
        axes = (self.channels, self.features, np.diff(self.divisors.start))
        per_cell = np.concatenate(
            [rows_of(self.members, m, *axes).ravel() for m in range(len(self.designs))]
        )
        self.first = np.concatenate([[0], np.cumsum(per_cell)])
        self.largest = int(per_cell.max())

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def cells(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, number: int) -> Row:
        """The row of this number, evaluated again by the same kernel."""
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} does not exist; valid are 0 to {len(self) - 1}")
        cell = int(np.searchsorted(self.first, number, side="right")) - 1
        member, pair = divmod(cell, len(self.channels) * len(self.features))
        c, f = divmod(pair, len(self.features))
        channels, features = int(self.channels[c]), int(self.features[f])
        table, scratch = self._buffers()
        constants = (*self._constants(), self.divisors)
        _evaluate(self.members, member, channels, features, *constants, scratch, table)
        local = number - int(self.first[cell])
        params, mults, adds, traffic, seen, complete = table[:, local].tolist()
        return Row(
            design=numbered(self.designs[member], channels, features, local),
            channels=channels,
            out_channels=features,
            seen=seen,
            volume=seen * int(self.members.window[member]) ** 2,
            complete=bool(complete),
            params=params,
            mults=mults,
            adds=adds,
            traffic_bytes=traffic,
        )

    def run(self, workers: int = 2, cells_at_once: int = 8192) -> Summary:
        """Evaluate every row, in `workers` threads, `cells_at_once` cells a task."""
        begin = time.perf_counter()
        counts, front = np.zeros(6, np.int64), np.empty((4, 0), np.int64)
        with ThreadPoolExecutor(workers) as pool:
            starts = range(0, self.cells, cells_at_once)
            tasks = pool.map(lambda start: self._task(start, start + cells_at_once), starts)
            for part, candidates in tasks:
                counts += part
                front = pareto(np.concatenate([front, candidates], axis=1))
        seconds = time.perf_counter() - begin
        rows, complete, *totals = counts.tolist()
        best = tuple(self[number] for number in front[ROW].tolist())
        return Summary(rows, complete, tuple(totals), best, seconds)

    def _task(self, start: int, stop: int) -> tuple[Array, Array]:
        """The counts of these cells, and the candidates among them that remain."""
        stop = min(stop, self.cells)
        candidates, counts = np.empty((4, stop - start), np.int64), np.zeros(6, np.int64)
        axes = (self.channels, self.features, self.first)
        constants = (*self._constants(), self.divisors)
        found = _scan(
            self.members, start, stop, *axes, *constants, *self._buffers(), counts, candidates
        )
        return counts, pareto(candidates[:, :found])

    def _constants(self) -> tuple[int, int]:
        height, width = self.grid.size
        return height * width, self.grid.itemsize

    def _buffers(self) -> tuple[Array, Array]:
        """The table of one cell, and room for each operator's fan-ins and costs."""
        most = int(np.diff(self.divisors.start).max())
        table = np.empty((6, self.largest), np.int64)
        return table, np.empty((2, self.members.kind.shape[1], most), np.int64)


def pareto(points: Array) -> Array:
    """Of the columns (links, params, traffic, row) those that no other one beats.

    A point beats another with at least its links and at most its params and traffic; of equal
    ones the lowest row stays. Sorted by links, most first.
    """
    order = np.lexsort((points[ROW], points[BYTES], points[LEAST], -points[LINKS]))
    ordered = points[:, order]
    return ordered[:, _staircase(ordered[LEAST], ordered[BYTES])]


@njit(nogil=True)
def _staircase(params: Array, traffic: Array) -> Array:
    """Which points have no earlier one with at most their params and traffic.

    The stairs, ascending in params and descending in traffic, are the best so far.
    """
    keep = np.zeros(len(params), np.bool_)
    xs, ys, stairs = np.empty(len(params), np.int64), np.empty(len(params), np.int64), 0
    for i in range(len(params)):
        x, y = params[i], traffic[i]
        at = np.searchsorted(xs[:stairs], x, side="right")
        if at > 0 and ys[at - 1] <= y:
            continue
        keep[i] = True
        if at > 0 and xs[at - 1] == x:
            at -= 1
        end = at
        while end < stairs and ys[end] >= y:
            end += 1
        kept = stairs - end
        xs[at + 1 : at + 1 + kept] = xs[end:stairs].copy()
        ys[at + 1 : at + 1 + kept] = ys[end:stairs].copy()
        xs[at], ys[at] = x, y
        stairs = at + 1 + kept
    return keep


@njit(nogil=True)
def _evaluate(
    members: Members,
    member: int,
    channels: int,
    features: int,
    pixels: int,
    itemsize: int,
    table_of: Divisors,
    scratch: Array,
    table: Array,
) -> int:
    """All rows of one cell into the columns of `table`; returns how many there are."""
    n = members.length[member]
    fan, cost = scratch[0], scratch[1]
    width, count, chosen = np.empty(n + 1, np.int64), np.empty(n, np.int64), np.zeros(n, np.int64)
    for i in range(n + 1):
        inner = members.width_f[member, i] * features
        if inner % members.width_d[member, i]:
            return 0
        width[i] = members.width_c[member, i] * channels + inner // members.width_d[member, i]

    outputs, elements, run = 0, 0, n
    for i in range(n - 1, -1, -1):
        outputs += width[i + 1]
        elements += width[i] + width[i + 1]
        kind, start, count[i] = members.kind[member, i], 0, 1
        if kind == OPEN:
            common = np.gcd(width[i], width[i + 1])
            start, count[i] = table_of.start[common], table_of.start[common + 1]
            count[i] -= start
            run = i
        for j in range(count[i]):
            g = table_of.values[start + j] if kind == OPEN else width[i] if kind == DEPTHWISE else 1
            fan[i, j] = width[i] // g
            cost[i, j] = width[i + 1] * fan[i, j] * members.taps[member, i]
    if run == n:
        run = 0

    cap, slope, base = width[run], 1, 0
    for i in range(run - 1, -1, -1):
        cap = min(width[i], fan[i, 0] * cap)
        slope *= fan[i, 0]
        base += cost[i, 0]
    target = channels if members.window[member] >= 3 else -1
    maps, silent = elements * pixels, outputs * pixels

    row = 0
    while True:
        rest, seen = base, 1
        for i in range(n - 1, run, -1):
            rest += cost[i, chosen[i]]
            seen = min(width[i], fan[i, chosen[i]] * seen)
        steep = slope * seen
        for j in range(count[run]):
            params = rest + cost[run, j]
            channels_seen = min(cap, steep * fan[run, j])
            table[PARAMS, row + j] = params
            table[MULTS, row + j] = params * pixels
            table[ADDS, row + j] = params * pixels - silent
            table[TRAFFIC, row + j] = (params + maps) * itemsize
            table[SEEN, row + j] = channels_seen
            table[COMPLETE, row + j] = channels_seen == target
        row += count[run]
        i = run + 1
        while i < n:
            chosen[i] += 1
            if chosen[i] < count[i]:
                break
            chosen[i] = 0
            i += 1
        if i >= n:
            return row


@njit(nogil=True)
def _scan(
    members: Members,
    start: int,
    stop: int,
    channels: Array,
    features: Array,
    first: Array,
    pixels: int,
    itemsize: int,
    table_of: Divisors,
    table: Array,
    scratch: Array,
    counts: Array,
    candidates: Array,
) -> int:
    """Evaluate the cells from start to stop; the cheapest complete row of each is a candidate."""
    found = 0
    pairs = len(channels) * len(features)
    for cell in range(start, stop):
        member, pair = cell // pairs, cell % pairs
        c, f = channels[pair // len(features)], features[pair % len(features)]
        rows = _evaluate(members, member, c, f, pixels, itemsize, table_of, scratch, table)
        least, complete, params, mults, adds, traffic = NEVER, 0, 0, 0, 0, 0
        for j in range(rows):
            complete += table[COMPLETE, j]
            params += table[PARAMS, j]
            mults += table[MULTS, j]
            adds += table[ADDS, j]
            traffic += table[TRAFFIC, j]
            least = min(least, table[PARAMS, j] if table[COMPLETE, j] else NEVER)
        counts[0] += rows
        counts[1] += complete
        counts[2] += params
        counts[3] += mults
        counts[4] += adds
        counts[5] += traffic
        if complete:
            best = 0
            while table[PARAMS, best] != least or not table[COMPLETE, best]:
                best += 1
            candidates[LINKS, found] = f * c * members.window[member] ** 2
            candidates[LEAST, found] = least
            candidates[BYTES, found] = table[TRAFFIC, best]
            candidates[ROW, found] = first[cell] + best
            found += 1
    return found
