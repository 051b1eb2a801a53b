"""python -m benchmarks driver: what a search costs beside its trainings, and how it grows.

Figures with trainings that only take time: the driver's share of the wall time, the
throughput of two worker processes against one, and how long a study of many trials takes to open
and to propose.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, machine, peak_memory, store
from nas.budget import Refusal
from nas.datasets import load
from nas.observer import Silent
from nas.plan import Plan, plan
from nas.proposals import Proposals
from nas.run import RunFolder, Settings, settings
from nas.schedule import BRIEF
from nas.search import resume, search
from nas.study import Ledger, Training, opened
from nas.trainer import Trainer


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks driver", description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one training")
    parser.add_argument("--speed-up-trials", type=int, default=40)
    parser.add_argument("--stored", type=int, default=10_000, help="trials of the large study")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    here = machine(["optuna", "sqlalchemy"])
    result: dict[str, Any] = {"machine": here}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.trials:
            result["overhead"] = overhead(folder / "long", asked.trials, asked.seconds)
        if asked.speed_up_trials:
            result["speed_up"] = speed_up(folder, asked.speed_up_trials)
        if asked.stored:
            for sampler in ("model", "tpe"):
                result[f"large {sampler}"] = large(folder / sampler, asked.stored, sampler)
    result["peak_memory"] = peak_memory()
    store(result, asked.out / "driver.json")
    print(json.dumps(here))
    return 0


# ---- trainings that only take time -----------------------------------------------------------


def _asleep(task: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return _outcome(task, seconds)


def _at_work(task: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Computes for a fixed number of steps, about `seconds` on a quiet core."""
    start = time.perf_counter()
    total = 0
    for step in range(int(seconds * 2e7)):
        total += step
    return _outcome(task, time.perf_counter() - start)


def _outcome(task: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    accuracy = (hash((task["key"], task["repeat"])) % 10_000) / 10_000
    facts = {"accuracy": accuracy, "loss": 1.0, "curve": [accuracy], "seconds": seconds}
    return {**facts, "failure": None, "weights": bytes(200_000)}


def _judge(task: Mapping[str, Any]) -> dict[str, Any]:
    return {"accuracy": 0.5, "loss": 1.0}


def _settings(trials: int, **others: Any) -> Settings:
    asked = {"max_params": 50_000, "trials": trials, "finalists": 5, "seeds": 1}
    return settings(data="hard-digits", **(asked | others))


# ---- the three figures -----------------------------------------------------------------------


def overhead(folder: Path, trials: int, seconds: float) -> dict[str, float]:
    """The share of the wall time in which its one worker trains nothing, from start to table."""
    start, busy = time.perf_counter(), time.process_time()
    asked = _settings(trials, executor="processes")
    trainer = Trainer(partial(_asleep, seconds=seconds), _judge)
    result = search(asked, folder, trainer=trainer)
    wall, own = time.perf_counter() - start, time.process_time() - busy
    trained = sum(row.seeds for row in result.rows)
    share = (wall - trained * seconds) / wall
    print(
        f"{trained} trainings of {seconds:g} s: {wall:.1f} s, of which the driver takes "
        f"{100 * share:.1f} % ({1000 * own / trained:.0f} ms of processor time a training)"
    )
    return {"trainings": trained, "seconds": seconds, "wall": wall, "share": share, "cpu": own}


def speed_up(folder: Path, trials: int) -> dict[str, float]:
    """Trainings a second of two workers over those of one; a training computes."""
    rates = {}
    for workers in (1, 2):
        watch = _Stopwatch()
        asked = _settings(trials, workers=workers, executor="processes")
        trainer = Trainer(partial(_at_work, seconds=1.0), _judge)
        search(asked, folder / f"workers{workers}", watch, trainer=trainer)
        rates[workers] = watch.rate()
        print(f"{workers} workers: {rates[workers]:.2f} trainings a second")
    print(f"two workers give {rates[2] / rates[1]:.2f} times the throughput of one")
    return {"one": rates[1], "two": rates[2], "ratio": rates[2] / rates[1]}


class _Stopwatch(Silent):
    """When each training ended; the first ones, in which the processes start, do not count."""

    def __init__(self) -> None:
        self._ended: list[float] = []

    def finished(self, training: Training) -> None:
        self._ended.append(time.perf_counter())

    def rate(self) -> float:
        counted = self._ended[4:]
        return (len(counted) - 1) / (counted[-1] - counted[0])


def large(folder: Path, stored: int, sampler: str) -> dict[str, float]:
    """A study of many trials: processor seconds until it is open, and until the next proposal."""
    asked = _settings(stored + 1, sampler=sampler)
    build(folder, asked, stored)
    watch = _Starts()
    start = time.process_time()
    resume(folder, watch, trainer=Trainer(partial(_asleep, seconds=0.0), _judge))
    opening, proposing = watch.opened - start, watch.started_at - watch.searching
    print(
        f"{stored:,} trials, sampler {sampler}: open in {opening:.2f} s of processor time, the "
        f"next design after {proposing:.3f} s"
    )
    return {"stored": stored, "open": opening, "propose": proposing}


class _Starts(Silent):
    """When the storage is read, when the search goes on, and when it has a design; then it ends."""

    opened = searching = started_at = 0.0

    def phase(self, name: str, total: int) -> None:
        if name == "known":
            self.opened = time.process_time()
        if name == "search":
            self.searching = time.process_time()

    def started(self, design: str, known_as: str | None) -> None:
        if known_as is None:
            self.started_at = time.process_time()
            raise KeyboardInterrupt


def build(folder: Path, asked: Settings, stored: int) -> None:
    """A run with this many made-up trainings and proposals: one of each kind, copied in SQL."""
    planned = plan(asked)
    with RunFolder.create(folder) as run:
        run.begin(asked, asdict(BRIEF), load(asked.data).fingerprint)
        with opened(folder) as store:
            ledger = Ledger(store)
            proposals = Proposals(store, planned.space.genes, asked.sampler, asked.seed)
            proposal = proposals.ask()
            row = _training(planned)
            ledger.add(row)
            proposals.tell(proposal.number, row)
    genes = [(name, list(choices)) for name, choices in planned.space.genes.items()]
    with closing(sqlite3.connect(folder / "study.db")) as db, db:
        (note,) = db.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'told'")
        told, chance = json.loads(note[0]), random.Random(0)
        number = db.execute("SELECT max(trial_id) FROM trials").fetchone()[0]
        for copy in range(1, stored):
            value = chance.random()
            drawn = {name: chance.randrange(len(choices)) for name, choices in genes}
            told["genes"] = {name: choices[drawn[name]] for name, choices in genes}
            told |= {"value": value, "key": f"{row.key} {copy}"}
            facts = {**row.facts, "candidate": f"made up {copy}"}
            made = replace(row, key=f"{row.key} {copy}", accuracy=value, facts=facts)
            notes = {"row": json.dumps(vars(made)), "told": told}
            for original, (key, content) in enumerate(notes.items(), start=1):
                number += 1
                _copy(db, original, number, copy, value, (key, json.dumps(content)))
            for name, choice in drawn.items():
                db.execute(
                    "INSERT INTO trial_params (trial_id, param_name, param_value,"
                    " distribution_json) SELECT ?, param_name, ?, distribution_json"
                    " FROM trial_params WHERE trial_id = 2 AND param_name = ?",
                    (number, choice, name),
                )


def _training(planned: Plan) -> Training:
    """What a training of the first network of the space would store."""
    candidates = planned.space.candidates()
    solved = ((one, planned.solve(one)) for one in candidates)
    candidate, entry = next((one, e) for one, e in solved if not isinstance(e, Refusal))
    facts = {
        "design": entry.title,
        "candidate": str(candidate),
        "width": entry.width,
        "blocks": list(candidate.blocks),
        "params": entry.cost.params,
        "mults": entry.cost.mults,
        "traffic": entry.cost.traffic_bytes,
        "latency": None,
        "seed": 0,
        "loss": 1.0,
        "curve": [0.5],
        "seconds": 1.0,
    }
    return Training(entry.key, 0, entry.to_dict(), accuracy=0.5, facts=facts)


def _copy(
    db: sqlite3.Connection,
    original: int,
    new: int,
    number: int,
    value: float,
    note: tuple[str, str],
) -> None:
    """One more trial like `original`, in the tables of Optuna."""
    db.execute(
        "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)"
        " SELECT ?, ?, study_id, state, datetime_start, datetime_complete FROM trials"
        " WHERE trial_id = ?",
        (new, number, original),
    )
    db.execute(
        "INSERT INTO trial_values (trial_id, objective, value, value_type)"
        " VALUES (?, 0, ?, 'FINITE')",
        (new, value),
    )
    db.execute(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
        (new, *note),
    )
