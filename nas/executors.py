"""Where trainings run: in this process, in worker processes, or on any Executor that is passed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from concurrent.futures import ProcessPoolExecutor as Pool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from nas.datasets import DataError

Task = Mapping[str, Any]
Work = Callable[[Task], Mapping[str, Any]]
T = TypeVar("T")
ABROAD = (OSError, ImportError, DataError)
"""Errors of the machine, not of the task: they end the run instead of failing a design."""
DEATHS = 2
"""A task during which its worker process died so often is not tried again."""


class MachineError(Exception):
    """A task met an error of the machine (`ABROAD`), which is the `__cause__`."""


class InProcess(Executor):
    """Runs each task at once, in `submit`."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Workers(Pool):
    """Processes that end with the one that started them; each calls `ready` before its tasks."""

    def __init__(self, count: int, ready: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        reader, self._writer = context.Pipe(duplex=False)
        super().__init__(count, context, initializer=_begin, initargs=(reader, ready))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Without `wait`, what is running is abandoned: its process ends at once."""
        if not wait:
            self._writer.close()
        super().shutdown(wait, cancel_futures=cancel_futures)


def _begin(reader: Connection, ready: Callable[[], None] | None) -> None:
    """In a worker: leave Ctrl-C to the driver, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_driver, args=(reader,), daemon=True).start()
    if ready is not None:
        ready()


def _end_with_driver(reader: Connection) -> None:
    """The pipe ends when the driver closes it or dies; an idle worker would wait forever."""
    try:
        reader.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


@dataclass
class _Item(Generic[T]):
    job: T
    work: Work
    task: Task
    deaths: int = 0


class Crew(Generic[T]):
    """Hands tasks to an executor and gives each result back with the job that it belongs to.

    An exception in a task becomes its result {"failure": reason}, but those of the machine are
    raised. When a worker dies, everything in flight is tried again, one by one, so that the task
    at fault shows.
    """

    def __init__(
        self, make: Callable[[], Executor], slots: int, started: Callable[[T], None]
    ) -> None:
        """started: is called with each job when it is handed to the executor, also once more."""
        self._make, self.slots, self._started = make, slots, started
        self._executor = make()
        self._backlog: deque[_Item[T]] = deque()
        self._alone: deque[_Item[T]] = deque()
        self._flying: dict[Future[Mapping[str, Any]], _Item[T]] = {}

    def __len__(self) -> int:
        """Jobs that were handed over and not given back."""
        return len(self._backlog) + len(self._alone) + len(self._flying)

    @property
    def free(self) -> bool:
        return len(self) < self.slots

    def submit(self, job: T, work: Work, task: Task) -> None:
        """Queue a job; it starts in `next`."""
        self._backlog.append(_Item(job, work, task))

    def next(self) -> tuple[T, Mapping[str, Any]]:
        """Wait for a job. Raises MachineError, and LookupError when there is no job."""
        while len(self):
            self._start()
            wait(self._flying, return_when=FIRST_COMPLETED)
            future = next(future for future in self._flying if future.done())
            error = future.exception()
            if isinstance(error, BrokenExecutor):
                if (fallen := self._rebuild()) is not None:
                    return fallen, {"failure": f"its worker process died {DEATHS} times"}
                continue
            item = self._flying.pop(future)
            if isinstance(error, ABROAD):
                raise MachineError from error
            if error is not None:
                return item.job, {"failure": f"{type(error).__name__}: {error}"}
            return item.job, future.result()
        raise LookupError("no job is waiting or running")

    def close(self, *, abandon: bool = False) -> None:
        """End the executor; abandon: without waiting for what is running."""
        self._executor.shutdown(wait=not abandon, cancel_futures=True)

    def _start(self) -> None:
        if self._alone:
            if not self._flying:
                self._launch(self._alone.popleft())
            return
        while self._backlog and len(self._flying) < self.slots:
            self._launch(self._backlog.popleft())

    def _launch(self, item: _Item[T]) -> None:
        self._started(item.job)
        try:
            future = self._executor.submit(item.work, item.task)
        except BrokenExecutor as error:
            future = Future()
            future.set_exception(error)
        self._flying[future] = item

    def _rebuild(self) -> T | None:
        """A new executor; gives the job that has now brought down its worker too often."""
        wait(self._flying)
        fallen = None
        for future, item in list(self._flying.items()):
            if not isinstance(future.exception(), BrokenExecutor):
                continue
            del self._flying[future]
            item.deaths += 1
            if item.deaths >= DEATHS:
                fallen = item.job
            else:
                self._alone.append(item)
        self._executor.shutdown(wait=False)
        self._executor = self._make()
        return fallen
