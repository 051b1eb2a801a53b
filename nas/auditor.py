"""The audit of a finished run: a sample of its designs is trained for long.

    audit(Path("runs/first"), sample=12, seeds=2)      ->  Audited, and audit.json in the folder

The sample is stratified over the brief ranking and settled by the run's seed; designs without an
accuracy (failed, or stopped early) have no rank and are not in it. Every training is a
row of a ledger of its own (`nas.study`), in the storage of the run and under the name of its
schedule, so an audit that was stopped goes on where it was, and a larger sample trains only what is
new. The seeds are none that the search has used: initial weights in common would look like
agreement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas import audit as statistics
from nas.candidates import Entry
from nas.crew import Crew, MachineError
from nas.datasets import Dataset
from nas.executors import Engine
from nas.files import RunError
from nas.finals import training_seed
from nas.interrupt import Interrupts
from nas.lab import end_run, task_of
from nas.observer import Observer, Silent
from nas.plan import Plan, plan
from nas.rankings import FREE, TRIVIAL, training_free, trivial
from nas.run import RunFolder, Settings
from nas.schedule import LONG, Schedule
from nas.search import data_of, engine_for
from nas.study import Ledger, Store, Training, refusals, study_of
from nas.table import Row, rows
from nas.team import Alone, Claim, Shared, Team
from nas.trainer import TORCH, Trainer

SEEDS_FROM = 10**6
"""Repeats of the search are below; from here on those of the audit."""
GLANCE = 0.3
"""Seconds between two looks at what is under way, here or at other drivers."""


@dataclass(frozen=True)
class Audited:
    """audit.json of a run; where the audit was interrupted, without what long training says."""

    run: Path
    content: dict[str, Any]
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"run": str(self.run), **self.content, "interrupted": self.interrupted}


def audit(
    folder: Path,
    *,
    sample: int = 12,
    seeds: int = 2,
    epochs: int | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
    trainer: Trainer = TORCH,
    executor: Callable[[], Executor] | None = None,
) -> Audited:
    """Train what is missing and compare. Ctrl-C and SIGTERM give what is `interrupted`.

    epochs: in place of those of `nas.schedule.LONG`. workers: processes, those of the run unless
    given. Raises RunError for a run that is not finished or has too few designs, and as
    `nas.search.resume`.
    """
    if sample < statistics.LEAST or seeds < 1:
        raise RunError(
            f"a sample of {sample} designs with {seeds} seeds was asked for; an agreement needs "
            f"at least {statistics.LEAST} designs and one seed"
        )
    schedule = replace(LONG, epochs=epochs or LONG.epochs)
    with RunFolder.open(folder) as run:
        if run.record.finished is None:
            raise RunError(
                f"{folder} is not finished, so its ranking is not settled; "
                f"go on with leanfield search --resume {folder} first"
            )
        settings = _settings(run, schedule, workers)
        with study_of(folder, settings) as store:
            ledger = Ledger(store)
            ranked = [
                row
                for row in rows(ledger.rows, ledger.tests, refusals(store))
                if row.rank is not None
            ]
            if len(ranked) < statistics.LEAST:
                raise RunError(
                    f"{folder} has {len(ranked)} designs with an accuracy; an audit needs at "
                    f"least {statistics.LEAST}: search with more --trials"
                )
            accuracies = [row.accuracy or 0.0 for row in ranked]
            chosen = [ranked[i] for i in statistics.stratified(accuracies, sample, settings.seed)]
            planned, data = plan(settings), data_of(run)
            bench = _Bench(
                planned, run, store, schedule, trainer, engine_for(settings, data, executor)
            )
            whole = bench.train(chosen, seeds, observer or Silent())
            after_search = statistics.brief(ranked, ledger.rows, settings.seed)
            if not whole:
                content = {"schema": statistics.SCHEMA, "brief": after_search, "long": None}
                return Audited(folder, content, interrupted=True)
            compared = _compare(chosen, seeds, bench, planned, data)
            compared |= {"schedule": asdict(schedule), "seeds": seeds, "asked": sample}
            return Audited(folder, statistics.write(folder, after_search, compared))


class _Bench:
    """Trains designs by one schedule; what its ledger holds is never trained again."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        store: Store,
        schedule: Schedule,
        trainer: Trainer,
        engine: Engine,
    ) -> None:
        self._plan, self._run, self._trainer, self._engine = plan, run, trainer, engine
        self._schedule = asdict(schedule)
        self._interrupts = Interrupts()
        part = f"audit {json.dumps(self._schedule)}"
        self._ledger = Ledger(store, part)
        self._team = self._join(store, part)

    def _join(self, store: Store, part: str) -> Team:
        """Other drivers of the same study may audit it too, and share the trainings."""
        if not store.name:
            return Alone(self._run)

        def stored(key: str, repeat: int) -> bool:
            self._ledger.refresh()
            return self._ledger.get(key, repeat) is not None

        record = self._run.record.shared()
        return Shared(store.engine, f"{store.name} {part}", record, stored, store.folder)

    def reached(self, key: str, seeds: int) -> list[float | None]:
        """The accuracies of a network, None for a training that failed."""
        found = [self._ledger.get(key, repeat) for repeat in range(seeds)]
        return [None if row is None else row.accuracy for row in found]

    def train(self, chosen: Sequence[Row], seeds: int, observer: Observer) -> bool:
        """Whatever is missing, one seed of all before the next. False where it was interrupted."""
        pending = [
            (row, repeat)
            for repeat in range(seeds)
            for row in chosen
            if self._ledger.get(row.key or "", repeat) is None
        ]
        observer.phase("audit", len(pending))
        crew: Crew[_Job] = Crew(
            self._engine,
            lambda job: observer.started(job.row.design, job.row.known_as),
            self._plan.settings.trial_timeout,
        )
        ended = False
        with self._interrupts.installed():
            try:
                self._train(crew, pending, observer)
                ended = True
            except KeyboardInterrupt:
                observer.note(
                    f"interrupted; go on with the same command: leanfield audit {self._run.path}"
                )
            finally:
                crew.close(abandon=not ended)
                self._team.leave()
        return ended

    def _train(self, crew: Crew[_Job], pending: list[tuple[Row, int]], observer: Observer) -> None:
        begun: set[tuple[str, int]] = set()
        while pending:
            for row, repeat in pending:
                what = row.key or "", repeat
                if not crew.free:
                    break
                if what not in begun and self._team.claim(*what) is Claim.OURS:
                    begun.add(what)
                    job = _Job(row, self._entry(row), repeat)
                    crew.submit(job, self._trainer.train, self._task(job))
            if len(crew):
                self._receive(crew, observer)
            else:
                with self._interrupts.heard():
                    time.sleep(GLANCE)
                self._ledger.refresh()
            pending = [(row, r) for row, r in pending if self._ledger.get(row.key or "", r) is None]

    def _entry(self, row: Row) -> Entry:
        """Raises RunError where a user's own block is not what it was."""
        entry = self._plan.read(row.network or {})
        if entry.key != row.key:
            raise RunError(
                f"{entry.title} is no longer what it was when {self._run.path} was begun; "
                "start a new run"
            )
        return entry

    def _receive(self, crew: Crew[_Job], observer: Observer) -> None:
        try:
            with self._interrupts.heard():
                done = crew.next(GLANCE)
        except MachineError as error:
            end_run(error, self._run.path)
        if done is None:
            return
        job, result = done
        row = self._row(job, result)
        with self._team.storing(row.key, row.repeat) as ours:
            if ours:
                self._ledger.add(row)
        if row.reason is not None:
            observer.note(f"{job.row.design} failed: {row.reason}")
        observer.finished(row)

    def _task(self, job: _Job) -> Mapping[str, Any]:
        return task_of(
            self._plan,
            self._run,
            self._engine,
            job.entry,
            job.repeat,
            self._seed(job.repeat),
            self._schedule,
        )

    def _row(self, job: _Job, result: Mapping[str, Any]) -> Training:
        facts = {
            "design": job.row.design,
            "params": job.row.params,
            "seed": self._seed(job.repeat),
            "loss": result.get("loss"),
            "curve": list(result.get("curve", ())),
            "seconds": result.get("seconds", 0.0),
        }
        return Training(
            job.entry.key,
            job.repeat,
            job.entry.to_dict(),
            job.row.known_as,
            result.get("accuracy"),
            result.get("failure"),
            facts=facts,
        )

    def _seed(self, repeat: int) -> int:
        return training_seed(self._plan.settings.seed, SEEDS_FROM + repeat)


@dataclass(frozen=True)
class _Job:
    row: Row
    entry: Entry
    repeat: int


def _settings(run: RunFolder, schedule: Schedule, workers: int | None) -> Settings:
    """Those of the run, with other workers; its time limit grows with the length of a training."""
    own = run.record.settings
    changes: dict[str, Any] = {}
    if workers is not None:
        changes |= {"workers": workers, "executor": None, "per_gpu": None}
    if own.trial_timeout is not None:
        longer = max(1.0, schedule.epochs / int(run.record.schedule["epochs"]))
        changes["trial_timeout"] = own.trial_timeout * longer
    return own.model_copy(update=changes)


def _compare(
    chosen: Sequence[Row], seeds: int, bench: _Bench, planned: Plan, data: Dataset
) -> dict[str, Any]:
    """The agreement over the designs of which no long training failed. Raises RunError where these
    are too few."""
    from nas.threads import threads

    kept, trained, failed = [], [], []
    for row in chosen:
        reached = [value for value in bench.reached(row.key or "", seeds) if value is not None]
        if len(reached) == seeds:
            kept.append(row)
            trained.append(reached)
        else:
            failed.append(row.design)
    if len(kept) < statistics.LEAST:
        raise RunError(
            f"of {len(chosen)} designs only {len(kept)} could be trained for long; an agreement "
            f"needs at least {statistics.LEAST}"
        )
    values = []
    with threads(planned.settings.threads):
        for row in kept:
            entry = planned.proxy(planned.read(row.network or {}))
            own = {"brief": row.accuracy, **trivial(row), **training_free(entry, data)}
            values.append(own)
    columns = {name: [one[name] for one in values] for name in ("brief", *TRIVIAL, *FREE)}
    facts = [
        {
            "design": row.design,
            "known_as": row.known_as,
            "blocks": list(row.blocks or ()),
            "rank": row.rank,
            "place": list(row.place or ()),
            **own,
        }
        for row, own in zip(kept, values, strict=True)
    ]
    return {**statistics.long(facts, columns, trained, planned.settings.seed), "failed": failed}
