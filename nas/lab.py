"""Trainings on their way: from a network to a row of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from kernels.backends import MissingComponentError
from nas.candidates import Entry
from nas.crew import Crew, MachineError
from nas.executors import Engine, Task
from nas.failures import Failures
from nas.files import RunError, storage_errors
from nas.finals import leaders, training_seed
from nas.interrupt import Interrupts
from nas.observer import Observer
from nas.plan import Plan
from nas.proposals import Proposals
from nas.run import RunFolder
from nas.stops import Rung, Stops, costs_in
from nas.study import Ledger, Training
from nas.team import Team
from nas.trainer import Trainer

HALF_FROM = 10**10
"""Multiplications of a forward pass over a batch, from which bfloat16 is used on a GPU.

An estimate: below it (0.3 ms at 60 TFLOP/s in float32) a step is bound by its kernel launches, and
the casts of autocast are further ones.
"""


@dataclass
class Job:
    """A training of `entry` with the seed `repeat`, for the open proposals `numbers`."""

    entry: Entry
    repeat: int = 0
    known_as: str | None = None
    numbers: list[int] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)


def task_of(
    plan: Plan,
    run: RunFolder,
    engine: Engine,
    entry: Entry,
    repeat: int,
    seed: int,
    schedule: Mapping[str, Any],
) -> Task:
    """What a worker is told to train."""
    trained = plan.proxy(entry)
    batch_mults = trained.cost.mults * int(schedule["batch"])
    return {
        "key": entry.key,
        "repeat": repeat,
        "device": engine.device,
        "half": engine.device == "cuda" and batch_mults >= HALF_FROM,
        "network": trained.to_dict(),
        "data": plan.settings.data,
        "fingerprint": run.record.data_fingerprint,
        "schedule": dict(schedule),
        "threads": plan.settings.threads,
        "seed": seed,
        "choices": dict(run.record.choices),
    }


def end_run(error: MachineError, folder: Path) -> NoReturn:
    """Raises what the user is told of an error of the machine: RunError, MissingComponentError or
    the error itself."""
    cause = error.__cause__ or error
    if isinstance(cause, ConnectionError):
        raise RunError(f"{cause}; every finished training is kept: go on with --resume {folder}")
    with storage_errors(folder):
        if isinstance(cause, ImportError):
            raise MissingComponentError(f"a training needs what is not installed: {cause}")
        raise cause
    raise cause


class Lab:
    """Trains and tests networks; what is stored in the ledger is never trained again."""

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        ledger: Ledger,
        proposals: Proposals,
        interrupts: Interrupts,
        observer: Observer,
        trainer: Trainer,
        engine: Engine,
        team: Team,
        stops: Stops,
    ) -> None:
        self._plan, self._run, self._ledger, self._proposals = plan, run, ledger, proposals
        self._interrupts, self._observer, self._trainer = interrupts, observer, trainer
        self._asked, self._engine, self._team = plan.settings, engine, team
        self._stops = stops
        self._crew: Crew[Job] = Crew(engine, self._tell_start, self._asked.trial_timeout)
        self._leading: set[str] = set()
        self.flying: dict[str, Job] = {}
        self._begun: set[tuple[str, int]] = set()
        self._failures = Failures(engine.slots, run.path)

    def __len__(self) -> int:
        """Trainings that were begun and not received."""
        return len(self._crew)

    def has(self, job: Job) -> bool:
        """Whether this training is on its way."""
        return (job.entry.key, job.repeat) in self._begun

    @property
    def free(self) -> bool:
        """Whether a further training would start at once."""
        return self._crew.free

    def begin(self, job: Job) -> None:
        """Hand a network over for training."""
        if job.repeat == 0:
            self.flying[job.entry.key] = job
            costs = costs_in(job.entry, self._plan.latency(job.entry))
            wanted = {name: costs[name] for name in self._asked.objectives if name in costs}
            job.rungs = self._stops.rungs(wanted, stops=job.known_as is None)
        self._begun.add((job.entry.key, job.repeat))
        self._crew.submit(
            job, self._trainer.train, {**self._task(job.entry, job.repeat), "rungs": job.rungs}
        )

    def receive(self, patience: float | None = None) -> bool:
        """Wait for one training; store it, then tell every proposal that it answers.

        False where none ended within `patience` seconds. Raises RunError where training after
        training fails (`nas.failures`).
        """
        if (done := self._next(patience)) is None:
            return False
        job, result = done
        key, repeat = job.entry.key, job.repeat
        stopped = result.get("stopped")
        row = Training(
            key,
            repeat,
            job.entry.to_dict(),
            job.known_as,
            result.get("accuracy") if stopped is None else None,
            self._reason(job, result),
            stopped=stopped,
            facts=self._facts(job, result),
        )
        self._begun.remove((key, repeat))
        if repeat == 0:
            del self.flying[key]
        with self._team.storing(key, repeat) as ours:
            if ours:
                if row.accuracy is not None:
                    self._team.keep_weights(key, repeat, result["weights"])
                self._ledger.add(row)
        if not ours:
            for number in job.numbers:
                self._proposals.drop(number)
            self._observer.note(f"{job.entry.title} was given to another driver meanwhile")
            return True
        for index, number in enumerate(job.numbers):
            self._proposals.tell(number, row, same=index > 0)
        if repeat == 0 and row.known_as is None:
            self._drop_weights(key)
        if row.reason is not None and stopped is None:
            self._observer.note(f"{job.entry.title} failed: {row.reason}")
        self._observer.finished(row)
        self._failures.add(row.reason if stopped is None else None)
        return True

    def judge(self, trainings: list[Training]) -> dict[str, list[float]]:
        """Accuracies on the test split by network key. Raises RunError where one has none."""
        for row in trainings:
            job = Job(self._plan.read(row.network), row.repeat)
            weights = self._team.weights(row.key, row.repeat)
            task = {**self._task(job.entry, row.repeat), "weights": weights}
            self._crew.submit(job, self._trainer.judge, task)
        reached: dict[str, list[float]] = {row.key: [] for row in trainings}
        while len(self._crew):
            if (done := self._next(None)) is not None:
                job, result = done
                if result.get("failure"):
                    raise RunError(f"{job.entry.title} cannot be tested: {result['failure']}")
                reached[job.entry.key].append(result["accuracy"])
        return reached

    def close(self, *, abandon: bool) -> None:
        """End the workers; abandon: at once, whatever they are doing."""
        self._crew.close(abandon=abandon)

    def _tell_start(self, job: Job) -> None:
        self._observer.started(job.entry.title, job.known_as)

    def _next(self, patience: float | None) -> tuple[Job, Mapping[str, Any]] | None:
        try:
            with self._interrupts.heard():
                return self._crew.next(patience)
        except MachineError as error:
            end_run(error, self._run.path)

    def _task(self, entry: Entry, repeat: int) -> Task:
        seed = training_seed(self._asked.seed, repeat)
        schedule = self._run.record.schedule
        return task_of(self._plan, self._run, self._engine, entry, repeat, seed, schedule)

    def _facts(self, job: Job, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the table shows besides, so that it needs nothing but the ledger."""
        cost = job.entry.cost
        return {
            "design": job.entry.title,
            "candidate": str(job.entry.candidate),
            "width": job.entry.width,
            "blocks": list(job.entry.candidate.blocks),
            "params": cost.params,
            "mults": cost.mults,
            "traffic": cost.traffic_bytes,
            "latency": self._plan.latency(job.entry),
            "seed": training_seed(self._asked.seed, job.repeat),
            "loss": result.get("loss"),
            "curve": list(result.get("curve", ())),
            "judged": [epoch for epoch, _ in job.rungs] + [self._run.record.schedule["epochs"]],
            "seconds": result.get("seconds", 0.0),
            "kernels": result.get("kernels", {}),
        }

    def _reason(self, job: Job, result: Mapping[str, Any]) -> str | None:
        """Why a training has no accuracy."""
        if result.get("stopped") is None:
            return result.get("failure")
        return self._stops.reason(job.rungs, result["stopped"], result["accuracy"])

    def _drop_weights(self, key: str) -> None:
        """Only leaders and known blocks keep their weights; who falls out never comes back."""
        objectives = self._asked.objectives
        count = self._asked.finalists if len(objectives) == 1 else None
        still = {row.key for row in leaders(self._ledger.rows, count, objectives)}
        for fallen in ({key} | self._leading) - still:
            self._team.drop_weights(fallen, 0)
        self._leading = still
