"""The sweep's rows against field, cost and module; its filter against the naive one."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cost import cost
from analysis.field import field
from analysis.grid import Grid, Row, with_kernel
from analysis.sweep import Sweep, pareto
from spaces.design import Design, parse
from spaces.grouped import divisors
from spaces.operator import DesignError

SIZE = (5, 7)
SMALL = Grid(
    families=tuple(
        map(
            parse,
            (
                *("STD", "PW", "DW+PW", "PW+GC", "GC+PWG", "PWG+DW+PWG", "GC+DW+PWG+PW"),
                *("PWG+GC+PWG@1/2", "PW+DW+PW@3/4", "GC+PWG@2"),
            ),
        )
    ),
    kernels=(1, 3, 5),
    channels=(1, 6, 8, 12),
    features=(4, 6, 12),
    size=SIZE,
    itemsize=2,
)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep(SMALL)


@pytest.fixture(scope="module")
def rows(sweep: Sweep) -> list[Row]:
    return [sweep[number] for number in range(len(sweep))]


def check(row: Row, size: tuple[int, int], dtype: str) -> None:
    where = (row.design, row.channels, row.out_channels)
    seen, spent = field(*where), cost(*where, size=size, dtype=dtype)
    assert (row.seen, row.volume, row.complete) == (seen.size[2], seen.volume, seen.complete)
    assert (row.params, row.mults, row.adds) == (spent.params, spent.mults, spent.adds)
    assert row.traffic_bytes == spent.traffic_bytes
    with torch.device("meta"):
        steps = row.design.places(row.channels, row.out_channels)
        modules = [step.item.module(step.place) for step in steps]
    assert row.params == sum(w.numel() for module in modules for w in module.parameters())


def test_rows_equal_field_cost_and_module(rows: list[Row]) -> None:
    for row in random.Random(0).sample(rows, 300):
        check(row, SIZE, "float16")


def sampled(count: int) -> None:
    sweep, pick = Sweep(Grid()), random.Random(1)
    for _ in range(count):
        check(sweep[pick.randrange(len(sweep))], (32, 32), "float32")


def test_rows_of_the_default_grid() -> None:
    sampled(40)


@pytest.mark.slow
def test_a_thousand_rows_of_the_default_grid() -> None:
    sampled(1000)


def test_every_valid_design_has_one_row(rows: list[Row]) -> None:
    expected = []
    for family in SMALL.members():
        for c, f in itertools.product(SMALL.channels, SMALL.features):
            if family.inner and (family.inner * f).denominator > 1:
                continue
            widths = family.widths(c, f)
            opened = [i for i, operator in enumerate(family.operators) if operator.is_open]
            for groups in itertools.product(*(divisors(widths[i]) for i in opened)):
                design = _numbered(family, dict(zip(opened, groups, strict=True)))
                if design.why_invalid(c, f) is None:
                    expected.append((str(design), c, f))
    found = [(str(row.design), row.channels, row.out_channels) for row in rows]
    assert sorted(found) == sorted(expected)


def _numbered(family: Design, groups: dict[int, int]) -> Design:
    parts = []
    for i, operator in enumerate(family.operators):
        name = str(operator).removesuffix(")").replace("(", ",").split(",")
        words = [*([str(groups[i])] if i in groups else []), *name[1:]]
        parts.append(name[0] + (f"({','.join(words)})" if words else ""))
    return parse("+".join(parts) + (f"@{family.inner}" if family.inner else ""))


def test_summary_adds_up(sweep: Sweep, rows: list[Row]) -> None:
    for workers, at_once in ((1, 1), (2, 7), (2, 8192)):
        summary = sweep.run(workers, at_once)
        assert summary.rows == len(rows) == len(sweep)
        assert summary.complete == sum(row.complete for row in rows)
        costs = zip(*((r.params, r.mults, r.adds, r.traffic_bytes) for r in rows), strict=True)
        assert summary.totals == tuple(map(sum, costs))


def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """At least as good as b in links, params and traffic, and better in one of them or first."""
    good = a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2]
    return good and (a[:3] != b[:3] or a[3] < b[3])


def naive(points: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    kept = [b for b in points if not any(beats(a, b) for a in points)]
    return sorted(kept, key=lambda point: (-point[0], point[1], point[2]))


def test_front_equals_the_naive_filter_over_all_rows(sweep: Sweep, rows: list[Row]) -> None:
    points = [
        (row.links, row.params, row.traffic_bytes, number)
        for number, row in enumerate(rows)
        if row.complete
    ]
    expected = [rows[point[3]] for point in naive(points)]
    assert len(expected) > 10
    for workers, at_once in ((1, 1), (2, 7), (2, 8192)):
        assert list(sweep.run(workers, at_once).front) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40))
def test_pareto_equals_the_naive_filter(triples: list[tuple[int, int, int]]) -> None:
    points = [(*triple, number) for number, triple in enumerate(triples)]
    columns = np.array(points, np.int64).reshape(-1, 4).T
    assert list(map(tuple, pareto(columns).T.tolist())) == naive(points)


def test_memory_does_not_grow_with_the_rows() -> None:
    """Five million rows of six numbers would take 240 MB."""
    grid = Grid(channels=tuple(range(96, 961, 96)), features=tuple(range(96, 961, 96)))
    sweep = Sweep(grid)
    assert len(sweep) > 4_000_000
    sweep.run(1, 8)
    tracemalloc.start()
    summary = sweep.run(2, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary.rows == len(sweep)
    assert peak < 8 * 2**20


def test_grid_members_and_text() -> None:
    grid = Grid(families=(parse("STD"), parse("PW"), parse("GC+PWG")), kernels=(3, 5))
    assert list(map(str, grid.members())) == ["STD", "STD(k=5)", "PW", "GC+PWG", "GC(k=5)+PWG"]
    assert with_kernel(parse("PWG+DW+PWG@1/4"), 7) == parse("PWG+DW(k=7)+PWG@1/4")
    assert "kernels 3, 5 x C 8..1024 (128 values)" in str(grid)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("GC~+PW", "leaves one out"),
        ("DW(d=2)+PW", "no dilation"),
        ("GC(4)+PWG", r"fills in group numbers; .* has GC\(4\)"),
    ],
)
def test_refusals(family: str, reason: str) -> None:
    with pytest.raises(DesignError, match=reason):
        Sweep(Grid(families=(parse(family),)))


def test_row_that_does_not_exist(sweep: Sweep) -> None:
    with pytest.raises(IndexError, match=f"valid are 0 to {len(sweep) - 1}"):
        sweep[len(sweep)]
