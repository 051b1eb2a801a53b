"""Searches in processes of their own, killed at random moments; what must hold afterwards.

The figures are made up, the storage is real, so that most of the time is spent writing. The
processes are forked from one that has imported everything, so that a start takes no second.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import LOG, LOGGED, name, say

from nas import team
from nas.observer import Silent
from nas.run import settings
from nas.search import resume, search
from nas.study import Training
from nas.table import Row, table
from nas.trainer import Trainer

SMALL = {
    "data": "digits",
    "max_params": 1500,
    "trials": 4,
    "finalists": 2,
    "seeds": 2,
    "sampler": "tpe",
}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["preloaded"])


class Log(Silent):
    def finished(self, training: Training) -> None:
        say(
            "stored",
            name({"key": training.key, "repeat": training.repeat}),
            training.accuracy,
            os.getpid(),
        )


def drive(run: Path, log: Path, asked: Mapping[str, Any], lease: float, trainer: Trainer) -> None:
    """A driver: begin a search or go on with it."""
    os.environ[LOG], team.LEASE = str(log), lease
    if (run / "run.json").exists():
        result = resume(run, Log(), trainer=trainer)
    else:
        result = search(settings(**asked), run, Log(), trainer=trainer)
    assert not result.interrupted


def start(
    run: Path,
    log: Path,
    asked: Mapping[str, Any],
    lease: float = 30.0,
    trainer: Trainer = LOGGED,
) -> BaseProcess:
    _ready()
    process = CONTEXT.Process(target=drive, args=(run, log, asked, lease, trainer))
    process.start()
    return process


def _ready() -> None:
    """Start the process that forks; it finds our modules by PYTHONPATH only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        forkserver.ensure_running()


def lines(log: Path) -> list[list[str]]:
    """The whole lines of the log; a kill may have cut the last."""
    text = log.read_text() if log.exists() else ""
    return [line.split("\t") for line in text.split("\n")[:-1]]


def moment(log: Path, chance: random.Random, alive: Callable[[], bool]) -> None:
    """Wait for a random moment: a few lines later, and a little."""
    until = len(lines(log)) + chance.randrange(12)
    deadline = time.monotonic() + 60
    while alive() and len(lines(log)) < until and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(chance.random() * 0.05)


def kill_worker(log: Path, driver: int | None) -> None:
    """SIGKILL to the process that trained last, if it is no driver."""
    trained = [int(line[2]) for line in lines(log) if line[0] == "train"]
    if trained and trained[-1] != driver:
        with suppress(ProcessLookupError):
            os.kill(trained[-1], signal.SIGKILL)


def killed_search(
    run: Path, log: Path, asked: Mapping[str, Any], seed: int, modes: str = "driver", kills: int = 2
) -> list[Row]:
    """A search that is killed some times and then goes on to its end; checked after each kill.

    modes: of "driver", "worker" and "both" those that are drawn from.
    """
    chance = random.Random(seed)
    process = start(run, log, asked)
    for _ in range(kills):
        moment(log, chance, process.is_alive)
        mode = chance.choice(modes.split())
        if mode != "driver":
            kill_worker(log, process.pid)
        if mode != "worker":
            process.kill()
            process.join()
            if (run / "run.json").exists():
                check(table(run), lines(log))
            process = start(run, log, asked)
    process.join(120)
    assert process.exitcode == 0
    check(table(run), lines(log))
    return table(run)


def check(rows: list[Row], log: list[list[str]]) -> None:
    """What the log calls stored is in the table once, and was not trained again afterwards."""
    seeds = {name({"key": row.key, "repeat": 0})[:20]: row.seeds for row in rows if row.key}
    stored: Counter[str] = Counter()
    for kind, which, *_ in log:
        if kind == "train":
            assert which not in stored, f"{which} was trained again"
        else:
            stored[which] += 1
    assert all(count == 1 for count in stored.values())
    for network, count in Counter(which[:20] for which in stored).items():
        assert seeds[network] >= count


def kinds(rows: list[Row]) -> Counter[tuple[Any, ...]]:
    """The end state in number and kind: infeasible proposals depend on which came first."""
    return Counter(
        (row.known_as, row.state, row.seeds, row.rank is None, row.test_accuracy is None)
        for row in rows
        if row.state != "infeasible" or row.known_as
    )
