"""The process against scikit-learn's, the improvement against sampling, the model's choices."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from nas.acquisition import expected_improvement, improvement
from nas.budget import Refusal, solve
from nas.candidates import Candidate, Entry, Sized, Task
from nas.features import features, names
from nas.limits import Limits
from nas.model import Known, Model, scores
from nas.objectives import hypervolume
from nas.prior import Prior
from nas.space import SHARES, Space, space_for
from nas.surrogate import Hyper, Process

TASK, LIMITS = Task((1, 16, 16), 10), Limits(params=5_000)
FIXED = Hyper(slope=0.0, scale=0.7, length=2.0, noise=0.1)


def observed(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Networks with 3 features, what is expected of them, and what they reached."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 3))
    p = x[:, 0]
    return x, p, 0.6 + 0.05 * p + 0.03 * np.sin(x[:, 1]) + 0.005 * draw.normal(size=n)


def test_predictions_are_those_of_scikit_learn() -> None:
    x, p, y = observed(20)
    new, q, _ = observed(7, seed=1)
    process = Process.fit(x, p, y, 0.05, grid=[FIXED])
    mean, deviation = process.predict(new, q)
    kernel = ConstantKernel(1.0) + ConstantKernel(0.7) * Matern(2.0, nu=2.5) + WhiteKernel(0.1)
    rest = (y - process.centre) / process.unit - p
    other = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(x, rest)
    expected, spread = other.predict(new, return_std=True)
    noiseless = np.sqrt(spread**2 - 0.1)
    np.testing.assert_allclose(mean, process.centre + process.unit * (q + expected), rtol=1e-8)
    np.testing.assert_allclose(deviation, process.unit * noiseless, rtol=1e-6)


def test_before_anything_is_trained_the_prior_speaks() -> None:
    x, p, _ = observed(9)
    process = Process.fit(x[:0], p[:0], np.empty(0), 0.05)
    mean, deviation = process.predict(x, p)
    assert list(np.argsort(mean)) == list(np.argsort(p))
    assert (deviation > 0).all()


def test_where_the_prior_is_wrong_the_process_learns_it() -> None:
    x, p, y = observed(60)
    process = Process.fit(x, -p, y, 0.05)
    new, q, reached = observed(40, seed=2)
    mean, _ = process.predict(new, -q)
    assert np.corrcoef(mean, reached)[0, 1] > 0.8


def test_what_is_under_way_changes_certainty_only() -> None:
    x, p, y = observed(20)
    new, q, _ = observed(5, seed=3)
    process = Process.fit(x, p, y, 0.05)
    expecting = process.expecting(new[:2], q[:2])
    before, after = process.predict(new, q), expecting.predict(new, q)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    assert (after[1][:2] < before[1][:2]).all() and (after[1] <= before[1] + 1e-12).all()


def test_expected_improvement_is_the_mean_of_samples() -> None:
    samples = np.random.default_rng(0).normal(0.6, 0.1, 200_000)
    found = float(expected_improvement(np.array([0.6]), np.array([0.1]), 0.65)[0])
    assert found == pytest.approx(np.maximum(samples - 0.65, 0).mean(), rel=0.02)


def test_improvement_is_that_of_the_hypervolume() -> None:
    """A candidate that surely reaches an accuracy gains what it adds to the hypervolume."""
    accuracy, costs = np.array([0.5, 0.7]), np.array([[0.2, 0.5], [0.6, 0.3]])
    new = np.array([[0.3, 0.2], [0.7, 0.9], [0.1, 0.1]])
    reached = np.array([0.6, 0.65, 0.4])
    found = improvement(reached, np.full(3, 1e-9), new, accuracy, costs, seed=0)
    # Where no network lies within a limit, the least prediction is what has to be beaten.
    base = [*zip(1 - accuracy, *costs.T, strict=True), (1 - 0.4, 0.0, 0.0)]
    volumes = [
        hypervolume([*base, (1 - r, *c)]) - hypervolume(base)
        for r, c in zip(reached, new.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, volumes, atol=0.03)
    assert found[0] > 0.03 and (found[1:] < 1e-8).all()  # the others are dominated


def networks(space: Space, count: int) -> Iterator[Sized]:
    draw = random.Random(5)
    for _ in range(count):
        genes = {name: draw.choice(choices) for name, choices in space.genes.items()}
        if isinstance(entry := settle(space.decode(genes)), Sized):
            yield entry


def settle(candidate: Candidate) -> Entry | Refusal:
    return solve(candidate, TASK, LIMITS.part(candidate.share))


def truth(entry: Sized) -> float:
    """Wider kernels and more blocks are better, which the prior does not know."""
    one = dict(zip(names(), features(entry), strict=True))
    return 0.4 + 0.05 * one["side"] + 0.02 * one["depth"] - 0.01 * one["inner"]


@pytest.fixture(scope="module")
def space() -> Space:
    return space_for(TASK, LIMITS, 3)


@pytest.fixture(scope="module")
def prior(space: Space) -> Prior:
    raw = np.array([features(entry) for entry in networks(space, 40)])
    return Prior.fit(raw, np.random.default_rng(0).normal(0.5, 0.1, len(raw)))


def test_features_have_names_and_are_finite(space: Space) -> None:
    for entry in networks(space_for(TASK, LIMITS, 3, vocabulary=["all"]), 30):
        vector = features(entry)
        assert vector.shape == (len(names()),) and np.isfinite(vector).all()


def test_sizes_count_relative_to_the_space(space: Space, prior: Prior) -> None:
    raw = np.array([features(entry) for entry in networks(space, 10)])
    larger = raw + np.array([3.0 if name in ("params", "mults") else 0.0 for name in names()])
    here, there = prior.standardised(raw, raw), prior.standardised(larger, larger)
    np.testing.assert_allclose(here, there)


def chosen(model: Model, count: int, known: list[Known], costs: bool = False) -> list[str]:
    """Keys of so many choices, each trained before the next is chosen."""
    keys = []
    references = [5_000.0] if costs else []
    for number in range(len(known), len(known) + count):
        done = {one.key for one in known}
        option = model.choose(known, {}, done, [], references, number)
        assert option is not None
        entry = settle(model._space.decode(option.genes))
        assert isinstance(entry, Sized) and entry.key == option.key
        spent = (float(entry.cost.params),) if costs else ()
        known.append(Known(option.key, entry, truth(entry), spent))
        keys.append(option.key)
    return keys


@pytest.mark.slow
def test_choices_depend_on_seed_and_results_only(space: Space, prior: Prior) -> None:
    def nothing(entry: Sized) -> tuple[float, ...]:
        return ()

    whole: list[Known] = []
    keys = chosen(Model(space, settle, nothing, "0", prior), 6, whole)
    assert len(set(keys)) == 6
    resumed = chosen(Model(space, settle, nothing, "0", prior), 3, whole[:3])
    assert resumed == keys[3:]
    assert chosen(Model(space, settle, nothing, "1", prior), 6, []) != keys


@pytest.mark.slow
def test_the_model_is_better_than_chance(space: Space, prior: Prior) -> None:
    known: list[Known] = []
    chosen(Model(space, settle, lambda entry: (), "0", prior), 16, known)
    pool = [truth(entry) for entry in networks(space, 150)]
    best = max(one.accuracy for one in known)
    assert sum(one >= best for one in pool) <= 0.02 * len(pool)


@pytest.mark.slow
def test_with_costs_as_objectives_sizes_vary(prior: Prior) -> None:
    space = space_for(TASK, LIMITS, 3, shares=SHARES)
    known: list[Known] = []
    model = Model(space, settle, lambda entry: (float(entry.cost.params),), "0", prior)
    chosen(model, 10, known, costs=True)
    sizes = [one.costs[0] for one in known]
    assert min(sizes) < 1_300 and max(sizes) > 2_500


def test_a_closed_space_has_no_choice(prior: Prior) -> None:
    one = space_for(TASK, LIMITS, 2, include=["GC(2)+PW"], exclude=["DW", "GC+PWG"])
    model = Model(one, settle, lambda entry: (), "0", prior)
    known: list[Known] = []
    while (
        option := model.choose(known, {}, {k.key for k in known}, [], [], len(known))
    ) is not None:
        entry = settle(one.decode(option.genes))
        assert isinstance(entry, Sized)
        known.append(Known(option.key, entry, 0.5))
    assert len({k.key for k in known}) == len(known) > 3


def test_scores_without_any_training() -> None:
    raw = np.random.default_rng(0).normal(size=(12, len(names())))
    prior = Prior.fit(raw, raw[:, 4])
    x, nothing = prior.standardised(raw, raw), np.empty((0, 0))
    found = scores(prior, x, np.empty((12, 0)), x[:0], nothing, np.empty(0), x[:0], 0)
    assert int(np.argmax(found)) == int(np.argmax(prior.expected(x)))
