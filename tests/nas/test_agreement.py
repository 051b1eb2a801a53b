"""Rank statistics, held to scipy and to what is known in advance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from nas.agreement import bootstrap, ceiling, kendall, partial, spearman, top_recall

columns = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30).filter(
    lambda rows: all(len(set(column)) > 1 for column in zip(*rows, strict=True))
)


@given(columns)
def test_tau_and_spearman_with_ties_are_those_of_scipy(rows: list[tuple[int, int]]) -> None:
    first, second = zip(*rows, strict=True)
    assert kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


def test_a_constant_column_has_no_rank() -> None:
    for statistic in (kendall, spearman):
        assert math.isnan(statistic([1, 1, 1], [1, 2, 3]))


def test_recall_counts_the_best_and_averages_over_the_orders_of_ties() -> None:
    truth = [5, 4, 3, 2, 1]
    assert top_recall(truth, truth, 2) == 1.0
    assert top_recall(truth[::-1], truth, 2) == 0.0
    assert top_recall([1, 1, 1, 1, 1], truth, 2) == pytest.approx(2 / 5)
    assert top_recall([9, 1, 1, 0, 0], truth, 2) == pytest.approx((1 + 1 / 2) / 2)
    assert top_recall(truth, truth[::-1], 5) == 1.0


def test_partial_tau_is_what_the_third_ranking_does_not_explain() -> None:
    """By hand: t_12 = 2/3, t_13 = 1/3, t_23 = 2/3."""
    first, second, held = [1, 2, 3, 4], [1, 2, 4, 3], [2, 1, 4, 3]
    assert partial(first, second, held) == pytest.approx(
        (2 / 3 - 1 / 3 * 2 / 3) / math.sqrt((1 - 1 / 9) * (1 - 4 / 9))
    )
    assert partial(first, second, [1, 1, 1, 1]) == kendall(first, second)
    assert math.isnan(partial(first, second, first))


def test_agreement_by_size_alone_shrinks_when_size_is_held() -> None:
    random = np.random.default_rng(0)
    size = random.standard_normal(300)
    first, second = (size + 0.3 * random.standard_normal(300) for _ in range(2))
    assert kendall(first, second) > 0.6
    assert partial(first, second, size) < 0.3
    unrelated = partial(first, second, random.standard_normal(300))
    assert unrelated == pytest.approx(kendall(first, second), abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Greiner: normal columns of correlation 0.8 have tau 2/pi asin(0.8) = 0.590."""
    random, inside = np.random.default_rng(1), 0
    for trial in range(60):
        x, noise = random.standard_normal((2, 60))
        found = bootstrap(kendall, x, 0.8 * x + 0.6 * noise, rounds=200, seed=trial)
        assert found.low <= found.high
        inside += found.low <= 2 / math.pi * math.asin(0.8) <= found.high
    assert 0.85 * 60 <= inside < 60


def test_rows_of_one_group_are_drawn_together() -> None:
    random = np.random.default_rng(2)
    x, noise = random.standard_normal((2, 40))
    y = x + noise
    plain = bootstrap(kendall, x, y, rounds=300)
    groups = [*range(40), *range(40)]
    doubled = bootstrap(kendall, [*x, *x], [*y, *y], groups=groups, rounds=300)
    apart = bootstrap(kendall, [*x, *x], [*y, *y], rounds=300)
    assert doubled.high - doubled.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert apart.high - apart.low < 0.85 * (plain.high - plain.low)


def test_a_bootstrap_depends_on_its_seed_only() -> None:
    random = np.random.default_rng(3)
    x, y = random.standard_normal((2, 20))
    assert bootstrap(kendall, x, y, seed=5) == bootstrap(kendall, x, y, seed=5)
    assert bootstrap(kendall, x, y, seed=5) != bootstrap(kendall, x, y, seed=6)
    assert str(bootstrap(kendall, x, x)) == "1.00 [1.00, 1.00]"


def test_undefined_rounds_are_left_out() -> None:
    found = bootstrap(kendall, [1, 2], [1, 2], rounds=50)
    assert found == (1.0, 1.0, 1.0)
    assert math.isnan(bootstrap(kendall, [1, 1], [1, 2], rounds=5).low)


def test_the_ceiling_is_what_simulated_trainings_reach() -> None:
    random = np.random.default_rng(4)
    truth = random.standard_normal(1500)
    one, two, third = (truth + 0.5 * random.standard_normal(1500) for _ in range(3))
    found = ceiling(np.stack([one, two], axis=1))
    mean = (one + two) / 2
    assert found.single == pytest.approx(kendall(one, two))
    assert found.mean == pytest.approx(kendall(third, mean), abs=0.02)
    assert found.noiseless == pytest.approx(kendall(truth, mean), abs=0.02)
    assert found.single < found.mean < found.noiseless


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kendall([1, 2], [1, 2, 3]), "one length"),
        (lambda: kendall([1], [1]), "2 or more"),
        (lambda: spearman([1, math.nan], [1, 2]), "NaN"),
        (lambda: top_recall([1, 2], [1, 2], 3), "k is 3"),
        (lambda: bootstrap(kendall, [1, 2], [1, 2], groups=[0]), "1 groups are given for 2"),
        (lambda: bootstrap(kendall, [1, 2], [1, 2], level=1.0), "level 1.0"),
        (lambda: ceiling([[1], [2]]), "2 or more trainings"),
    ],
)
def test_misuse_is_told(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
