"""Early stopping: the floors, a training that meets one, and a search that stores what was
stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_trainer import FAKE, Counting, figure

from nas.datasets import load
from nas.run import settings
from nas.schedule import Schedule
from nas.search import resume, search
from nas.stopping import (
    ENOUGH,
    ETA,
    NEVER,
    Curve,
    bar,
    dominated_floors,
    foreseen,
    halving_floors,
    line,
    rungs,
)
from nas.table import Row
from nas.train import seeded, train
from nas.trainer import Trainer

JUDGED = (1, 2, 4)


def curves(count: int) -> list[Curve]:
    """The end is twice the first accuracy, plus or minus 0.01."""
    return [{1: i / 100, 2: i / 80, 4: i / 50 + 0.01 * (-1) ** i} for i in range(count)]


@pytest.mark.parametrize("epochs", range(1, 60))
def test_rungs_rise_to_the_end(epochs: int) -> None:
    found = rungs(epochs)
    assert found[-1] == epochs and list(found) == sorted(set(found)) and found[0] >= 1
    assert found[0] <= math.ceil(epochs / 8)


def test_halving_lets_the_best_part_go_on() -> None:
    some = curves(3 * ENOUGH)
    for rung, floor in halving_floors(some, JUDGED).items():
        on = sum(curve[rung] >= floor for curve in some)
        assert on == pytest.approx(len(some) / ETA, abs=1)


def test_nothing_is_stopped_before_enough_is_known() -> None:
    few = curves(ENOUGH - 1)
    assert set(halving_floors(few, JUDGED).values()) == {NEVER}
    assert set(dominated_floors(few, 0.9, JUDGED).values()) == {NEVER}
    assert halving_floors(curves(ENOUGH), (4,)) == {}


def test_a_network_competes_with_those_that_cost_no_more() -> None:
    finished = [(0.9, (200, 5)), (0.8, (100, 5)), (0.7, (50, 9))]
    assert bar((200, 5), finished) == 0.9
    assert bar((150, 7), finished) == 0.8
    assert bar((150, 4), finished) == NEVER


def test_the_floor_is_where_an_optimist_still_hopes() -> None:
    floor = dominated_floors(curves(40), 0.5, JUDGED)[1]
    assert 0.235 < floor < 0.25
    assert dominated_floors(curves(40), NEVER, JUDGED) == {1: NEVER, 2: NEVER}


def test_a_curve_that_says_nothing_stops_nothing() -> None:
    falling = [{1: i / 100, 4: 1 - i / 100} for i in range(20)]
    level: list[Curve] = [{1: 0.5, 4: i / 100} for i in range(20)]
    assert line(falling, 1, 4) is None and line(level, 1, 4) is None


def test_the_end_is_foreseen_from_the_last_rung() -> None:
    assert foreseen({1: 0.2}, line(curves(40), 1, 4)) == pytest.approx(0.4, abs=0.01)
    assert foreseen({1: 0.2}, line(curves(2), 1, 4)) == 0.2


def test_a_training_ends_below_its_floor_and_is_the_same_until_then() -> None:
    from torch import nn

    data, schedule = load("digits"), Schedule(epochs=3)

    def outcome(floors: Mapping[int, float]) -> Any:
        with seeded(0):
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        return train(model, data, schedule, 0, floors=floors)

    free = outcome({1: NEVER, 2: NEVER})
    assert free.stopped is None and len(free.curve) == 3
    stopped = outcome({1: NEVER, 2: 1.1})
    assert stopped.stopped == 2 and stopped.curve == free.curve[:2]
    assert stopped.accuracy == free.curve[1] and stopped.failure is None
    assert outcome({1: free.curve[0]}).stopped is None  # at the floor it goes on


# ---- a search ----------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "data": "digits",
    "max_params": 1500,
    "trials": 12,
    "finalists": 2,
    "seeds": 2,
    "epochs": 8,
    "sampler": "random",
}


def staged(task: Mapping[str, Any]) -> dict[str, Any]:
    """Trains in steps: the accuracy after e of E epochs is (e / E)^1/4 of the end."""
    end, epochs = figure(task, "validation"), task["schedule"]["epochs"]
    curve = []
    for epoch, floor in [*task["rungs"], [epochs, None]]:
        curve.append(end * (epoch / epochs) ** 0.25)
        if floor is not None and curve[-1] < floor:
            told = {"accuracy": curve[-1], "stopped": epoch, "weights": None}
            return {**FAKE.train(task), **told, "curve": curve}
    return {**FAKE.train(task), "curve": curve}


STAGED = Trainer(staged, FAKE.judge)


def figures(rows: list[Row]) -> list[dict[str, Any]]:
    return [{**row.to_dict(), "seconds": None} for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    search(settings(**SMALL), run, trainer=STAGED)
    return run


def test_stopped_networks_are_stored_and_ranked_behind_all_others(folder: Path) -> None:
    rows = resume(folder).rows
    stopped = [row for row in rows if row.state == "stopped"]
    assert len(stopped) >= 3
    for row in stopped:
        assert row.rank is None and row.accuracy is None and row.known_as is None
        assert "of 8 epochs" in (row.reason or "") and "is below" in (row.reason or "")
    order = [row.state for row in rows if row.state != "infeasible"]
    assert order == sorted(order, key=["complete", "stopped", "failed"].index)
    assert len([row for row in rows if row.state != "infeasible" and not row.known_as]) == 12


@pytest.mark.slow
def test_known_blocks_and_further_seeds_are_never_stopped(tmp_path: Path) -> None:
    counting = Counting(lambda number, task: staged(task))
    search(settings(**SMALL), tmp_path / "run", trainer=counting.trainer)
    for task in counting.trained:
        floors = [floor for _, floor in task["rungs"]]
        if task["repeat"]:
            assert floors == []
        elif task["network"]["known_as"]:
            assert floors == [None] * (len(rungs(8)) - 1)
    searched = [t for t in counting.trained if not t["repeat"] and not t["network"]["known_as"]]
    assert all(isinstance(floor, float) for _, floor in searched[-1]["rungs"])


def test_the_study_says_pruned_with_the_rung(folder: Path) -> None:
    study = optuna.load_study(study_name="trainings", storage=f"sqlite:///{folder / 'study.db'}")
    pruned = [t for t in study.trials if t.state.name == "PRUNED" and t.intermediate_values]
    stopped = [row for row in resume(folder).rows if row.state == "stopped"]
    assert len(pruned) == len(stopped)
    for trial in pruned:
        ((rung, accuracy),) = trial.intermediate_values.items()
        assert rung in rungs(8)[:-1] and 0 <= accuracy <= 1


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "params")])
def test_resuming_is_exact(objectives: tuple[str, ...], tmp_path: Path) -> None:
    asked = settings(**{**SMALL, "objectives": objectives, "sampler": "tpe"})
    whole = search(asked, tmp_path / "whole", trainer=STAGED)
    seen: list[str] = []

    def die(number: int, task: Mapping[str, Any]) -> Any:
        seen.append(task["key"])
        if task["network"]["known_as"] is None and len(seen) == 16:
            raise KeyboardInterrupt
        return staged(task)

    stopped = search(asked, tmp_path / "run", trainer=Counting(die).trainer)
    assert stopped.interrupted and stopped.rows
    again = resume(tmp_path / "run", trainer=STAGED)
    assert figures(again.rows) == figures(whole.rows)
    assert any(row.state == "stopped" for row in whole.rows)


def test_without_early_stopping_everything_is_trained_to_its_end(tmp_path: Path) -> None:
    result = search(settings(**SMALL, early_stopping=False), tmp_path / "run", trainer=STAGED)
    assert not any(row.state == "stopped" for row in result.rows)


def test_a_short_schedule_says_that_nothing_is_stopped(tmp_path: Path) -> None:
    asked = settings(**{**SMALL, "epochs": 3, "trials": 2})
    result = search(asked, tmp_path / "run", trainer=STAGED)
    assert any("fewer than 4 epochs" in note for note in result.notes)
