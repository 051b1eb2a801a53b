"""Trainers for the tests of the search: the figures are made up, everything around them is real."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.trainer import Trainer, judge_network, train_network

LOG = "LEANFIELD_TEST_LOG"


def say(*words: object) -> None:
    """Append a line to the log of the environment, and have it on the disk."""
    with Path(os.environ[LOG]).open("a") as log:
        log.write("\t".join(map(str, words)) + "\n")
        log.flush()
        os.fsync(log.fileno())


def figure(task: Mapping[str, Any], kind: str) -> float:
    """A number in 0 .. 1 that depends on the network and the seed only."""
    text = f"{kind} {sorted(task['network'].items())} {task['seed']}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6


def name(task: Mapping[str, Any]) -> str:
    """What tells one training from all others."""
    return f"{hashlib.sha256(task['key'].encode()).hexdigest()[:20]}-{task['repeat']}"


def train(task: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = figure(task, "validation")
    return {
        "accuracy": accuracy,
        "loss": 1.0,
        "curve": [accuracy],
        "seconds": 0.0,
        "failure": None,
        "weights": name(task).encode(),
    }


def judge(task: Mapping[str, Any]) -> dict[str, Any]:
    if task["weights"] != name(task).encode():
        raise RuntimeError("these are other weights")
    return {"accuracy": figure(task, "test"), "loss": 1.0}


def logged_train(task: Mapping[str, Any]) -> dict[str, Any]:
    say("train", name(task), os.getpid())
    time.sleep(0.01)
    return train(task)


FAKE = Trainer(train, judge)
LOGGED = Trainer(logged_train, judge)


def logged_real_train(task: Mapping[str, Any]) -> dict[str, Any]:
    say("train", name(task), os.getpid())
    return train_network(task)


LOGGED_REAL = Trainer(logged_real_train, judge_network)


class Counting:
    """A trainer that counts and keeps its tasks, and lets `before` meddle with each training."""

    def __init__(self, before: Callable[[int, Mapping[str, Any]], Any] | None = None) -> None:
        self.trained: list[Mapping[str, Any]] = []
        self.judged: list[Mapping[str, Any]] = []
        self._before = before

    @property
    def trainer(self) -> Trainer:
        return Trainer(self._train, self._judge)

    def _train(self, task: Mapping[str, Any]) -> Mapping[str, Any]:
        self.trained.append(task)
        if self._before is not None and (answer := self._before(len(self.trained), task)):
            return answer
        return train(task)

    def _judge(self, task: Mapping[str, Any]) -> Mapping[str, Any]:
        self.judged.append(task)
        return judge(task)


def kill_own_process(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a training does that runs out of memory, if its task says so; else give the process."""
    if task["deadly"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(task["seconds"])
    return {"process": os.getpid()}


def logged_process(task: Mapping[str, Any]) -> dict[str, Any]:
    """The process that did this task, which is in the log."""
    say("train", name(task), os.getpid())
    return {"process": os.getpid()}


def stop_own_process(task: Mapping[str, Any]) -> dict[str, Any]:
    """Freeze, as a worker does whose machine hangs."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def raise_error(task: Mapping[str, Any]) -> dict[str, Any]:
    raise task["error"]
