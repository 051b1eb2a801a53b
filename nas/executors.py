"""Where trainings run: in this process, in worker processes, or on any Executor that is passed.

An `Engine` is what `nas.crew` hands its tasks to. Workers on a cluster are in `nas.cluster`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import ProcessPoolExecutor as Pool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol, TypeVar

Task = Mapping[str, Any]
Work = Callable[[Task], Mapping[str, Any]]
T = TypeVar("T")
START_UP = 60.0
"""Seconds that a worker process may take to import what it needs, beside the time of its task."""


class Engine(Protocol):
    """An executor whose workers can be counted, watched and replaced.

    isolated: the death of a worker concerns the task that it ran, and no other.
    fatal: errors by which the engine says that a task has brought down too many workers.
    device: what its workers train on.
    ahead: tasks to have ready beyond the slots, so that no worker waits for a proposal.
    """

    isolated: bool
    fatal: tuple[type[BaseException], ...]
    device: Literal["cpu", "cuda"]
    ahead: int

    @property
    def slots(self) -> int:
        """Tasks that can run side by side now."""

    def submit(self, work: Work, task: Task) -> Future[Mapping[str, Any]]:
        """Start a task, or queue it where no worker is free."""

    def seconds(self, future: Future[Any]) -> float:
        """How long a task has been running; 0 while it waits for a worker."""

    def began(self, future: Future[Any]) -> bool:
        """Whether a worker has told that it works on this task; if not, it is not at fault."""

    def end(self, future: Future[Any]) -> None:
        """Give a running task up, whatever it does; its worker is replaced."""

    def repair(self) -> None:
        """After a worker died: be ready for tasks again."""

    def close(self, *, abandon: bool) -> None:
        """End the workers; abandon: without waiting for what is running."""


class InProcess(Executor):
    """Runs each task at once, in `submit`."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Plain:
    """Any `Executor`, made again when it breaks. It cannot end a task, so it knows no time limit.

    When a worker of a pool dies, all its tasks are lost and nobody knows whose fault it was.
    """

    isolated = False
    fatal: tuple[type[BaseException], ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    ahead = 0

    def __init__(self, make: Callable[[], Executor], slots: int = 1) -> None:
        self._make, self._slots = make, slots
        self._executor = make()

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, work: Work, task: Task) -> Future[Mapping[str, Any]]:
        try:
            return self._executor.submit(work, task)
        except BrokenExecutor as error:
            future: Future[Mapping[str, Any]] = Future()
            future.set_exception(error)
            return future

    def seconds(self, future: Future[Any]) -> float:
        return 0.0

    def began(self, future: Future[Any]) -> bool:
        return True

    def end(self, future: Future[Any]) -> None:
        raise NotImplementedError("an executor that was passed in cannot end a task")

    def repair(self) -> None:
        self._executor.shutdown(wait=False)
        self._executor = self._make()

    def close(self, *, abandon: bool) -> None:
        self._executor.shutdown(wait=not abandon, cancel_futures=True)


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


@dataclass(eq=False)
class _Lane:
    """One worker process and what it does; `identity` gives its process number once it is up."""

    pool: Workers
    identity: Future[int]
    begun: float
    ready_at: float | None = None
    task: Future[Any] | None = None
    since: float = 0.0

    @property
    def free(self) -> bool:
        return self.task is None or self.task.done()

    def end(self) -> None:
        """End the process, also one that hangs or was stopped."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.identity.done() and not self.identity.exception():
            with suppress(ProcessLookupError):
                os.kill(self.identity.result(), signal.SIGKILL)


class Processes:
    """Worker processes in lanes of one, so that each can die and be replaced on its own."""

    isolated = True
    fatal: tuple[type[BaseException], ...] = ()
    ahead = 1

    def __init__(
        self,
        ready: Sequence[Callable[[], None] | None],
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        """ready: for each lane what its process calls before its tasks."""
        self._ready, self.device = list(ready), device
        self._lanes: list[_Lane | None] = [None] * len(self._ready)

    @property
    def slots(self) -> int:
        return len(self._lanes)

    def submit(self, work: Work, task: Task) -> Future[Mapping[str, Any]]:
        """Raises RuntimeError where all lanes are taken."""
        for index, lane in enumerate(self._lanes):
            if lane is None or lane.free:
                return self._start(index, work, task)
        raise RuntimeError(f"all {self.slots} worker processes are busy")

    def seconds(self, future: Future[Any]) -> float:
        lane = self._lane(future)
        ready_at = lane.begun + START_UP if lane.ready_at is None else lane.ready_at
        return time.monotonic() - max(lane.since, ready_at)

    def began(self, future: Future[Any]) -> bool:
        return self._lane(future).ready_at is not None

    def end(self, future: Future[Any]) -> None:
        lane = self._lane(future)
        self._lanes[self._lanes.index(lane)] = None
        lane.end()

    def repair(self) -> None:
        """Nothing: a lane whose process died is replaced when it gets its next task."""

    def close(self, *, abandon: bool) -> None:
        for lane in self._lanes:
            if lane is not None:
                if not abandon and lane.task is not None:
                    lane.task.exception()
                lane.end()

    def _start(self, index: int, work: Work, task: Task) -> Future[Mapping[str, Any]]:
        lane = self._lanes[index] or self._open(index)
        try:
            future = lane.pool.submit(work, task)
        except BrokenExecutor:
            lane.end()
            lane = self._open(index)
            future = lane.pool.submit(work, task)
        lane.task, lane.since = future, time.monotonic()
        return future

    def _open(self, index: int) -> _Lane:
        pool = Workers(1, self._ready[index])
        lane = _Lane(pool, pool.submit(os.getpid), time.monotonic())
        lane.identity.add_done_callback(partial(_note_ready, lane))
        self._lanes[index] = lane
        return lane

    def _lane(self, future: Future[Any]) -> _Lane:
        return next(lane for lane in self._lanes if lane is not None and lane.task is future)


def _note_ready(lane: _Lane, identity: Future[int]) -> None:
    lane.ready_at = time.monotonic()


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
