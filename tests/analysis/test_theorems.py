"""The optimum against brute force, the paper's closed forms, and the widest network."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from analysis.field import field
from analysis.theorems import bound_params, optimum, resolve, shares, widest
from spaces.design import Design, parse
from spaces.fixed import ReLU
from spaces.operator import DesignError
from spaces.operators.pointwise import Pointwise

FAMILIES = (
    *("STD", "DW+PW", "PW+DW", "GC+PW", "GC+PWG", "PWG+GC", "PWG+DW+PWG", "PWG+GC+PWG"),
    *("PW+DW+PW@1/4", "PWG+DW+PWG@1/4", "GC+PWG@1/2", "PWG+GC@3/2", "GC(*,k=5)+PWG(*)"),
    *("GC(2)+PWG", "PWG+GC(q=2)+PW"),
)
GRID = (
    *("DW+PW", "GC+PWG", "PWG+GC", "PWG+DW+PWG", "PW+DW+PW@1/4", "PWG+DW+PWG@1/4"),
    *("GC+PWG@1/2", "PWG+GC@1/4"),
)


@cache
def common_divisors(a: int, b: int) -> list[int]:
    return [g for g in range(1, min(a, b) + 1) if a % g == 0 and b % g == 0]


def numbered(family: Design, channels: int, features: int) -> Iterator[tuple[int, ...]]:
    """Every valid assignment to the open operators, by trying all numbers."""
    widths = family.widths(channels, features)
    yield from itertools.product(
        *(
            common_divisors(*pair)
            for operator, pair in zip(family.operators, itertools.pairwise(widths), strict=True)
            if operator.is_open
        )
    )


def written(family: Design, groups: tuple[int, ...]) -> Design:
    """The family's string with these numbers in it."""
    numbers = iter(groups)
    parts = []
    for operator in family.operators:
        kernel = f",k={operator.window[0]}" if operator.window[0] not in (1, 3) else ""
        parts.append(
            f"{operator.symbol}({next(numbers)}{kernel})" if operator.is_open else str(operator)
        )
    return parse("+".join(parts) + (f"@{family.inner}" if family.inner else ""))


def numel(design: Design, channels: int, features: int) -> int:
    with torch.device("meta"):
        modules = [step.item.module(step.place) for step in design.places(channels, features)]
    return sum(weights.numel() for module in modules for weights in module.parameters())


def brute_force(family: Design, channels: int, features: int) -> tuple[int, tuple[int, ...]]:
    """Fewest parameters and, of equal choices, the smallest; by a fold over all choices at once.

    An output reads the channels of its group; each group before it adds its own.
    """
    choices = list(numbered(family, channels, features))
    groups = np.array(choices, np.int64).reshape(len(choices), -1).T
    widths = family.widths(channels, features)
    params, seen, opened = 0, np.ones(len(choices), np.int64), len(groups)
    for i in reversed(range(len(family.operators))):
        operator, before, after = family.operators[i], widths[i], widths[i + 1]
        if operator.is_open:
            opened -= 1
            g = groups[opened]
        elif operator.symbol == "DW":
            g = before
        else:
            g = before // operator.q if getattr(operator, "q", None) else getattr(operator, "g", 1)
        params = params + after * (before // g) * operator.window[0] ** 2
        seen = np.minimum(before, seen * (before // g))
    params = np.broadcast_to(params, len(choices))
    return min((int(params[n]), choices[n]) for n in np.flatnonzero(seen == channels))


def agrees(family: Design, channels: int, features: int) -> bool:
    """Whether there is an optimum, which then is the one of brute force."""
    densest = written(family, (1,) * len(family.operators))
    if densest.why_invalid(channels, features) is not None:
        with pytest.raises(DesignError):
            optimum(family, channels, features)
        return False
    expected = brute_force(family, channels, features)
    found = optimum(family, channels, features)
    assert (found.params, found.groups) == expected, (str(family), channels, features)
    assert found.bound <= found.params
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_brute_force(family: str) -> None:
    pick = random.Random(family)
    pairs = [(pick.randint(1, 256), pick.randint(1, 256)) for _ in range(60)]
    rich = [(12 * pick.randint(1, 21), 12 * pick.randint(1, 21)) for _ in range(60)]
    assert sum(agrees(parse(family), c, f) for c, f in pairs + rich) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("family", GRID)
def test_equals_brute_force_for_all_widths(family: str) -> None:
    design = parse(family)
    met = [agrees(design, c, f) for c in range(1, 257) for f in range(1, 257)]
    whole = [f for f in range(1, 257) if not design.inner or (design.inner * f).denominator == 1]
    assert sum(met) == 256 * len(whole)


def check_by_field_and_module(count: int) -> None:
    """The same minimum when the field says what is complete and the module what it costs."""
    pick = random.Random(count)
    for _ in range(count):
        family = parse(pick.choice(GRID))
        multiple = family.inner.denominator if family.inner else 1
        features = multiple * pick.randint(1, 256 // multiple)
        channels = pick.choice([features, pick.randint(1, 256)])
        best = []
        for groups in numbered(family, channels, features):
            design = written(family, groups)
            if field(design, channels, features).complete:
                best.append((numel(design, channels, features), groups))
        found = optimum(family, channels, features)
        assert (found.params, found.groups) == min(best), (str(family), channels, features)
        assert field(found.design, channels, features).complete
        assert numel(found.design, channels, features) == found.params


def test_equals_brute_force_over_field_and_module() -> None:
    check_by_field_and_module(20)


@pytest.mark.slow
def test_equals_brute_force_over_field_and_module_500_times() -> None:
    check_by_field_and_module(500)


@pytest.mark.parametrize("family", ["GC~+PW", "GC~+PWG", "PWG~+GC+PWG", "PWG~+DW+PWG@1/2"])
def test_without_a_shuffle_the_exact_field_decides(family: str) -> None:
    design = parse(family)
    for channels, features in ((8, 8), (12, 8), (6, 12)):
        complete = [
            (numel(d, channels, features), groups)
            for groups in numbered(design, channels, features)
            if field(d := _filled(design, groups), channels, features).complete
        ]
        found = optimum(design, channels, features)
        assert (found.params, found.groups) == min(complete)
        assert found.bound <= found.params


def _filled(design: Design, groups: tuple[int, ...]) -> Design:
    """As `written`, keeping the shuffles that are left out."""
    return Design(written(design, groups).operators, design.inner, design.unshuffled)


@pytest.mark.parametrize(
    ("family", "channels", "groups", "params", "gap"),
    [
        ("GC+PWG", 64, (32, 2), 3200, 0.0417),
        ("GC+PWG", 128, (32, 4), 8704, 0.0017),
        ("GC+PWG", 53, (53, 1), 3286, 0.4194),
        ("PWG+DW+PWG@1/4", 700, (7, 25), 23975, 0.1931),
        *(("PWG+DW+PWG@1/4", (4 * n) ** 2, (2 * n, 2 * n), None, 0.0) for n in (1, 2, 4, 5, 8)),
        ("PWG+DW+PWG", 64, (8, 8), 1600, None),
        ("PW+DW+PW@1/4", 64, (), 2192, 0.0),
        ("DW+PW", 64, (), 4672, 0.0),
        ("STD", 64, (), 36864, 0.0),
    ],
)
def test_values_of_the_paper(
    family: str, channels: int, groups: tuple[int, ...], params: int | None, gap: float | None
) -> None:
    found = optimum(parse(family), channels)
    assert found.groups == groups
    assert params is None or found.params == params
    assert gap is None or found.gap == pytest.approx(gap, abs=5e-5)


def test_the_canonical_name_is_printed() -> None:
    assert str(optimum(parse("GC+PWG"), 53).design) == "DW+PW"
    assert str(optimum(parse("GC+PWG"), 1, 1).design) == "STD+PW"
    assert str(optimum(parse("GC(*)+PWG(*)"), 64).design) == "GC(32)+PWG(2)"
    assert str(optimum(parse("GC(4)+PWG"), 64, 128).design) == "GC(4)+PWG(16)"


# ---- Theorem 1 -------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [None, Fraction(1, 2), Fraction(1, 4)])
def test_theorem_1_is_necessary_where_the_inner_width_divides(inner: Fraction | None) -> None:
    """Every cheapest complete choice has M N = K."""
    family = Design(parse("GC+PWG" if inner is None else "PWG+DW+PWG").operators, inner)
    for channels, features in itertools.product(range(4, 61, 4), repeat=2):
        inner_width = family.widths(channels, features)[1]
        if channels % inner_width or features % inner_width:
            continue
        complete: dict[tuple[int, ...], int] = {
            groups: numel(written(family, groups), channels, features)
            for groups in numbered(family, channels, features)
            if math.prod(groups) <= inner_width
        }
        least = min(complete.values())
        assert {math.prod(g) for g, p in complete.items() if p == least} == {inner_width}


def test_theorem_1_is_not_sufficient() -> None:
    """M N = C = 64 costs between 3,200 and more than the dense convolution."""
    family = parse("GC+PWG")
    costs = [
        numel(written(family, groups), 64, 64)
        for groups in numbered(family, 64, 64)
        if math.prod(groups) == 64
    ]
    assert (min(costs), max(costs)) == (3200, 36928)
    assert max(costs) > optimum(parse("STD"), 64).params


def test_theorem_1_fails_where_the_inner_width_does_not_divide() -> None:
    """K = 4 shares only 1 with C = 9 and 2 with F = 6."""
    assert optimum(parse("PWG+DW+PWG@2/3"), 9, 6).groups == (1, 2)


# ---- closed forms of section 3.3 ---------------------------------------------------------------

CLOSED_PARAMS = {
    "STD": lambda c, f: 9 * c * f,
    "DW+PW": lambda c, f: 9 * c + c * f,
    "GC+PWG": lambda c, f: 6 * c * math.sqrt(f),
    "PW+DW+PW@1/4": lambda c, f: f / 4 * (c + f + 9),
    "PWG+DW+PWG@1/4": lambda c, f: f / 4 * (4 * math.sqrt(c) + 9),
}
CLOSED_WIDTH = {
    "STD": lambda p, a: math.sqrt(p / (9 * a)),
    "DW+PW": lambda p, a: (-9 + math.sqrt(81 + 4 * a * p)) / (2 * a),
    "GC+PWG": lambda p, a: (p / (6 * math.sqrt(a))) ** (2 / 3),
    "PW+DW+PW@1/4": lambda p, a: (
        (-9 * a + math.sqrt(81 * a**2 + 16 * a**2 * p + 16 * a * p)) / (2 * (a**2 + a))
    ),
}


@pytest.mark.parametrize("family", CLOSED_PARAMS)
def test_bound_is_the_closed_form(family: str) -> None:
    for c, f in itertools.product((4, 5, 64, 133.7, 700), repeat=2):
        assert bound_params(parse(family), c, f) == pytest.approx(CLOSED_PARAMS[family](c, f))


@pytest.mark.parametrize("family", CLOSED_WIDTH)
@pytest.mark.parametrize("alpha", [1, 2, Fraction(1, 2)])
def test_real_width_is_the_closed_form(family: str, alpha: int | Fraction) -> None:
    for params in (5000, 36864, 1_000_000):
        expected = CLOSED_WIDTH[family](params, float(alpha))
        assert widest(parse(family), params, alpha).bound == pytest.approx(expected)


@pytest.mark.parametrize(
    "family", [*FAMILIES, "GC+PW+PW", "GC+PW+GC+PW", "GC+GC(4)+GC(4)+PWG", "PWG+PW+STD@1/8"]
)
def test_bound_grows_with_the_width(family: str) -> None:
    for alpha in (0.5, 1, 3):
        bounds = [bound_params(parse(family), c, alpha * c) for c in np.geomspace(4, 4096, 100)]
        assert all(np.diff(bounds) > 0)


# ---- the widest layer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "width"),
    [
        ("STD", 64),
        ("DW+PW", 187.6),
        ("PW+DW+PW@1/4", 269.3),
        ("GC+PWG", 335.5),
        ("PWG+DW+PWG@1/4", 1059.4),
    ],
)
def test_widest_for_the_budget_of_a_standard_convolution(family: str, width: float) -> None:
    found = widest(parse(family), 36864)
    assert found.bound == pytest.approx(width, abs=0.05)
    assert found.optimum.params <= 36864
    assert found.channels <= found.bound + 1e-9
    assert found.gap >= -1e-12


@pytest.mark.parametrize("family", ["GC+PWG", "PWG+DW+PWG@1/4", "PWG+GC", "DW+PW", "GC(4)+PWG"])
@pytest.mark.parametrize("alpha", [1, 2, Fraction(3, 2)])
def test_widest_is_the_last_width_that_fits(family: str, alpha: int | Fraction) -> None:
    design = parse(family)
    fewest: dict[int, int] = {}
    for c in range(1, 200):
        try:
            fewest[c] = optimum(design, c, int(alpha * c)).params if alpha * c % 1 == 0 else 10**9
        except DesignError:
            continue
    for params in (300, 1000, 2345, 3000):
        assert bound_params(design, 199, float(199 * alpha)) > params
        found = widest(design, params, alpha)
        assert found.channels == max(c for c, p in fewest.items() if p <= params)
        assert found.out_channels == alpha * found.channels


# ---- resolve and refusals ----------------------------------------------------------------------


def test_resolve_fills_open_numbers_only() -> None:
    assert str(resolve(parse("GC(*)+PWG(*)"), 64)) == "GC(32)+PWG(2)"
    assert str(resolve(parse("GC(*)+PWG(*)"), 64, 128)) == "GC(16)+PWG(4)"
    assert resolve(parse("GC+PWG"), 128) is resolve(parse("GC+PWG"), 128)
    incomplete = parse("GC(32)+PWG(4)")
    assert resolve(incomplete, 64) is incomplete


@pytest.mark.parametrize(
    ("design", "channels", "reason"),
    [
        ("DW", 64, "no group numbers make DW complete: .* sees 1 channels, not all 64"),
        ("PW+PWG", 64, "no group numbers .* misses taps of the 3 x 3 window"),
        ("GC(d=2)+PW", 64, "misses taps"),
        ("DW~+PWG(2)", 64, "no group numbers make DW.*sees 32 channels"),
        ("GC(3)+PWG", 64, "3 groups do not divide 64"),
        ("PW+DW+PW@1/4", 66, "not a whole number"),
    ],
)
def test_refusals_name_the_reason(design: str, channels: int, reason: str) -> None:
    with pytest.raises(DesignError, match=reason):
        optimum(parse(design), channels)


def test_other_refusals() -> None:
    with pytest.raises(DesignError, match="no width of STD fits 8 parameters"):
        widest(parse("STD"), 8)
    with pytest.raises(DesignError, match="alpha is 0"):
        widest(parse("STD"), 100, 0)
    with pytest.raises(DesignError, match="hold for chains of STD, GC, DW, PW and PWG"):
        optimum(Design((ReLU(), Pointwise())), 8)


def test_shares_rebuild_the_widths() -> None:
    for family in (*FAMILIES, "DW", "DW+PW+DW", "PW+DW+PW@6"):
        design = parse(family)
        for c, f in ((24, 24), (24, 40) if design.composition != ("DW",) else (8, 8)):
            rebuilt = tuple(x * c + y * f for x, y in shares(design))
            assert rebuilt == design.widths(c, f)
