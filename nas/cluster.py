"""Trainings on a Dask cluster: `--executor dask:tcp://host:8786`.

The scheduler runs a task again when its worker dies, and gives it up with KilledWorker after
`distributed.scheduler.allowed-failures` of them (3 deaths are forgiven). Results live on the
workers, and the scheduler computes what somebody wants anew when the worker that holds it dies; so
a result is given out only when the scheduler has forgotten its task, which hence never runs again.
A worker process does one task at a time, since a training draws from the random numbers of its
process. Importing this imports distributed.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Literal

from distributed import Client, KilledWorker, get_worker
from distributed.client import ClosedClientError, FutureCancelledError

from nas.executors import Task, Work
from nas.files import RunError

TOPIC = "leanfield"
CONNECT = 15.0
"""Seconds in which a scheduler must answer."""
RESTART = 30.0
"""Seconds in which the nanny of a hung worker should have started another."""
GLANCE = 1.0
"""Seconds between two looks at who has joined or left."""
BLINK = 0.002
"""Seconds between two looks at whether the scheduler has forgotten a task."""
_one_at_a_time = threading.Lock()


@dataclass
class _Place:
    """Where a task is since when; without a worker it waits for one. begun: its worker said so."""

    since: float
    worker: str | None = None
    begun: bool = False


class Cluster:
    """The workers of a Dask scheduler, those that join later too.

    One slot a worker process; where workers have the resource "GPU" when the driver joins, one for
    each of those. Raises RunError where no scheduler answers at `address`.
    """

    isolated = True
    fatal: tuple[type[BaseException], ...] = (KilledWorker,)
    ahead = 1

    def __init__(self, address: str) -> None:
        try:
            self._client: Any = Client(  # type: ignore[no-untyped-call]
                address, timeout=CONNECT, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise RunError(
                f"no Dask scheduler answers at {address} ({error}); start one with: dask scheduler"
            ) from None
        self._address = address
        self._names = count()
        self._places: dict[str, _Place] = {}
        self._there: dict[Future[Any], Any] = {}
        self._client.subscribe_topic(TOPIC, self._hear)  # type: ignore[no-untyped-call]
        gpus = sum(worker["resources"].get("GPU", 0) for worker in self._workers().values())
        self.device: Literal["cpu", "cuda"] = "cuda" if gpus else "cpu"
        self._slots, self._counted = self._count(), time.monotonic()
        self._looked = 0.0

    def __str__(self) -> str:
        return f"Dask at {self._address}"

    @property
    def slots(self) -> int:
        """Asked of the scheduler at most once a second."""
        if time.monotonic() > self._counted + GLANCE:
            # While the scheduler is away the old number serves; its tasks tell what is wrong.
            with suppress(OSError):
                self._slots = self._count()
            self._counted = time.monotonic()
        return self._slots

    def submit(self, work: Work, task: Task) -> Future[Any]:
        name = f"leanfield-{self._client.id}-{next(self._names)}"
        self._places[name] = _Place(time.monotonic())
        asked: dict[str, Any] = {"resources": {"GPU": 1}} if task.get("device") == "cuda" else {}
        there = self._client.submit(_alone, work, task, name, key=name, pure=False, **asked)
        future: Future[Any] = Future()
        self._there[future] = there
        there.add_done_callback(partial(self._fetch, future))
        return future

    def seconds(self, future: Future[Any]) -> float:
        """How long a task has been running, or with a worker that had nothing else of ours."""
        self._look()
        place = self._place(future)
        return 0.0 if place is None or place.worker is None else time.monotonic() - place.since

    def began(self, future: Future[Any]) -> bool:
        place = self._place(future)
        return place is not None and place.begun

    def end(self, future: Future[Any]) -> None:
        """Take the task back first, so that the scheduler does not run it again elsewhere."""
        there, place = self._there.get(future), self._place(future)
        if there is None or place is None:
            return
        there.cancel()
        if place.worker is None:
            return
        try:
            self._client.restart_workers([place.worker], timeout=RESTART, raise_for_error=False)
        except ValueError:
            # It has no nanny to start it again. It gets no more tasks; the others go on.
            self._client.retire_workers([place.worker], close_workers=True)

    def repair(self) -> None:
        """Nothing: the scheduler has other workers, or waits for some."""

    def close(self, *, abandon: bool) -> None:
        """Leave the cluster, which goes on without us; what is running there is forgotten."""
        for there in list(self._there.values()):
            there.cancel()
        self._client.close(timeout=5)

    def _count(self) -> int:
        workers = self._workers().values()
        if self.device == "cuda":
            return max(1, sum(int(worker["resources"].get("GPU", 0)) for worker in workers))
        return max(1, len(workers))

    def _workers(self) -> dict[str, Any]:
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _place(self, future: Future[Any]) -> _Place | None:
        there = self._there.get(future)
        return None if there is None else self._places.get(there.key)

    def _hear(self, event: tuple[float, dict[str, str]]) -> None:
        """A worker begins a task; called in the thread of the client."""
        _, told = event
        if told["task"] in self._places:
            self._places[told["task"]] = _Place(time.monotonic(), told["worker"], True)

    def _look(self) -> None:
        """Where the scheduler has put tasks that did not begin: their workers may be frozen."""
        now = time.monotonic()
        if now < self._looked + GLANCE:
            return
        self._looked = now
        at = {key: worker for worker, keys in self._client.processing().items() for key in keys}
        busy = {place.worker for place in list(self._places.values()) if place.begun}
        for name, place in list(self._places.items()):
            worker = at.get(name)
            if not place.begun and (worker != place.worker or worker in busy):
                self._places[name] = _Place(now, worker)

    def _fetch(self, future: Future[Any], there: Any) -> None:
        """Give out what a task came to when it cannot run again; in the thread for callbacks."""
        try:
            result = there.result()
        except FutureCancelledError:
            future.cancel()
            future.set_running_or_notify_cancel()
        except BaseException as error:
            future.set_exception(error)
        else:
            self._forget(there)
            future.set_result(result)
        self._places.pop(there.key, None)
        self._there.pop(future, None)

    def _forget(self, there: Any) -> None:
        """Have the scheduler forget a task, and wait until it has."""
        # A scheduler that is gone has nothing to remember.
        with suppress(OSError, ClosedClientError):
            self._client.cancel([there])
            status = self._client.scheduler.get_task_status
            while self._client.sync(status, keys=[there.key])[there.key] is not None:
                time.sleep(BLINK)


def _alone(work: Work, task: Task, name: str) -> Any:
    """On a worker: do one task at a time, and say when it begins."""
    with _one_at_a_time:
        worker = get_worker()
        worker.log_event(TOPIC, {"task": name, "worker": worker.address})
        return work(task)
