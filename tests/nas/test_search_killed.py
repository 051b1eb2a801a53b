"""SIGKILL at random moments: no finished training is lost, none is done again.

The searches are processes of their own, with made-up figures and real storage, so that most of the
time is spent writing. LEANFIELD_KILLS sets how often each is killed (6).
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_trainer import LOG

from nas.table import Row, table

KILLS = int(os.environ.get("LEANFIELD_KILLS", "6"))
TRIALS = 2 * KILLS

SCRIPT = """
import sys
from pathlib import Path
from fake_trainer import LOGGED, say
from nas.observer import Silent
from nas.run import settings
from nas.search import resume, search

class Log(Silent):
    def finished(self, training):
        say("stored", training.key, training.repeat, training.accuracy)

if __name__ == "__main__":
    run = Path(sys.argv[1])
    if (run / "run.json").exists():
        resume(run, Log(), trainer=LOGGED)
    else:
        chosen = settings(data="digits", max_params=1500, trials=int(sys.argv[2]), finalists=3,
                          seeds=2, workers=int(sys.argv[3]))
        search(chosen, run, Log(), trainer=LOGGED)
"""


def lines(log: Path) -> list[list[str]]:
    """The whole lines of the log; a kill may have cut the last."""
    text = log.read_text() if log.exists() else ""
    return [line.split("\t") for line in text.split("\n")[:-1]]


def start(script: Path, run: Path, log: Path, workers: int) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script), str(run), str(TRIALS), str(workers)],
        env={**os.environ, "PYTHONPATH": paths, LOG: str(log)},
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(workers: int, tmp_path: Path) -> None:
    script, run, log = tmp_path / "driver.py", tmp_path / "run", tmp_path / "log"
    script.write_text(SCRIPT)
    chance = random.Random(workers)
    killed = 0
    while killed < KILLS:
        before = len(lines(log))
        process = start(script, run, log, workers)
        further = chance.choice([0, 1, 1, 2, 3, 5])
        while process.poll() is None and len(lines(log)) < before + further:
            time.sleep(0.002)
        time.sleep(chance.random() * (3.0 if further == 0 else 0.1))
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.kill()
        process.wait()
        killed += 1
        if (run / "run.json").exists():
            check(table(run), lines(log))
    process = start(script, run, log, workers)
    assert process.wait(timeout=300) == 0
    rows = table(run)
    check(rows, lines(log))
    searched = [row for row in rows if row.known_as is None and row.state == "complete"]
    assert len(searched) == TRIALS and len({row.key for row in searched}) == TRIALS
    assert all(row.test_accuracy is not None for row in rows if row.known_as and row.rank)
    assert killed > KILLS // 2


def check(rows: list[Row], log: list[list[str]]) -> None:
    """What the log calls stored is in the table, and was not trained again afterwards."""
    seeds = {row.key: row.seeds for row in rows}
    stored: dict[str, int] = {}
    closed: set[str] = set()
    for kind, name, *rest in log:
        if kind == "train":
            assert name not in closed, f"{name} was trained again"
        else:
            closed.add(f"{hashlib.sha256(name.encode()).hexdigest()[:20]}-{rest[0]}")
            stored[name] = stored.get(name, 0) + 1
    assert all(seeds[key] >= count for key, count in stored.items())
