"""Workers die, tasks fail, and no result is lost or given to another job."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import kill_own_process, raise_error, stop_own_process

from nas.crew import Crew, MachineError
from nas.executors import Engine, InProcess, Plain, Processes, Workers


def ignore(job: object) -> None: ...


def two_workers() -> Executor:
    return Workers(2)


def crew() -> Crew[str]:
    return Crew(Plain(InProcess), ignore)


def test_results_come_with_their_jobs_in_order() -> None:
    one = crew()
    for name in "abc":
        one.submit(name, dict, {"name": name})
    assert [one.next() for _ in "abc"] == [(name, {"name": name}) for name in "abc"]
    with pytest.raises(LookupError, match="no job"):
        one.next()


def test_an_exception_is_the_result_of_its_task() -> None:
    one = crew()
    one.submit("bad", raise_error, {"error": ArithmeticError("17 is not 18")})
    assert one.next() == ("bad", {"failure": "ArithmeticError: 17 is not 18"})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ImportError("no torch")])
def test_an_error_of_the_machine_is_not(error: Exception) -> None:
    one = crew()
    one.submit("innocent", raise_error, {"error": error})
    with pytest.raises(MachineError) as raised:
        one.next()
    assert raised.value.__cause__ is error


def received(crew: Crew[str], count: int) -> dict[str, Mapping[str, Any]]:
    return dict(found for _ in range(count) if (found := crew.next()) is not None)


def pool() -> Engine:
    return Plain(two_workers, 2)


def lanes() -> Engine:
    return Processes([None, None])


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pool, lanes])
def test_a_task_that_kills_its_worker_twice_fails_alone(engine: Callable[[], Engine]) -> None:
    started: list[str] = []
    both: Crew[str] = Crew(engine(), started.append)
    both.submit("a", kill_own_process, {"deadly": False, "seconds": 1.0})
    both.submit("killer", kill_own_process, {"deadly": True, "seconds": 0})
    both.submit("b", kill_own_process, {"deadly": False, "seconds": 0})
    results = received(both, 3)
    assert len(both) == 0
    both.close()
    assert results["killer"] == {"failure": "its worker process died 2 times"}
    assert all(results[name]["process"] != os.getpid() for name in "ab")
    assert started.count("killer") == 2 and started.count("a") <= (1 if engine is lanes else 2)


@pytest.mark.slow
def test_a_task_that_hangs_fails_and_its_worker_is_replaced() -> None:
    """One that sleeps, and one whose process is stopped and answers to nothing."""
    both: Crew[str] = Crew(lanes(), ignore, limit=3.0)
    both.submit("sleeps", kill_own_process, {"deadly": False, "seconds": 1000})
    both.submit("stopped", stop_own_process, {})
    both.submit("a", kill_own_process, {"deadly": False, "seconds": 0.5})
    both.submit("b", kill_own_process, {"deadly": False, "seconds": 0})
    results = received(both, 4)
    both.close()
    for name in ("sleeps", "stopped"):
        assert results[name] == {"failure": "it ran longer than 3 s"}
    assert all(results[name]["process"] != os.getpid() for name in "ab")


def test_nothing_within_the_patience() -> None:
    slow: Crew[str] = Crew(Plain(lambda: ThreadPoolExecutor(1)), ignore)
    slow.submit("a", kill_own_process, {"deadly": False, "seconds": 0.2})
    assert slow.next(0.01) is None
    assert received(slow, 1).keys() == {"a"}
    slow.close()


SCRIPT = """
import os, sys
from fake_trainer import kill_own_process
from nas.executors import Workers
if __name__ == "__main__":
    pool = Workers(1)
    print(pool.submit(kill_own_process, {"deadly": False, "seconds": 0}).result()["process"])
    sys.stdout.flush()
    future = pool.submit(kill_own_process, {"deadly": False, "seconds": 100})
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
    pool.shutdown(wait=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "abandoned"])
def test_workers_end_with_their_driver(how: str, tmp_path: Path) -> None:
    """A driver that is killed cannot tell its workers, and one that gives up does not wait."""
    (tmp_path / "driver.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), how],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=60,
    )
    worker = int(done.stdout)
    deadline = time.monotonic() + 10
    while _runs(worker):
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
