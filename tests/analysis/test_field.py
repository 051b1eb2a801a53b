"""The information field against float64 gradients and against the graph (its two oracles)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from analysis import field as field_module
from analysis.field import Field, field, support
from analysis.graph import dependency_graph, reachable
from analysis.symmetry import representatives
from spaces.design import Design, Step, parse
from spaces.grouped import GroupedConvolution, divisors
from spaces.operator import DesignError, Operator
from spaces.operators.depthwise import Depthwise
from spaces.operators.group import Group
from spaces.operators.pointwise import Pointwise
from spaces.operators.pointwise_group import PointwiseGroup
from spaces.operators.standard import Standard


def _more_than_one(*widths: int) -> list[int]:
    """The valid group numbers above 1, where there are any."""
    return divisors(*widths)[1:] or [1]


WIDTHS = (4, 6, 6, 8, 8, 9, 12, 12, 15, 16, 20, 24)


def roomy(design: Design) -> int:
    """The side of a square map that clips nothing, with two pixels to spare all round."""
    return 5 + sum(max(op.window) - 1 for op in design.operators)


class Case:
    """A random design that stands at its widths: any valid group numbers, whether or not they
    satisfy the theorem, whose field fits a small map."""

    def __init__(
        self, seed: int, widths: Sequence[int] = WIDTHS, kernels: str = "133333357"
    ) -> None:
        rng = random.Random(seed)
        while True:
            operators: list[Operator] = []
            for _ in range(rng.choice((1, 2, 2, 3, 3, 4))):
                k, d = int(rng.choice(kernels)), rng.choice((1, 1, 1, 2))
                kinds = (Group(k, d), Group(k, d), PointwiseGroup(), PointwiseGroup())
                others = (Depthwise(k, d), Depthwise(k, d), Pointwise(), Standard(k, d))
                operators.append(rng.choice(kinds + others))
            self.channels = rng.choice(widths)
            self.features = rng.choice((self.channels, rng.choice(widths)))
            inner = rng.choice((None, None, Fraction(1, 4), Fraction(1, 2), Fraction(2)))
            left_out = frozenset(i for i in range(3) if rng.random() < 0.5)
            try:
                stands = Design(tuple(operators), inner).widths(self.channels, self.features)
            except DesignError:
                continue
            for i, operator in enumerate(operators):
                if isinstance(operator, Group | PointwiseGroup):
                    g = rng.choice(_more_than_one(stands[i], stands[i + 1]))
                    operators[i] = replace(operator, g=g)
            self.design = Design(tuple(operators), inner, left_out)
            if roomy(self.design) <= 25:
                break

    def __str__(self) -> str:
        return f"{self.design}-{self.channels}-{self.features}"


CASES = [Case(seed) for seed in range(320)]
TINY = [Case(seed, (2, 4, 6), "13") for seed in range(40)]


class Centre(nn.Module):
    """The centre pixel of a map."""

    def forward(self, x: Tensor) -> Tensor:
        row, column = x.shape[-2] // 2, x.shape[-1] // 2
        return x[..., row : row + 1, column : column + 1]


def gradients(steps: Sequence[Step], dependency: Any) -> np.ndarray:
    """What the centre pixel of each output channel depends on: (F, C, H, W)."""
    first = steps[0].place
    stack = nn.Sequential(*(step.item.module(step.place) for step in steps), Centre())
    pattern = dependency(stack, (first.channels, first.height, first.width))
    return pattern[:, 0, 0]


def figures(inputs: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Size, extent and volume by the definition, from the set of (channel, y, x) read."""
    read = [tuple(at) for at in np.argwhere(inputs).tolist()]
    channels, rows, columns = ({at[axis] for at in read} for axis in range(3))
    extent = (max(columns) - min(columns) + 1, max(rows) - min(rows) + 1)
    return (len(columns), len(rows), len(channels)), extent, len(read)


def missing(inputs: np.ndarray, kernel: int) -> int:
    """Inputs of the target window around the centre that are not read."""
    channels, height, width = inputs.shape
    row, column, half = height // 2, width // 2, kernel // 2
    return sum(
        not inputs[c, y, x]
        for c in range(channels)
        for y in range(max(0, row - half), min(height, row + half + 1))
        for x in range(max(0, column - half), min(width, column + half + 1))
    )


def check(found: Field, pattern: np.ndarray, kernel: int) -> None:
    """A field against the patterns of all outputs (F, C, H, W)."""
    every = [figures(inputs) for inputs in pattern]
    gaps = [missing(inputs, kernel) for inputs in pattern]
    least = min(range(len(pattern)), key=lambda c: (every[c][2], -gaps[c], c))
    assert (found.size, found.extent, found.volume) == every[least]
    assert found.uniform == (len(set(every)) == 1)
    assert found.complete == (not any(gaps))
    assert found.missing_taps == gaps[least]
    unread = np.flatnonzero(~pattern[least].any(axis=(1, 2)))
    assert list(found.missing_channels) == unread.tolist()
    assert found.equals_standard == (found.size == (kernel, kernel, pattern.shape[1]))


# ---- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_field_is_the_gradients(case: Case, dependency: Any) -> None:
    side = roomy(case.design)
    steps = case.design.places(case.channels, case.features, side, side)
    pattern = gradients(steps, dependency)
    for output in range(case.features):
        seen = support(case.design, case.channels, case.features, output=output)
        _, rows, columns = seen.inputs.shape
        embedded = np.zeros_like(pattern[output])
        top, left = side // 2 - seen.row, side // 2 - seen.column
        embedded[:, top : top + rows, left : left + columns] = seen.inputs
        assert np.array_equal(embedded, pattern[output])
    for kernel in (3, 5):
        check(field(case.design, case.channels, case.features, kernel=kernel), pattern, kernel)


def test_the_random_designs_are_of_every_kind() -> None:
    fields = [field(case.design, case.channels, case.features) for case in CASES]
    window = [max(op.window) for case in CASES for op in case.design.operators]
    assert len({str(case) for case in CASES}) >= 300
    assert sum(case.design.inner is not None for case in CASES) >= 50
    assert sum(case.channels != case.features for case in CASES) >= 50
    assert sum(bool(case.design.unshuffled) for case in CASES) >= 30
    assert {1, 3, 5, 7, 9, 13} <= set(window)
    assert 50 <= sum(one.complete for one in fields) <= 270
    assert sum(not one.uniform for one in fields) >= 3


@pytest.mark.parametrize("case", CASES[:80], ids=str)
def test_each_step_is_the_field_of_the_cut_as_it_stands(case: Case, dependency: Any) -> None:
    side = roomy(case.design)
    steps = case.design.places(case.channels, case.features, side, side)
    grown = field(case.design, case.channels, case.features).steps
    assert [one.operator for one in grown] == [str(op) for op in case.design.operators]
    for one, end in zip(
        grown, (i for i, s in enumerate(steps) if s.position is not None), strict=True
    ):
        pattern = gradients(steps[: end + 1], dependency)
        gaps = [(p.sum(), -missing(p, 3)) for p in pattern]
        least = pattern[min(range(len(pattern)), key=lambda c: (*gaps[c], c))]
        assert (one.size, one.volume) == (figures(least)[0], figures(least)[2])


@pytest.mark.parametrize("case", CASES[80:140], ids=str)
def test_a_given_size_clips_at_the_border(case: Case, dependency: Any) -> None:
    for size in ((1, 1), (2, 5), (4, 3)):
        steps = case.design.places(case.channels, case.features, *size)
        pattern = gradients(steps, dependency)
        for output in (0, case.features - 1):
            seen = support(case.design, case.channels, case.features, output=output, size=size)
            assert np.array_equal(seen.inputs, pattern[output])
            assert (seen.row, seen.column) == (size[0] // 2, size[1] // 2)
        check(field(case.design, case.channels, case.features, size=size), pattern, 3)


@pytest.mark.parametrize("case", CASES[140:200], ids=str)
def test_a_stride_is_followed(case: Case, dependency: Any) -> None:
    for size in ((6, 7), None):
        seen = [
            support(case.design, case.channels, case.features, output=c, size=size, stride=2)
            for c in range(case.features)
        ]
        height, width = seen[0].inputs.shape[1:]
        steps = case.design.places(case.channels, case.features, height, width, 2)
        pattern = gradients(steps, dependency)
        assert np.array_equal(np.array([one.inputs for one in seen]), pattern)
        assert seen[0].row == 2 * (steps[-1].place.out_height // 2)
    # The last size was the unbounded map: a larger one shows nothing more.
    wide = case.design.places(case.channels, case.features, height + 8, width + 8, 2)
    assert gradients(wide, dependency).sum() == pattern.sum()


# ---- graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TINY, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_field_is_what_the_graph_reaches(case: Case, stride: int) -> None:
    size = (3, 4)
    graph = dependency_graph(case.design, case.channels, case.features, size=size, stride=stride)
    last = case.design.places(case.channels, case.features, *size, stride)[-1].place
    for output in range(case.features):
        seen = support(
            case.design, case.channels, case.features, output=output, size=size, stride=stride
        )
        centre = (output, last.out_height // 2, last.out_width // 2)
        assert reachable(graph, centre) == {tuple(at) for at in np.argwhere(seen.inputs).tolist()}


# ---- the bound that the shuffle reaches ----------------------------------------------------------


def chain(seed: int) -> Case:
    """Up to five grouped operators in a row at widths with awkward divisors."""
    rng = random.Random(seed)
    while True:
        case = Case(rng.randrange(10**9), (12, 18, 24, 36, 60, 120), "13")
        design = replace(case.design, unshuffled=frozenset())
        count = rng.choice((3, 4, 5))
        kinds = [rng.choice((Group(), PointwiseGroup(), PointwiseGroup(), Depthwise()))
                 for _ in range(count)]  # fmt: skip
        inner = rng.choice((None, Fraction(1, 2), Fraction(1, 3), Fraction(2)))
        try:
            stands = Design(tuple(kinds), inner).widths(case.channels, case.features)
        except DesignError:
            continue
        operators = tuple(
            op if isinstance(op, Depthwise) else replace(op, g=rng.choice(_more_than_one(a, b)))
            for op, a, b in zip(kinds, stands, stands[1:], strict=False)
        )
        case.design = Design(operators, inner)
        if case.design.why_invalid(case.channels, case.features) is None:
            assert not design.unshuffled
            return case


@pytest.mark.parametrize("seed", range(300))
def test_with_shuffles_the_channels_reach_the_bound_at_every_output(seed: int) -> None:
    """Channels seen = the fold f -> min(C, f x fan_in) from 1, from right to left.

    Why: positions behind a shuffle of g groups belong to group (position mod g), and one group
    reads one run of positions. A run of f positions, taken cyclically, hence touches min(g, f)
    groups that follow one another cyclically, which read a cyclic run of min(g, f) C/g =
    min(C, f C/g) positions. Where no shuffle follows, g is 1 or the width, or the operator is the
    last and f is 1: the same holds.
    """
    case = chain(seed)
    steps = case.design.places(case.channels, case.features)
    bound = 1
    for item, place, position in reversed(steps):
        if position is not None:
            bound = min(place.channels, bound * (place.channels // item.groups(place)))
    seen = np.eye(case.features, dtype=bool)[:, :, None, None]
    for item, place, _ in reversed(steps):
        seen = item.reads(seen, place)
    assert set(seen.sum(axis=(1, 2, 3)).tolist()) == {bound}
    assert field(case.design, case.channels, case.features).size[2] == bound


def test_without_the_shuffle_the_bound_is_not_reached() -> None:
    assert field(parse("GC(2)~+PWG(2)"), 4).size == (3, 3, 2)
    assert field(parse("GC(2)+PWG(2)"), 4).size == (3, 3, 4)


# ---- known values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channels", "size", "complete"),
    [
        ("STD", 64, (3, 3, 64), True),
        ("PW+GC(32)+PW@1/4", 256, (3, 3, 256), True),
        ("PWG(4)+DW+PWG(4)@1/4", 560, (3, 3, 560), True),
        ("GC(100)+PWG(2)", 200, (3, 3, 200), True),
        ("GC(4)+PWG(32)", 128, (3, 3, 128), True),
        ("DW+PW", 280, (3, 3, 280), True),
        ("GC(32)+PWG(2)", 64, (3, 3, 64), True),
        ("GC(32)~+PWG(2)", 64, (3, 3, 32), False),
        ("GC(32)+PWG(4)", 64, (3, 3, 32), False),
        ("PWG(4)+DW+PWG(8)@1/4", 64, (3, 3, 32), False),
        ("GC(32)", 256, (3, 3, 8), False),
        ("PW", 64, (1, 1, 64), False),
        ("DW", 64, (3, 3, 1), False),
        ("DW+DW+PW", 16, (5, 5, 16), True),
        ("DW(d=2)+PW", 16, (3, 3, 16), False),
    ],
)
def test_known_fields(text: str, channels: int, size: tuple[int, int, int], complete: bool) -> None:
    found = field(parse(text), channels)
    assert found.size == size
    assert found.complete == complete
    assert found.volume == size[0] * size[1] * size[2]
    assert found.equals_standard == (size == (3, 3, channels))
    assert found.uniform
    assert len(found.missing_channels) == channels - size[2]


def test_dilation_shows_in_the_extent() -> None:
    found = field(parse("DW(d=2)+PW"), 16)
    assert (found.size, found.extent) == ((3, 3, 16), (5, 5))
    assert found.equals_standard and not found.complete
    assert found.missing_taps == 8 * 16
    assert field(parse("DW(k=5)+PW"), 16, kernel=5).equals_standard


def test_outputs_that_differ_are_reported_by_the_least() -> None:
    """Groups of 4 channels unshuffled under groups of 3: runs 0-2 and 9-11 touch one group."""
    found = field(parse("PWG(3)~+PWG(4)"), 12)
    assert not found.uniform
    assert (found.volume, found.missing_channels) == (4, tuple(range(4, 12)))
    assert [field(parse("PWG(3)~+PWG(4)"), 12, output=c).volume for c in (0, 3, 6, 9)] == [
        4,
        8,
        8,
        4,
    ]


def test_a_stated_output_is_described() -> None:
    found = field(parse("GC(2)"), 4, output=3)
    assert found.missing_channels == (0, 1)
    assert field(parse("GC(2)"), 4).missing_channels == (2, 3)


def test_the_field_as_json() -> None:
    plain = field(parse("GC(2)+PWG(2)"), 4).to_dict()
    assert json.loads(json.dumps(plain)) == {
        "size": [3, 3, 4],
        "extent": [3, 3],
        "volume": 36,
        "complete": True,
        "equals_standard": True,
        "uniform": True,
        "missing_channels": [],
        "missing_taps": 0,
        "steps": [
            {"operator": "GC(2)", "size": [3, 3, 2], "volume": 18},
            {"operator": "PWG(2)", "size": [3, 3, 4], "volume": 36},
        ],
    }


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("GC+PWG", {}, "names a family"),
        ("GC(*)+PWG(*)", {}, "names a family"),
        ("GC(5)", {}, "valid group numbers are"),
        ("PW", {"kernel": 4}, "valid are 1, 3, 5, 7"),
        ("PW", {"kernel": 0}, "valid are 1, 3, 5, 7"),
        ("PW", {"output": 64}, "valid are 0 to 63"),
        ("PW", {"output": -1}, "valid are 0 to 63"),
        ("PW", {"size": (0, 3)}, "at least 1"),
    ],
)
def test_misuse_is_refused(text: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        field(parse(text), 64, **options)


# ---- speed without loss ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("PWG(32)+DW+PWG(64)", 2048),
        ("DW", 2048),
        ("GC(1024)", 2048),
        ("STD", 2048),
        ("PWG(16)~+DW", 2048),
        ("GC(40)+PWG(63)", 2520),
    ],
)
def test_wide_designs_are_quick(text: str, channels: int) -> None:
    """A generous limit on what takes some milliseconds."""
    design = parse(text)
    start = time.process_time()
    field(design, channels)
    assert time.process_time() - start < 2


def test_a_few_outputs_speak_for_all() -> None:
    for text, channels, expected in (
        ("DW", 2048, 1),
        ("PWG(32)+DW+PWG(64)", 2048, 1),
        ("PWG(2)~+PWG(3)", 12, 3),
    ):
        assert len(representatives(parse(text).places(channels))) == expected


@pytest.mark.parametrize("case", CASES[200:260], ids=str)
def test_neither_symmetry_nor_chunks_change_the_field(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = field(case.design, case.channels, case.features)
    monkeypatch.setattr(GroupedConvolution, "carried", lambda *_: None)
    monkeypatch.setattr(field_module, "CHUNK", 1000)
    assert field(case.design, case.channels, case.features) == quick


def test_the_canonical_design_has_the_same_field() -> None:
    for case in CASES:
        canonical = case.design.canonical(case.channels, case.features)
        mine, its = (
            field(design, case.channels, case.features) for design in (case.design, canonical)
        )
        assert replace(mine, steps=()) == replace(its, steps=())


def test_every_pair_of_group_numbers_agrees_with_the_theorem() -> None:
    """GC(M)+PWG(N) at C = F: the field is full exactly if M N <= C.

    Source: Penetrating the Fog, theorem 1 (the condition for a full field).
    """
    channels = 24
    for m, n in product(divisors(channels), repeat=2):
        design = Design((Group(g=m), PointwiseGroup(g=n)))
        assert field(design, channels).complete == (m * n <= channels)
