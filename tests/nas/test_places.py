"""Designs that cannot be told apart share a place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_ind

from nas.places import noise, places
from nas.study import Training
from nas.table import rows


def test_equal_designs_share_a_place_and_far_ones_do_not() -> None:
    samples = [[0.80, 0.82, 0.81], [0.81, 0.80, 0.82], [0.60, 0.61, 0.59]]
    assert places(samples) == [[0, 1], [2]]


def test_two_designs_alone_are_compared_by_the_t_test() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        pair = [random.normal(0, 1, 4).tolist(), random.normal(1.5, 1, 3).tolist()]
        apart = ttest_ind(*pair).pvalue < 0.05
        assert (len(places(pair)) == 2) == apart


def test_the_deviation_is_pooled_and_the_margin_is_that_of_student() -> None:
    found = noise([[0.1, 0.3], [0.5, 0.5, 0.8], [0.9]])
    assert found.freedom == 3
    assert found.deviation == pytest.approx(math.sqrt((0.02 + 0.06) / 3))
    expected = student.ppf(0.975, 3) * found.deviation * math.sqrt(1 / 2 + 1)
    assert found.margin(2, 1) == pytest.approx(expected)


def test_a_single_training_is_judged_by_the_noise_of_the_others() -> None:
    finalists = [[0.80, 0.84, 0.82], [0.81, 0.79, 0.83]]
    assert places([*finalists, [0.78], [0.60]]) == [[0, 1, 2], [3]]
    assert places([[0.9], [0.5], [0.1]]) == [[0, 1, 2]]
    assert places([]) == []


def test_no_winner_is_named_among_equals_in_95_of_100_tables() -> None:
    random = np.random.default_rng(1)
    for designs in (2, 5, 13):
        alone = 0
        for _ in range(400):
            samples = random.normal(0.5, 0.03, (designs, 3))
            samples = samples[np.argsort(-samples.mean(axis=1))]
            alone += len(places(samples.tolist())[0]) == 1
        assert alone <= 0.08 * 400


def test_a_clear_winner_is_named() -> None:
    random = np.random.default_rng(2)
    samples = random.normal(0.5, 0.01, (8, 3)) + 0.1 * (np.arange(8) == 0)[:, None]
    assert places(samples.tolist())[0] == [0]


def test_known_blocks_share_places_with_searched_ones() -> None:
    def row(key: str, repeat: int, accuracy: float, known: str | None = None) -> Training:
        facts = {"design": key, "candidate": key, "params": 1, "mults": 1, "width": 4}
        facts |= {"blocks": [1], "traffic": 1, "seconds": 0.0}
        return Training(key, repeat, {}, known, accuracy, facts=facts)

    trainings = [
        *(row("ours", repeat, 0.80 + 0.02 * repeat) for repeat in range(3)),
        *(row("old", repeat, 0.79 + 0.02 * repeat, "MobileNet") for repeat in range(3)),
        *(row("poor", repeat, 0.20 + 0.02 * repeat, "Xception") for repeat in range(3)),
        row("once", 0, 0.81),
    ]
    found = rows(trainings, {}, [])
    assert [(one.design, one.rank, one.place) for one in found] == [
        ("ours", 1, (1, 3)),
        ("old", 2, (1, 3)),
        ("once", 3, (1, 3)),
        ("poor", 4, (4, 4)),
    ]
