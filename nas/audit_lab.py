"""The long trainings of an audit, each stored at once.

Every training is a row of a ledger of its own (`nas.study`), in the storage of the run and under
the name of its schedule, so an audit that was stopped goes on where it was, and a larger sample
trains only what is new. The seeds are none that the search has used: initial weights in common
would look like agreement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.candidates import Entry
from nas.crew import Crew, MachineError
from nas.executors import Engine
from nas.files import RunError
from nas.finals import training_seed
from nas.interrupt import Interrupts
from nas.lab import end_run, task_of
from nas.observer import Observer
from nas.plan import Plan
from nas.run import RunFolder
from nas.schedule import Schedule
from nas.study import Ledger, Store, Training
from nas.table import Row
from nas.team import Alone, Claim, Shared, Team
from nas.trainer import Trainer

SEEDS_FROM = 10**6
"""Repeats of the search are below; from here on those of the audit."""
GLANCE = 0.3
"""Seconds between two looks at what is under way, here or at other drivers."""


@dataclass(frozen=True)
class Job:
    row: Row
    entry: Entry
    repeat: int


class AuditLab:
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
        crew: Crew[Job] = Crew(
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

    def _train(self, crew: Crew[Job], pending: list[tuple[Row, int]], observer: Observer) -> None:
        begun: set[tuple[str, int]] = set()
        while pending:
            for row, repeat in pending:
                what = row.key or "", repeat
                if not crew.free:
                    break
                if what not in begun and self._team.claim(*what) is Claim.OURS:
                    begun.add(what)
                    job = Job(row, self._entry(row), repeat)
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

    def _receive(self, crew: Crew[Job], observer: Observer) -> None:
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

    def _task(self, job: Job) -> Mapping[str, Any]:
        return task_of(
            self._plan,
            self._run,
            self._engine,
            job.entry,
            job.repeat,
            self._seed(job.repeat),
            self._schedule,
        )

    def _row(self, job: Job, result: Mapping[str, Any]) -> Training:
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
