"""The whole search on made-up figures, and once on real trainings."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from fake_trainer import FAKE, Counting

from nas import choosing
from nas.budget import BudgetError
from nas.datasets import load
from nas.files import RunError
from nas.plan import read_task
from nas.result import Result
from nas.run import Settings, settings
from nas.search import resume, search
from nas.study import Training
from nas.table import Row, table
from nas.trainer import train_network

SMALL = {"data": "digits", "max_params": 1500, "trials": 3, "finalists": 2, "seeds": 2}
NINE = {"include": ("GC(2)+PW",), "exclude": ("DW", "GC+PWG")}
"""A space of one design in two stages of 1, 2 or 3 blocks."""


def asked(**changes: Any) -> Settings:
    return settings(**{**SMALL, **changes})


def trained(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.state != "infeasible"]


def searched(rows: list[Row]) -> list[Row]:
    return [row for row in trained(rows) if row.known_as is None]


def figures(rows: list[Row]) -> list[dict[str, Any]]:
    """All but wall time."""
    return [{**row.to_dict(), "seconds": None} for row in rows]


def proposals(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    return study.trials


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Counting]:
    folder = tmp_path_factory.mktemp("finished") / "run"
    counting = Counting()
    return search(asked(trials=6), folder, trainer=counting.trainer), counting


def test_table_is_ranked_and_complete(finished: tuple[Result, Counting]) -> None:
    rows = trained(finished[0].rows)
    assert len(searched(rows)) == 6
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    assert finished[0].best == rows[0]
    order = [(row.place, -row.seeds, -(row.accuracy or 0)) for row in rows]
    assert order == sorted(order)
    assert {row.known_as for row in rows} >= {"Xception", "MobileNet", "ResNet basic"}


def test_finalists_and_known_blocks_get_the_same_number_of_seeds(
    finished: tuple[Result, Counting],
) -> None:
    rows = trained(finished[0].rows)
    assert {row.seeds for row in rows if row.known_as} == {2}
    assert Counter(row.seeds for row in searched(rows)) == {2: 2, 1: 4}
    for row in rows:
        assert (row.accuracy_std is not None) == (row.test_accuracy is not None) == (row.seeds == 2)


def test_the_same_seeds_and_schedule_for_everyone(finished: tuple[Result, Counting]) -> None:
    tasks = finished[1].trained
    assert len({json.dumps(task["schedule"]) for task in tasks}) == 1
    assert len({task["seed"] for task in tasks}) == 2


def test_nothing_is_trained_twice(finished: tuple[Result, Counting]) -> None:
    done = Counter((json.dumps(t["network"]), t["seed"]) for t in finished[1].trained)
    assert set(done.values()) == {1}
    assert sum(done.values()) == sum(row.seeds for row in trained(finished[0].rows))


@pytest.mark.slow
def test_the_test_split_is_read_once_and_last(tmp_path: Path) -> None:
    order: list[str] = []
    counting = Counting(lambda number, task: order.append("train"))
    trainer = counting.trainer._replace(
        judge=lambda task: order.append("judge") or FAKE.judge(task)
    )
    result = search(asked(), tmp_path / "run", trainer=trainer)
    finals = sum(row.seeds for row in result.rows if row.test_accuracy is not None)
    assert order == ["train"] * len(counting.trained) + ["judge"] * finals


def test_no_design_over_budget_is_trained_and_the_sampler_is_told(tmp_path: Path) -> None:
    counting = Counting()
    result = search(
        asked(max_params=700, trials=6, seeds=1, sampler="tpe"),
        tmp_path / "run",
        trainer=counting.trainer,
    )
    assert all(row.params <= 700 for row in trained(result.rows))
    refused = [t for t in proposals(tmp_path / "run") if t.user_attrs["told"]["refused"]]
    assert refused and all(t.state.name == "PRUNED" and t.constraints for t in refused)
    infeasible = [row for row in result.rows if row.state == "infeasible"]
    assert infeasible and all(row.reason and row.rank is None for row in infeasible)
    designs = {(task["network"]["design"], *task["network"]["blocks"]) for task in counting.trained}
    assert not designs & {(row.design, *row.blocks) for row in infeasible if not row.known_as}


def test_an_exhausted_space_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "PATIENCE", 4)
    counting = Counting()
    result = search(
        asked(**NINE, trials=50, seeds=1, max_params=20_000, sampler="tpe"),
        tmp_path / "run",
        trainer=counting.trainer,
    )
    assert len(searched(result.rows)) == 9
    assert any("the space is exhausted" in note for note in result.notes)
    told = [t for t in proposals(tmp_path / "run") if t.user_attrs["told"]["same_as"]]
    assert told and all(t.state.name == "COMPLETE" for t in told)
    values = {row.key: row.accuracy for row in result.rows}
    assert all(t.value == values[t.user_attrs["told"]["same_as"]] for t in told)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nsga2", "random", "gp"])
def test_other_samplers(sampler: str, tmp_path: Path) -> None:
    result = search(asked(sampler=sampler, seeds=1), tmp_path / "run", trainer=FAKE)
    assert len(searched(result.rows)) == 3


@pytest.mark.slow
def test_another_seed_proposes_other_designs(tmp_path: Path) -> None:
    runs = [search(asked(seed=s, trials=4), tmp_path / str(s), trainer=FAKE) for s in (0, 1)]
    first, second = ({row.key for row in searched(run.rows)} for run in runs)
    assert first != second


def test_failed_trainings_count_and_keep_their_reason(tmp_path: Path) -> None:
    def before(number: int, task: Mapping[str, Any]) -> dict[str, Any] | None:
        if task["network"]["known_as"] == "MobileNet":
            raise RuntimeError("no luck")
        if task["network"]["known_as"] is None:
            return {"accuracy": None, "failure": "training loss nan at step 3 of 4"}
        return None

    result = search(asked(), tmp_path / "run", trainer=Counting(before).trainer)
    failed = [row for row in result.rows if row.state == "failed"]
    assert {row.reason for row in failed if row.known_as is None} == {
        "training loss nan at step 3 of 4"
    }
    assert len(searched(failed)) == 3
    (known,) = [row for row in failed if row.known_as]
    assert known.known_as == "MobileNet" and "RuntimeError: no luck" in str(known.reason)
    assert result.best is not None and result.best.known_as


def test_a_module_that_is_not_what_was_counted_is_not_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nas import trainer as module

    read = module.entry_from_dict

    def wider(network: dict[str, Any]) -> Any:
        entry, other = read(network), read(network)
        built = read({**network, "width": 2 * entry.width})
        monkeypatch.setattr(type(other), "module", lambda self, seed: built.network.module())
        return other

    monkeypatch.setattr(module, "entry_from_dict", wider)
    network = {"schema": 1, "layout": "fog", "design": "DW+PW", "inner": [], "known_as": None}
    network |= {"blocks": [1], "width": 8, "input": [1, 8, 8], "classes": 10}
    with pytest.raises(ArithmeticError, match=r"internal error: .* was counted at .* not trained"):
        train_network({"network": network, "seed": 0})


@pytest.mark.parametrize(
    ("number", "at"),
    [
        (signal.SIGINT, 8),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 12, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 15, marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_is_as_if_it_had_not_been(
    number: signal.Signals, at: int, tmp_path: Path, finished: tuple[Result, Counting]
) -> None:
    def before(count: int, task: Mapping[str, Any]) -> None:
        if count == at:
            os.kill(os.getpid(), number)
            time.sleep(10)

    handlers = signal.getsignal(number)
    folder = tmp_path / "run"
    early = search(asked(trials=6), folder, trainer=Counting(before).trainer)
    assert early.interrupted and signal.getsignal(number) is handlers
    assert sum(row.seeds for row in early.rows) == at - 1
    assert figures(table(folder)) == figures(early.rows)
    assert len(pd.read_parquet(folder / "trials.parquet")) == len(early.rows)
    assert {t.state.name for t in proposals(folder)} <= {"COMPLETE", "PRUNED"}

    counting = Counting()
    late = resume(folder, trainer=counting.trainer)
    assert not late.interrupted
    assert figures(late.rows) == figures(finished[0].rows)
    assert len(counting.trained) == len(finished[1].trained) - (at - 1)


def test_a_finished_run_is_only_shown(finished: tuple[Result, Counting]) -> None:
    result = finished[0]
    counting = Counting()
    again = resume(result.run, trainer=counting.trainer)
    assert figures(again.rows) == figures(result.rows) == figures(table(result.run))
    assert counting.trained == counting.judged == []
    assert not (result.run / "weights").exists()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    def before(count: int, task: Mapping[str, Any]) -> None:
        if count == 9:
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "run"
    with pytest.raises(RunError, match=r"no space is left on the disk; .* --resume"):
        search(asked(), folder, trainer=Counting(before).trainer)
    assert sum(row.seeds for row in table(folder)) == 8
    assert len(searched(resume(folder, trainer=FAKE).rows)) == 3


def test_changed_data_is_refused(tmp_path: Path) -> None:
    def stop(count: int, task: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    folder = tmp_path / "run"
    search(asked(), folder, trainer=Counting(stop).trainer)
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data_fingerprint": "other"}))
    with pytest.raises(RunError, match="the data has changed since"):
        resume(folder, trainer=FAKE)


def test_an_impossible_budget_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="the nearest is"):
        search(asked(max_params=20), tmp_path / "run", trainer=FAKE)
    with pytest.raises(BudgetError, match="which takes"):
        search(asked(max_latency=1e-7), tmp_path / "run", trainer=FAKE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_limits_hold_for_the_deployed_network(tmp_path: Path) -> None:
    counting = Counting()
    chosen = asked(max_params=None, max_mults=30_000_000, deploy="3x64x64:100", trials=2, seeds=1)
    result = search(chosen, tmp_path / "run", trainer=counting.trainer)
    for row in trained(result.rows):
        assert row.mults <= 30_000_000
        assert row.network["input"] == [3, 64, 64] and len(row.blocks) == 3
    for task in counting.trained:
        assert task["network"]["input"] == [1, 8, 8] and task["network"]["classes"] == 10
    sizes = {(row.design, row.blocks, row.width) for row in trained(result.rows)}
    for task in counting.trained:
        n = task["network"]
        assert (n["design"], tuple(n["blocks"]), n["width"]) in sizes


@pytest.mark.parametrize("text", ["3x224x224", "0x8x8:10", "3x8x8:1", "axbxc:d", ""])
def test_a_task_that_does_not_read(text: str) -> None:
    with pytest.raises(RunError, match="3x224x224:1000"):
        read_task(text)


@pytest.mark.slow
def test_latency_is_a_limit_and_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas import latency

    timed: Counter[str] = Counter()

    def seconds(self: object, entry: Any) -> float:
        timed[entry.key] += 1
        return float(entry.cost.mults) * 1e-8

    monkeypatch.setattr(latency.Stopwatch, "__call__", seconds)

    def stop(count: int, task: Mapping[str, Any]) -> None:
        if count == 9:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    chosen = asked(max_latency=5e-4, seeds=1, trials=4)
    search(chosen, tmp_path / "run", trainer=Counting(stop).trainer)
    result = resume(tmp_path / "run", trainer=FAKE)
    rows = trained(result.rows)
    assert all(row.latency is not None and row.latency <= 5e-4 for row in rows)
    assert len(searched(rows)) == 4
    assert max(timed[row.key] for row in rows) == 1
    assert len(timed) > len(rows), "the limit of latency made no difference"


@pytest.mark.slow
def test_a_rival_competes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_blocks.py").write_text(
        "from torch import nn\n\n\n"
        "class Plain(nn.Sequential):\n"
        "    def __init__(self, c, f, stride):\n"
        "        super().__init__(nn.Conv2d(c, f, 3, stride, 1), nn.ReLU())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = search(
        asked(rivals=("our_blocks:Plain",), epochs=1, trials=1, seeds=1), tmp_path / "run"
    )
    (row,) = [row for row in result.rows if row.known_as == "rival"]
    assert row.design == "our_blocks:Plain" and row.params <= 1500 and row.test_accuracy is not None


def test_the_observer_hears_everything(tmp_path: Path) -> None:
    heard: list[tuple[Any, ...]] = []

    class Ear:
        def phase(self, name: str, total: int) -> None:
            heard.append(("phase", name, total))

        def started(self, design: str, known_as: str | None) -> None:
            heard.append(("started", design))

        def finished(self, training: Training) -> None:
            heard.append(("finished", training.facts["design"]))

        def note(self, text: str) -> None:
            heard.append(("note", text))

    result = search(asked(), tmp_path / "run", Ear(), trainer=FAKE)
    phases = {words[1]: words[2] for words in heard if words[0] == "phase"}
    assert list(phases) == ["known", "search", "finals", "test"] and phases["search"] == 3
    done = [words for words in heard if words[0] == "finished"]
    assert len(done) == sum(row.seeds for row in result.rows)


def test_the_same_seed_gives_the_same_table_twice(tmp_path: Path) -> None:
    """Real trainings, to the last bit; and the winners' files hold what was measured."""
    from safetensors.torch import load_file

    from nas.candidates import Sized
    from nas.train import evaluate

    chosen = asked(epochs=1, trials=2, seeds=1)
    runs = [search(chosen, tmp_path / name) for name in ("a", "b")]
    assert figures(runs[0].rows) == figures(runs[1].rows)
    best = runs[0].best
    assert best is not None and best.rank == 1
    (winner,) = (tmp_path / "a" / "winners").glob("01-*")
    spec = json.loads((winner / "network.json").read_text())
    module = Sized.from_dict(spec["trained"]).module()
    assert sum(p.numel() for p in module.parameters()) == best.params <= 1500
    module.load_state_dict(load_file(winner / "weights.safetensors"))
    data = load("digits")
    assert evaluate(module, data.validation)[0] == best.accuracy
    assert evaluate(module, data.test)[0] == best.test_accuracy
    assert [file.suffix for file in winner.iterdir()].count(".py") == 1
