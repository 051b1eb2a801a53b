"""Pareto front and hypervolume, and a search with several objectives on made-up figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from fake_trainer import FAKE, Counting
from hypothesis import given
from hypothesis import strategies as st

from nas import guide
from nas.features import names
from nas.finals import leaders
from nas.objectives import checked, contribution, dominates, front, history, hypervolume, scaled
from nas.prior import Prior
from nas.run import settings
from nas.search import resume, search
from nas.study import Training
from nas.table import Row

losses = st.floats(0, 1, allow_subnormal=False)


def sets(m: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*[losses] * m), max_size=7)


@given(st.integers(2, 4).flatmap(sets))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    expected = [not any(dominates(other, one) for other in points) for one in points]
    assert front(points) == expected


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_hypervolume_is_the_share_that_is_dominated(m: int) -> None:
    draw = np.random.default_rng(m)
    points = draw.random((12, m))
    corners = draw.random((40_000, m))
    share = np.mean((points[None] <= corners[:, None]).all(axis=2).any(axis=1))
    assert hypervolume([tuple(one) for one in points.tolist()]) == pytest.approx(share, abs=0.012)


@given(st.integers(1, 4).flatmap(sets))
def test_history_ends_in_the_hypervolume_and_never_falls(points: list[tuple[float, ...]]) -> None:
    found = history([*points, None])
    assert found[-1] == pytest.approx(hypervolume(points), abs=1e-12)
    assert all(a <= b + 1e-15 for a, b in pairwise(found))


def test_contribution_of_a_dominated_point_is_nothing() -> None:
    assert contribution((0.5, 0.5), [(0.4, 0.5)]) == pytest.approx(0)
    assert hypervolume([(1.0, 0.0)]) == 0.0 and hypervolume([]) == 0.0


def test_a_network_at_its_limit_counts() -> None:
    assert 0 < scaled(50, 50) < 1 and scaled(200, 50) == 1 and scaled(1, 50) == 0


@pytest.mark.parametrize("wrong", [(), ("params",), ("accuracy", "size"), ("accuracy",) * 2])
def test_wrong_objectives_are_named(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"valid are accuracy and, each once, any of params"):
        checked(wrong)


# ---- a search ----------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "data": "digits",
    "max_params": 4000,
    "trials": 10,
    "finalists": 3,
    "seeds": 2,
    "objectives": ("accuracy", "mults", "params"),
    "sampler": "tpe",
    "early_stopping": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("several") / "run"
    search(settings(**SMALL), run, trainer=FAKE)
    return run


def complete(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.state == "complete"]


def costs(row: Row) -> tuple[float, float, float]:
    return 1 - (row.accuracy or 0.0), row.params or 0, row.mults or 0


def test_widths_vary_and_the_front_is_marked(folder: Path) -> None:
    rows = complete(resume(folder).rows)
    searched = [row for row in rows if row.known_as is None]
    assert min(row.params or 0 for row in searched) < 2000 < max(r.params or 0 for r in searched)
    for row in rows:
        assert row.front == (not any(dominates(costs(other), costs(row)) for other in rows))


def test_hypervolume_is_stored_over_time(folder: Path) -> None:
    table = pd.read_parquet(folder / "trials.parquet")
    done = table[table["state"] == "complete"]
    assert done["front"].isin([True, False]).all()
    assert done["hypervolume"].between(0, 1).all() and done["hypervolume"].nunique() > 2
    assert json.loads(json.dumps(resume(folder).to_dict()))["trials"][0]["hypervolume"] > 0


def test_the_study_has_the_objectives(folder: Path) -> None:
    for name in ("trainings", "search"):
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / 'study.db'}")
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
        finished = [trial for trial in study.trials if trial.values is not None]
        assert finished and all(len(trial.values) == 3 for trial in finished)


def test_finalists_are_on_the_front(folder: Path) -> None:
    rows = complete(resume(folder).rows)
    finalists = [row for row in rows if row.known_as is None and row.seeds == 2]
    assert 1 <= len(finalists) <= 3


def row(key: str, accuracy: float, params: int, known_as: str | None = None) -> Training:
    return Training(key, 0, {}, known_as, accuracy, facts={"params": params})


def test_leaders_spread_over_the_front() -> None:
    rows = [
        row("large", 0.9, 4000),
        row("nearly as large", 0.89, 3900),
        row("small", 0.7, 500),
        row("poor", 0.6, 600),
    ]
    assert [one.key for one in leaders(rows, 2)] == ["large", "nearly as large"]
    several = ("accuracy", "params")
    assert {one.key for one in leaders(rows, 2, several)} == {"large", "small"}
    assert len(leaders(rows, None, several)) == 3
    beaten = [*rows, row("known", 0.95, 400, "ResNet")]
    assert leaders(beaten, 2, several) == []


@pytest.fixture
def small_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up expectations in place of those of SparseKernelBench."""
    raw = np.random.default_rng(0).normal(size=(20, len(names())))
    monkeypatch.setattr(guide, "bundled", lambda: Prior.fit(raw, 0.5 + raw[:, 3] / 10))


@pytest.mark.slow
@pytest.mark.usefixtures("small_prior")
@pytest.mark.parametrize("sampler", ["model", "tpe", "nsga2", "random"])
@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "params", "mults")])
def test_a_killed_search_goes_on_with_the_same_proposals(
    sampler: str, objectives: tuple[str, ...], tmp_path: Path
) -> None:
    changes = {"sampler": sampler, "objectives": objectives, "trials": 6, "finalists": 1}
    asked = settings(**{**SMALL, **changes, "seeds": 1})
    whole = search(asked, tmp_path / "whole", trainer=FAKE)
    searched: list[str] = []

    def die(number: int, task: Mapping[str, Any]) -> None:
        if task["network"]["known_as"] is None:
            searched.append(task["key"])
            if len(searched) == 4:
                raise KeyboardInterrupt

    stopped = search(asked, tmp_path / "run", trainer=Counting(die).trainer)
    assert stopped.interrupted and len(searched) == 4
    again = resume(tmp_path / "run", trainer=FAKE)
    assert [(r.design, r.width) for r in again.rows] == [(r.design, r.width) for r in whole.rows]


@pytest.mark.slow
@pytest.mark.usefixtures("small_prior")
def test_the_model_never_asks_for_a_network_twice(tmp_path: Path) -> None:
    counting = Counting()
    asked = {"sampler": "model", "objectives": ("accuracy",), "trials": 60, "finalists": 1}
    result = search(settings(**{**SMALL, **asked, "seeds": 1}), tmp_path / "run",
                    trainer=counting.trainer)  # fmt: skip
    keys = [task["key"] for task in counting.trained if task["repeat"] == 0]
    assert len(set(keys)) == len(keys) and len(complete(result.rows)) == len(keys)
    url = f"sqlite:///{tmp_path / 'run' / 'study.db'}"
    asked_for = optuna.load_study(study_name="search", storage=url).trials
    assert len(asked_for) == 60
