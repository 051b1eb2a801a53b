"""Tasks and the workers that do them: each result comes back once, with the job it belongs to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nas.datasets import DataError
from nas.executors import Engine, Task, Work

T = TypeVar("T")
Result = Mapping[str, Any]
ABROAD = (OSError, ImportError, DataError)
"""Errors of the machine, not of the task: they end the run instead of failing a design."""
DEATHS = 2
"""A task during which its worker process died so often is not tried again."""
GLANCE = 0.5
"""Seconds between two looks at tasks that have a time limit."""


class MachineError(Exception):
    """A task met an error of the machine (`ABROAD`), which is the `__cause__`."""


@dataclass
class _Item(Generic[T]):
    job: T
    work: Work
    task: Task
    deaths: int = 0


class Crew(Generic[T]):
    """Hands tasks to an engine and gives each result back with the job that it belongs to.

    An exception in a task becomes its result {"failure": reason}, but those of the machine are
    raised. A task whose worker dies is tried again, up to DEATHS times; where the engine cannot
    tell which task was at fault, all that were in flight are tried again one by one, so that it
    shows. A task that takes longer than its limit fails at once, and its worker is replaced.
    """

    def __init__(
        self, engine: Engine, started: Callable[[T], None], limit: float | None = None
    ) -> None:
        """started: is called with each job when it is handed to the engine, also once more.

        limit: seconds that a task may run.
        """
        self._engine, self._started, self._limit = engine, started, limit
        self._backlog: deque[_Item[T]] = deque()
        self._alone: deque[_Item[T]] = deque()
        self._flying: dict[Future[Result], _Item[T]] = {}

    def __len__(self) -> int:
        """Jobs that were handed over and not given back."""
        return len(self._backlog) + len(self._alone) + len(self._flying)

    @property
    def free(self) -> bool:
        """Whether a further job would start at once, or is to lie ready."""
        return len(self) < self._engine.slots + self._engine.ahead

    def submit(self, job: T, work: Work, task: Task) -> None:
        """Queue a job; it starts in `next`."""
        self._backlog.append(_Item(job, work, task))

    def next(self, patience: float | None = None) -> tuple[T, Result] | None:
        """Wait for a job, None where that takes longer than `patience` seconds.

        Raises MachineError, and LookupError when there is no job.
        """
        until = None if patience is None else time.monotonic() + patience
        while len(self):
            self._start()
            wait(self._flying, timeout=self._pause(until), return_when=FIRST_COMPLETED)
            future = next((future for future in self._flying if future.done()), None)
            if future is not None:
                item = self._flying.pop(future)
                if (result := self._result(future, item)) is not None:
                    if self._engine.ahead:
                        self._start()  # the worker goes on while this result is stored
                    return item.job, result
            elif (late := self._late()) is not None:
                return late
            elif until is not None and time.monotonic() >= until:
                return None
        raise LookupError("no job is waiting or running")

    def close(self, *, abandon: bool = False) -> None:
        """End the workers; abandon: without waiting for what is running."""
        self._engine.close(abandon=abandon)

    def _start(self) -> None:
        if self._alone:
            if not self._flying:
                self._launch(self._alone.popleft())
            return
        while self._backlog and len(self._flying) < self._engine.slots:
            self._launch(self._backlog.popleft())

    def _launch(self, item: _Item[T]) -> None:
        self._started(item.job)
        self._flying[self._engine.submit(item.work, item.task)] = item

    def _pause(self, until: float | None) -> float | None:
        """How long to wait before something has to be looked at; None: until a task ends."""
        pauses = [] if self._limit is None else [min(GLANCE, self._limit / 4)]
        if until is not None:
            pauses.append(max(0.0, until - time.monotonic()))
        return min(pauses, default=None)

    def _result(self, future: Future[Result], item: _Item[T]) -> Result | None:
        """What a task came to; None where it is to be tried again."""
        if future.cancelled():
            raise MachineError from ConnectionError("the workers cannot be reached any more")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, BrokenExecutor):
            return self._died(item)
        if isinstance(error, self._engine.fatal):
            return {"failure": f"its workers died: {_first_sentence(error)}"}
        if isinstance(error, ABROAD):
            raise MachineError from error
        return {"failure": f"{type(error).__name__}: {error}"}

    def _died(self, item: _Item[T]) -> Result | None:
        """A worker died under this task, and under others if the engine is one pool."""
        self._count_death(item)
        if not self._engine.isolated:
            wait(self._flying)
            for future, other in list(self._flying.items()):
                if isinstance(future.exception(), BrokenExecutor):
                    del self._flying[future]
                    self._count_death(other)
        self._engine.repair()
        if item.deaths < DEATHS:
            return None
        return {"failure": f"its worker process died {item.deaths} times"}

    def _count_death(self, item: _Item[T]) -> None:
        item.deaths += 1
        if item.deaths < DEATHS:
            (self._backlog if self._engine.isolated else self._alone).appendleft(item)

    def _late(self) -> tuple[T, Result] | None:
        """A job that has taken longer than its limit, with that as its result.

        One that never began, since its worker hangs, is tried again as if the worker had died.
        """
        for future, item in list(self._flying.items()) if self._limit is not None else ():
            if self._engine.seconds(future) > (self._limit or 0.0):
                del self._flying[future]
                began = self._engine.began(future)
                self._engine.end(future)
                if began:
                    return item.job, {"failure": f"it ran longer than {self._limit:g} s"}
                self._count_death(item)
                if item.deaths >= DEATHS:
                    return item.job, {"failure": f"{item.deaths} workers hung before it began"}
        return None


def _first_sentence(error: BaseException) -> str:
    return str(error).partition(". ")[0]
