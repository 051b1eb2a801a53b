"""Limits are kept, exactly and by every network; what cannot fit is refused with its nearest."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.field import field
from nas import ladder
from nas.budget import (
    TIMINGS,
    BudgetError,
    Refusal,
    nearest_feasible,
    solve,
    why_not_wider,
)
from nas.candidates import Candidate, Sized, Task
from nas.floors import Floor, floor
from nas.known import known_candidates
from nas.latency import Stopwatch
from nas.limits import BYTES, COUNT, SECONDS, Limits, Unit, quantity, show_seconds
from nas.space import space_for
from nas.timed_width import within_latency
from spaces.design import parse
from spaces.operator import DesignError

TASK = Task((1, 16, 16), 10)
TASKS = (TASK, Task((3, 9, 13), 4), Task((3, 32, 32), 100))
DESIGNS = (
    "DW+PW",
    "STD",
    "GC(4)+PWG(2)",
    "GC(8)+PWG(8)",
    "GC(q=4)+PWG(q=16)",
    "GC(*)+PWG(*)",
    "GC(*,k=5)+PWG(*)",
    "GC+PWG(2)",
    "PWG(*)+DW+PWG(*)",
    "PWG(3)+DW+PWG(2)",
    "PW+DW+PW@1/4",
    "PW+DW(k=5)+PW@6",
    "PWG(*)+DW+PWG(*)@1/4",
    "PWG(*)+DW+PWG(*)@1/8",
    "PWG(4)+DW+PWG(4)@1/4",
    "PWG(q=8)+DW+PWG(q=4)@1/2",
    "PW+GC(16)~+PW@1/2",
)


def candidate(design: str, *blocks: int) -> Candidate:
    return Candidate(parse(design), blocks or (1, 1, 1))


# ---- how a limit is written ----------------------------------------------------------------


@given(st.integers(1, 10**9), st.sampled_from([("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_counts_read_as_written(number: int, suffix: tuple[str, int]) -> None:
    assert quantity(f"{number}{suffix[0]}") == number * suffix[1]
    assert quantity(f" {number / 8}{suffix[0]} ", SECONDS_OR_COUNT) == Fraction(
        number * suffix[1], 8
    )


SECONDS_OR_COUNT = Unit("a number", {**COUNT.suffixes, **SECONDS.suffixes}, False, "1k or 1s")


@given(st.integers(1, 10**6))
def test_bytes_and_seconds_read_as_written(number: int) -> None:
    assert quantity(f"{number}kB", BYTES) == quantity(f"{number}KB", BYTES) == number * 1000
    assert quantity(f"{number}MB", BYTES) == quantity(f"{number}M", BYTES) == number * 10**6
    assert quantity(f"{number}us", SECONDS) == Fraction(number, 10**6)
    assert quantity(f"{number}ms", SECONDS) == Fraction(number, 1000)


@given(st.text(max_size=12), st.sampled_from([COUNT, BYTES, SECONDS]))
def test_any_text_is_a_positive_number_or_an_error_that_shows_how(text: str, unit: Unit) -> None:
    try:
        assert quantity(text, unit) > 0
    except ValueError as error:
        assert unit.examples in str(error)


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("0", COUNT, "above zero"),
        ("-5k", COUNT, "above zero"),
        ("nan", COUNT, "not a count"),
        ("inf", COUNT, "not a count"),
        ("", COUNT, "not a count"),
        ("1e999", COUNT, "above 1e+18"),
        ("0.5", COUNT, "not a whole number"),
        ("50x", COUNT, "unknown unit 'x'"),
        ("2ms", COUNT, "unknown unit 'ms'"),
        ("2", SECONDS, "has no unit"),
        ("2k", SECONDS, "unknown unit 'k'"),
        ("2MiB", BYTES, "unknown unit 'MiB'"),
        ("1,000", COUNT, "not a count"),
    ],
)
def test_what_is_no_quantity_is_refused(text: str, unit: Unit, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("+", r"\+")) as error:
        quantity(text, unit)
    assert unit.examples in str(error.value)


def test_limits_from_options() -> None:
    limits = Limits.read(params="50k", traffic="2MB", latency="2ms")
    assert limits == Limits(params=50_000, traffic=2_000_000, latency=0.002)
    assert str(limits) == "50,000 parameters, 2,000,000 bytes of traffic, 2 ms"
    with pytest.raises(ValueError, match="--max-mults: '0'"):
        Limits.read(mults="0")


@pytest.mark.parametrize("wrong", [{}, {"params": 0}, {"latency": float("nan")}, {"mults": -1}])
def test_limits_must_limit(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"--max-params|above zero"):
        Limits(**wrong)


# ---- the ladder ----------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("blocks", [(1,), (2, 1, 1)])
def test_valid_widths_are_the_multiples_of_the_step(design: str, blocks: tuple[int, ...]) -> None:
    tried = candidate(design, *blocks)
    unit = ladder.step(tried)
    stand_in = ladder.dense(tried.design)
    for width in range(1, 130):
        stands = all(
            stand_in.why_invalid(c * width, f * width) is None
            for c, f in ladder.slots(tried.blocks)
        )
        assert stands == (width % unit == 0), width


@pytest.mark.parametrize("design", DESIGNS)
def test_complete_widths_are_those_of_the_exact_field(design: str) -> None:
    tried = candidate(design, 1, 2)
    low, high = ladder.complete_widths(tried)
    for width in range(ladder.first_width(tried), 49, ladder.step(tried)):
        blocks = tried.sized(TASK, width)._blocks()
        complete = all(field(d, c, f).complete for _, d, c, f in blocks)
        assert complete == (low <= width and (high is None or width <= high)), width
        assert complete == (tried.sized(TASK, width).why_incomplete() is None)


@pytest.mark.parametrize("design", ["DW", "GC(q=3)+PW@1/2", "PW@1/4"])
def test_no_valid_width_is_a_refusal_with_the_reason(design: str) -> None:
    with pytest.raises(DesignError):
        ladder.step(candidate(design))
    refusal = solve(candidate(design), TASK, Limits(params=10**6))
    assert isinstance(refusal, Refusal)
    assert refusal.nearest is None


def test_incomplete_everywhere_is_a_refusal_that_names_the_gap() -> None:
    refusal = solve(candidate("GC(q=2)+PWG(q=2)"), TASK, Limits(params=10**6))
    assert isinstance(refusal, Refusal)
    assert "incomplete at every width" in refusal.reason
    assert "sees 4 channels, not all 8" in refusal.reason
    let_in = solve(candidate("GC(q=2)+PWG(q=2)"), TASK, Limits(params=10**4), allow_incomplete=True)
    assert isinstance(let_in, Sized)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("task", TASKS)
def test_floor_is_below_the_cost_and_never_falls(design: str, task: Task) -> None:
    tried = candidate(design, 1, 2)
    low, _ = ladder.complete_widths(tried)
    before = Floor(0, 0, 0)
    for index in range(25):
        width = low + index * ladder.step(tried)
        least = floor(tried, task, width)
        cost = tried.sized(task, width).cost
        exact = (cost.params, cost.mults, cost.traffic_bytes)
        assert all(a <= b for a, b in zip(least, exact, strict=True))
        assert all(a <= b for a, b in zip(before, least, strict=True))
        if not tried.design.is_family:
            assert least == exact
        before = least


# ---- a thousand budgets --------------------------------------------------------------------


def model_seconds(entry: Sized) -> float:
    """A latency that grows with the width, as a machine without surprises would have it."""
    return 1e-5 + 2e-8 * entry.width**1.5


def random_limits(rng: random.Random) -> Limits:
    """One to four limits at once, each log-uniform over four decades."""
    ranges = {"params": 1e3, "mults": 3e4, "traffic": 2e4, "latency": 1e-5}
    chosen = rng.sample(list(ranges), rng.randint(1, 4))
    values = {name: ranges[name] * 10 ** rng.uniform(0, 4) for name in chosen}
    return Limits(**{n: v if n == "latency" else int(v) for n, v in values.items()})


def fitted(
    tried: Candidate, task: Task, limits: Limits, measure: Callable[[Sized], float]
) -> Sized | Refusal:
    found = solve(tried, task, limits)
    if isinstance(found, Refusal):
        return found
    return within_latency(
        found, limits, measure, lambda width: solve(tried, task, limits, at_most=width)
    )


def check_budget(rng: random.Random, pool: list[Candidate]) -> Sized | None:
    """One random budget; the network, if there is one."""
    tried, task, limits = rng.choice(pool), rng.choice(TASKS), random_limits(rng)
    timed: list[int] = []

    def measure(entry: Sized) -> float:
        assert limits.allow(entry.cost)
        timed.append(entry.width)
        return model_seconds(entry)

    found = fitted(tried, task, limits, measure)
    assert len(timed) == len(set(timed)) <= (TIMINGS if limits.latency else 0)
    if isinstance(found, Refusal):
        assert found.reason
        nearest = found.nearest
        if isinstance(nearest, Sized):
            slow = limits.latency is not None and model_seconds(nearest) > limits.latency
            assert slow or limits.analytic.excess(nearest.cost) > 1
        return None
    assert limits.allow(found.cost)
    assert limits.latency is None or model_seconds(found) <= limits.latency
    assert found.why_incomplete() is None
    why = why_not_wider(found, limits)
    assert why is not None
    wider = tried.sized(task, found.width + ladder.step(tried))
    if "fits but is incomplete" in why:
        assert wider.why_incomplete() is not None
    elif "timed" in why:
        assert limits.latency is not None
    else:
        assert limits.analytic.excess(wider.cost) > 1
    return found


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 100), pytest.param(1, 1000, marks=pytest.mark.slow)]
)
def test_budgets_are_kept(seed: int, count: int) -> None:
    rng = random.Random(seed)
    space = space_for(TASK, Limits(params=50_000), 3)
    pool = [candidate(design, 1, 1, 1) for design in DESIGNS]
    for _ in range(60):
        genes = {name: rng.choice(choices) for name, choices in space.genes.items()}
        pool.append(space.decode(genes))
    found = [entry for _ in range(count) if (entry := check_budget(rng, pool)) is not None]
    assert len(found) > count / 2
    for entry in rng.sample(found, 40):
        with torch.device("meta"):
            built = entry.module()
        assert sum(p.numel() for p in built.parameters()) == entry.cost.params


@pytest.mark.parametrize("design", [d for d in DESIGNS if parse(d).is_family])
def test_optimal_numbers_leave_out_no_wider_width(design: str) -> None:
    for task, limits in (
        (TASK, Limits(params=20_000)),
        (TASKS[1], Limits(mults=400_000, params=30_000)),
        (TASK, Limits(traffic=600_000)),
    ):
        tried = candidate(design, 1, 2)
        found = solve(tried, task, limits)
        assert isinstance(found, Sized)
        unit = ladder.step(tried)
        wider = range(found.width + unit, 3 * found.width, unit)
        assert not any(limits.allow(tried.sized(task, width).cost) for width in wider)
        assert not limits.allow(floor(tried, task, wider[-1]))


# ---- refusals ------------------------------------------------------------------------------


def test_nearest_is_the_smallest_excess_of_all() -> None:
    limits = Limits(params=300, mults=10**4)
    results = [solve(candidate(design), TASK, limits) for design in DESIGNS]
    assert all(isinstance(result, Refusal) for result in results)
    nearest = nearest_feasible(results, limits)
    smallest = [candidate(d) for d in DESIGNS]
    excesses = [
        limits.excess(tried.sized(TASK, ladder.complete_widths(tried)[0]).cost)
        for tried in smallest
    ]
    assert limits.excess(nearest.cost) == min(excesses)
    error = BudgetError(limits, nearest)
    assert f"{nearest.cost.params:,} parameters, of at most 300" in str(error)
    facts = error.nearest_facts()
    assert (facts["params"], facts["excess"]) == (nearest.cost.params, min(excesses))


def test_refusal_says_from_which_width_on_it_would_be_complete() -> None:
    refusal = solve(candidate("GC(8)+PWG(8)"), TASK, Limits(params=20_000))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("width 64, the first that can be complete, has ")
    assert refusal.nearest is not None
    assert refusal.nearest.width == 64


def test_impossible_budget_is_answered_within_a_second_and_without_torch() -> None:
    code = """
import sys, time
import nas.rivals
start = time.process_time()
from nas.budget import nearest_feasible, solve, Refusal
from nas.candidates import Task
from nas.known import known_candidates
from nas.limits import Limits
from nas.space import space_for
task, limits = Task((3, 224, 224), 1000), Limits(params=300)
found = [solve(c, task, limits) for c in space_for(task, limits, 4).smallest()]
assert all(isinstance(one, Refusal) for one in found)
print(nearest_feasible([*found, *known_candidates(task, limits, 4)], limits).candidate)
assert time.process_time() - start < 1
assert not {"torch", "optuna", "pandas", "numba"} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "x1-1-1-1" in ran.stdout


# ---- latency -------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["DW+PW", "PWG(*)+DW+PWG(*)", "PWG(4)+DW+PWG(4)@1/4"])
@pytest.mark.parametrize("limit", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("power", [0.7, 1.5, 2.0])
def test_six_timings_come_close_to_the_widest(design: str, limit: float, power: float) -> None:
    limits = Limits(params=10**7, latency=limit)

    def seconds(entry: Sized) -> float:
        return 2e-5 + 1e-6 * entry.width**power

    found = fitted(candidate(design), TASK, limits, seconds)
    if isinstance(found, Refusal):
        assert found.nearest is not None
        assert found.nearest.width == ladder.complete_widths(candidate(design))[0] == 64
        assert seconds(candidate(design).sized(TASK, 64)) > limit
        return
    assert seconds(found) <= limit
    widest = solve(candidate(design), TASK, limits)
    assert isinstance(widest, Sized)
    reachable = min(widest.width, ((limit - 2e-5) / 1e-6) ** (1 / power))
    assert found.width >= 0.85 * reachable - ladder.step(found.candidate)


def test_too_slow_at_any_width_is_a_refusal() -> None:
    limits = Limits(params=10**5, latency=1e-6)
    refusal = fitted(candidate("DW+PW"), TASK, limits, lambda entry: 1e-3 * entry.width)
    assert isinstance(refusal, Refusal)
    assert "of at most 1 us" in refusal.reason
    assert refusal.nearest is not None
    assert refusal.nearest.width == ladder.NARROWEST


def test_a_latency_alone_is_a_budget() -> None:
    found = fitted(candidate("DW+PW"), TASK, Limits(latency=1e-3), model_seconds)
    assert isinstance(found, Sized)
    assert 0.8e-3 < model_seconds(found) <= 1e-3


def test_the_stopwatch_times_each_function_once(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    tried = candidate("DW+PW").sized(TASK, 8)
    seconds = watch(tried)
    assert 0 < seconds < 1
    monkeypatch.setattr(Sized, "module", lambda *_: pytest.fail("timed again"))
    same = replace(tried.candidate, known_as="Xception").sized(TASK, 8)
    assert watch(same) == seconds
    assert str(watch) == "median of 15 at batch 1 on cpu, 1 thread, float32"
    with pytest.raises(ValueError, match="cannot time on the device 'nonsense'"):
        Stopwatch("nonsense")


@given(st.floats(1e-6, 100))
def test_shown_seconds_read_back(seconds: float) -> None:
    shown = float(quantity(show_seconds(seconds).replace(" ", ""), SECONDS))
    assert shown == pytest.approx(seconds, rel=0.01)


# ---- known blocks --------------------------------------------------------------------------


def test_known_blocks_fit_or_say_why() -> None:
    for limits in (Limits(params=50_000), Limits(params=5_000), Limits(mults=10**6)):
        results = known_candidates(TASK, limits, 3)
        names = [result.candidate.known_as for result in results]
        assert len(names) == 8
        for result in results:
            if isinstance(result, Sized):
                assert limits.allow(result.cost)
                whole = result.why_incomplete() is None
                assert whole == (result.candidate.known_as != "LeanResNet")
            else:
                assert result.reason


def test_a_group_number_that_does_not_fit_is_lowered_and_named() -> None:
    results = {
        str(result.candidate.known_as): result
        for result in known_candidates(TASK, Limits(params=5_000), 3)
    }
    lowered = results["ResNeXt (6 groups)"]
    assert isinstance(lowered, Sized)
    assert "GC(6)" in lowered.title
    assert "ResNeXt" not in results
    roomy = known_candidates(TASK, Limits(params=10**6), 3)
    assert all("groups" not in str(result.candidate.known_as) for result in roomy)
    assert all(result.candidate.blocks == (2, 2, 2) for result in roomy)


def test_a_design_that_is_complete_only_when_narrow_is_found() -> None:
    """Many wide networks that see too little do not hide a narrow one that sees all."""
    found = solve(Candidate(parse("GC(q=32)~+PWG(q=32)"), (1,)), TASK, Limits(params=10**7))
    assert isinstance(found, Sized), found
    assert found.why_incomplete() is None
