"""The making of SparseKernelBench: one line of JSON for each finished training.

The file is only ever appended to, a whole line at a time and flushed to the disk, so that it can be
stopped at any moment: what is in it is not trained again, and a line cut off by the end of the
process is dropped. Trainings take one thread each; `workers` processes run at the same time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from threading import Thread
from typing import Any

from nas.candidates import Sized, Task
from nas.sparse_kernel_bench.designs import sized
from nas.sparse_kernel_bench.plan import Job
from nas.sparse_kernel_bench.protocols import Protocol, data_for

Record = dict[str, Any]


def generate(
    jobs: Iterable[Job],
    path: Path,
    *,
    workers: int = 1,
    seconds: float = float("inf"),
    report: Callable[[Record], None] = lambda record: None,
) -> int:
    """Run what the file lacks, for at most so long; the number of trainings that were added.

    Several processes may add to one file; of those that begin the same training both keep it.
    Raises OSError where the file cannot be written. What a training raises passes through: it is
    an error of ours, a run that diverges is a result.
    """
    end, count = time.monotonic() + seconds, 0
    with path.open("ab") as file:
        _mend(path)
        for record in _run(_left(jobs, path), workers, end):
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            count += 1
            report(record)
    return count


def records(path: Path) -> list[Record]:
    """The finished trainings of a file, none where there is no file; a last line without its end
    is not one."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]


def planned(jobs: Iterable[Job], lines: Iterable[Record]) -> Iterator[Record]:
    """Those of the finished trainings that are among these jobs; a plan may have changed."""
    keys = {_key(_task(job)) for job in jobs}
    return (line for line in lines if _key(line) in keys)


def train_one(task: Mapping[str, Any]) -> Record:
    """Train the network of a task; the task with what came of it. Seconds are processor time."""
    import torch

    from nas.schedule import Schedule
    from nas.threads import threads
    from nas.train import evaluate, train

    facts = dict(task["protocol"])
    schedule = Schedule(**facts.pop("schedule"))
    protocol = Protocol(schedule, (), facts["share"], facts["pooling"], facts["every"])
    data = data_for(protocol.share, protocol.pooling)
    network = Sized.from_dict(task["network"])
    shape = data.shape
    task_here = Task((shape.channels, shape.height, shape.width), shape.classes)
    module = network.candidate.sized(task_here, network.width).module(task["seed"])
    torch.set_num_threads(1)
    with threads(1):
        outcome = train(
            module, data, schedule, task["seed"], progress=lambda *_: None, every=protocol.every
        )
        tested = (None, None) if outcome.failure else evaluate(module, data.test)
    judgements = max(1, len(outcome.curve))
    alone = outcome.busy - outcome.judging * (judgements - 1) / judgements
    return {
        **task,
        "accuracy": outcome.accuracy,
        "loss": outcome.loss,
        "curve": [round(accuracy, 5) for accuracy in outcome.curve],
        "failure": outcome.failure,
        "test_accuracy": tested[0],
        "test_loss": tested[1],
        "seconds": round(alone, 3),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "versions": f"torch {version('torch')}, numpy {version('numpy')}",
    }


def _run(tasks: Iterator[Record], workers: int, end: float) -> Iterator[Record]:
    """Results as they come, begun in the order of the tasks and until the end of the time."""
    if workers == 1:
        for task in tasks:
            if time.monotonic() > end:
                return
            yield train_one(task)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        running: set[Future[Record]] = set()
        while True:
            more = islice(tasks, workers - len(running) if time.monotonic() <= end else 0)
            running |= {pool.submit(train_one, task) for task in more}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _end_with_parent() -> None:
    """A worker of a process that was killed would wait for its next task for ever."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            wait_for_any([parent.sentinel])
            os._exit(1)

        Thread(target=watch, daemon=True).start()


def _left(jobs: Iterable[Job], path: Path) -> Iterator[Record]:
    """The tasks of the jobs, each training once, less those that the file holds by then: another
    process may add to it as well."""
    begun: set[str] = set()
    size = -1
    for job in jobs:
        task = _task(job)
        if path.stat().st_size != size:
            size = path.stat().st_size
            begun |= {_key(record) for record in records(path)}
        if (key := _key(task)) not in begun:
            begun.add(key)
            yield task


def _task(job: Job) -> Record:
    network = sized(job.listed, job.budget)
    if network is None:
        raise ValueError(f"{job.listed.candidate} has no network of {job.budget} parameters")
    protocol = asdict(job.protocol)
    del protocol["seeds"]
    return {
        "network": network.to_dict(),
        "stratum": job.listed.stratum,
        "family": job.listed.family,
        "budget": job.budget,
        "protocol": protocol,
        "seed": job.seed,
    }


def _key(task: Mapping[str, Any]) -> str:
    """A training is one network by one protocol with one seed, whatever these are called."""
    return json.dumps([task["network"], task["protocol"], task["seed"]], sort_keys=True)


def _mend(path: Path) -> None:
    """Cut off a last line that has no end."""
    whole = path.read_bytes()
    if whole and not whole.endswith(b"\n"):
        os.truncate(path, whole.rfind(b"\n") + 1)
