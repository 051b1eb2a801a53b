"""Trainings on their way: from a network to a row of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from kernels.backends import MissingComponentError
from nas.candidates import Entry
from nas.executors import Crew, MachineError, Task
from nas.files import RunError, storage_errors
from nas.finals import leaders, training_seed
from nas.interrupt import Interrupts
from nas.observer import Observer
from nas.plan import Plan
from nas.run import RunFolder
from nas.study import Ledger, Proposals, Training
from nas.trainer import Trainer


@dataclass
class Job:
    """A training of `entry` with the seed `repeat`, for the open proposals `numbers`."""

    entry: Entry
    repeat: int = 0
    known_as: str | None = None
    numbers: list[int] = field(default_factory=list)


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
        make: Callable[[], Executor],
    ) -> None:
        self._plan, self._run, self._ledger, self._proposals = plan, run, ledger, proposals
        self._interrupts, self._observer, self._trainer = interrupts, observer, trainer
        self._asked = plan.settings
        self._crew: Crew[Job] = Crew(make, self._asked.workers, self._tell_start)
        self.flying: dict[str, Job] = {}

    @property
    def free(self) -> bool:
        """Whether a further training would start at once."""
        return self._crew.free

    def begin(self, job: Job) -> None:
        """Hand a network over for training."""
        if job.repeat == 0:
            self.flying[job.entry.key] = job
        self._crew.submit(job, self._trainer.train, self._task(job.entry, job.repeat))

    def receive(self) -> None:
        """Wait for one training; store it, then tell every proposal that it answers."""
        job, result = self._next()
        row = Training(
            job.entry.key,
            job.repeat,
            job.entry.to_dict(),
            job.known_as,
            result.get("accuracy"),
            result.get("failure"),
            facts=self._facts(job, result),
        )
        leading = leaders(self._ledger.rows, self._asked.finalists)
        self._ledger.add(row)
        for index, number in enumerate(job.numbers):
            self._proposals.tell(number, row, same=index > 0)
        if job.repeat == 0:
            del self.flying[row.key]
            self._drop_weights(leading, row)
        if row.reason is not None:
            self._observer.note(f"{job.entry.title} failed: {row.reason}")
        self._observer.finished(row)

    def drain(self) -> None:
        """Wait for everything that was begun."""
        while len(self._crew):
            self.receive()

    def judge(self, trainings: list[Training]) -> dict[str, list[float]]:
        """Accuracies on the test split by network key. Raises RunError where one has none."""
        for row in trainings:
            job = Job(self._plan.read(row.network), row.repeat)
            self._crew.submit(job, self._trainer.judge, self._task(job.entry, row.repeat))
        reached: dict[str, list[float]] = {row.key: [] for row in trainings}
        while len(self._crew):
            job, result = self._next()
            if result.get("failure"):
                raise RunError(f"{job.entry.title} cannot be tested: {result['failure']}")
            reached[job.entry.key].append(result["accuracy"])
        return reached

    def close(self, *, abandon: bool) -> None:
        """End the workers; abandon: at once, whatever they are doing."""
        self._crew.close(abandon=abandon)

    def _tell_start(self, job: Job) -> None:
        self._observer.started(job.entry.title, job.known_as)

    def _next(self) -> tuple[Job, Mapping[str, Any]]:
        try:
            with self._interrupts.heard():
                return self._crew.next()
        except MachineError as error:
            cause = error.__cause__ or error
        with storage_errors(self._run.path):
            if isinstance(cause, ImportError):
                raise MissingComponentError(f"a training needs what is not installed: {cause}")
            raise cause

    def _task(self, entry: Entry, repeat: int) -> Task:
        record = self._run.record
        return {
            "network": self._plan.proxy(entry).to_dict(),
            "data": self._asked.data,
            "fingerprint": record.data_fingerprint,
            "schedule": dict(record.schedule),
            "threads": self._asked.threads,
            "seed": training_seed(self._asked.seed, repeat),
            "weights": str(self._run.weights(entry.key, repeat).absolute()),
            "choices": dict(record.choices),
        }

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
            "seconds": result.get("seconds", 0.0),
            "kernels": result.get("kernels", {}),
        }

    def _drop_weights(self, leading: list[Training], row: Training) -> None:
        """Only leaders and known blocks keep their weights; who falls out never comes back."""
        if row.known_as is not None:
            return
        still = {first.key for first in leaders(self._ledger.rows, self._asked.finalists)}
        for key in {first.key for first in [*leading, row]} - still:
            self._run.weights(key, 0).unlink(missing_ok=True)
