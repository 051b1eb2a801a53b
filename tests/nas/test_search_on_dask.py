"""A Dask cluster on loopback: workers die, hang and join late, and nothing is lost or repeated."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import (
    FAKE,
    LOG,
    kill_own_process,
    logged_process,
    raise_error,
    stop_own_process,
)
from killing import SMALL, killed_search, kinds, lines

from kernels.backends import MissingComponentError
from nas.crew import Crew
from nas.files import RunError
from nas.observer import Silent
from nas.run import settings
from nas.search import search
from nas.table import Row, table

pytestmark = pytest.mark.slow
pytest.importorskip("distributed", reason="pip install 'leanfield[cluster]'")

Cluster = tuple[str, "Start", subprocess.Popen[bytes]]
Start = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def programs(folder: Path) -> Iterator[Start]:
    """Starts `dask ...` with our modules in reach; ends what it started."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = {
        **os.environ,
        "PYTHONPATH": paths,
        LOG: str(folder / "log"),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "6",
        "OMP_NUM_THREADS": "1",
    }
    with ExitStack() as stack:

        def start(*words: str, **extra: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
            with (folder / "dask.log").open("ab") as log:
                process = subprocess.Popen(command, env={**env, **extra}, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process

        yield start


@contextmanager
def cluster(folder: Path, workers: int = 2, **env: str) -> Iterator[Cluster]:
    """The address of a scheduler; `dask worker` with a nanny and one thread for each worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with programs(folder) as start:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), **env)
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        if workers:
            join(start, address, folder, workers)
        yield address, start, scheduler


def join(start: Start, address: str, folder: Path, workers: int = 1) -> None:
    words = ["worker", address, "--nthreads", "1", "--nworkers", str(workers)]
    start(*words, "--local-directory", str(folder / "scratch"))


def wait_for(step: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return step()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("dask")
    with cluster(folder) as (address, *_):
        yield address, folder / "log"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return search(settings(**SMALL), tmp_path_factory.mktemp("calm") / "run", trainer=FAKE).rows


@pytest.mark.parametrize("seed", range(10))
def test_killed_drivers_and_workers(
    seed: int, tmp_path: Path, shared: tuple[str, Path], undisturbed: list[Row]
) -> None:
    address, log = shared
    log.write_text("")
    asked = {**SMALL, "executor": f"dask:{address}"}
    rows = killed_search(tmp_path / "run", log, asked, seed, "driver worker both")
    assert kinds(rows) == kinds(undisturbed)


def received(crew: Crew[str]) -> dict[str, Mapping[str, Any]]:
    results = {}
    while len(crew):
        if (found := crew.next(0.5)) is not None:
            results[found[0]] = found[1]
    return results


def test_workers_that_die_hang_and_join_late(tmp_path: Path) -> None:
    """A poisonous task fails after as many deaths as the scheduler allows, a hung one in time."""
    from nas.cluster import Cluster

    patient = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with cluster(tmp_path, workers=0, **patient) as (address, start, _):
        engine = Cluster(address)
        crew: Crew[str] = Crew(engine, lambda job: None, limit=2.0)
        crew.submit("early", kill_own_process, {"deadly": False, "seconds": 0})
        assert crew.next(3.0) is None, "there is no worker yet, and that is no hanging"
        join(start, address, tmp_path)
        assert received(crew)["early"]["process"] != os.getpid()
        crew.submit("killer", kill_own_process, {"deadly": True, "seconds": 0})
        assert "its workers died" in received(crew)["killer"]["failure"]
        crew.submit("wrong", raise_error, {"error": ArithmeticError("17 is not 18")})
        crew.submit("sleeps", kill_own_process, {"deadly": False, "seconds": 1000})
        crew.submit("late", kill_own_process, {"deadly": False, "seconds": 0})
        results = received(crew)
        assert results["wrong"] == {"failure": "ArithmeticError: 17 is not 18"}
        assert results["sleeps"] == {"failure": "it ran longer than 2 s"}
        assert "process" in results["late"], "its worker was replaced"
        crew.submit("stopped", stop_own_process, {})
        assert results.keys() | received(crew).keys() == {"wrong", "sleeps", "late", "stopped"}
        crew.close()


def test_a_result_that_was_given_out_is_not_computed_again(tmp_path: Path) -> None:
    """The worker that holds it dies in the same moment, while another one is free."""
    from nas.cluster import Cluster

    def kill(future: Future[Any]) -> None:
        os.kill(future.result()["process"], signal.SIGKILL)
        time.sleep(2)

    with cluster(tmp_path) as (address, *_):
        engine = Cluster(address)
        task = {"key": "one", "repeat": 0}
        future = engine.submit(logged_process, task)
        future.add_done_callback(kill)
        future.result(60)
        time.sleep(3)
        engine.close(abandon=False)
        assert len(lines(tmp_path / "log")) == 1


def test_a_scheduler_that_goes_away_ends_the_run_and_keeps_it(tmp_path: Path) -> None:
    with cluster(tmp_path) as (address, _, scheduler):
        asked = settings(**SMALL, executor=f"dask:{address}")
        begun: list[str] = []

        class Kills(Silent):
            def started(self, design: str, known_as: str | None) -> None:
                begun.append(design)
                if len(begun) == 6:
                    scheduler.kill()

        with pytest.raises(RunError, match=r"cannot be reached any more; .* --resume"):
            search(asked, tmp_path / "real", Kills(), trainer=FAKE)
        assert 1 <= sum(row.seeds for row in table(tmp_path / "real")) <= 6
    with pytest.raises(RunError, match=r"no Dask scheduler answers at .*dask scheduler"):
        search(asked, tmp_path / "run", trainer=FAKE)
    assert not (tmp_path / "run").exists()


def test_real_trainings_on_the_cluster(tmp_path: Path, shared: tuple[str, Path]) -> None:
    """The weights come back through the result, and the figures are those of this process."""
    small = {**SMALL, "epochs": 1, "trials": 2, "seeds": 1}
    here = search(settings(**small), tmp_path / "here")
    there = search(settings(**small, executor=f"dask:{shared[0]}"), tmp_path / "there")
    known = [[row for row in one.rows if row.known_as and row.rank] for one in (here, there)]
    figures = [{row.key: (row.accuracy, row.test_accuracy) for row in rows} for rows in known]
    assert figures[0] == figures[1] != {}


def test_what_does_not_go_together(tmp_path: Path) -> None:
    for wrong in (
        {"executor": "dask:tcp://x:1", "workers": 2},
        {"executor": "dask:tcp://x:1", "per_gpu": 2},
        {"executor": "in-process", "workers": 2},
        {"executor": "in-process", "trial_timeout": 2},
        {"per_gpu": 1, "workers": 2},
    ):
        with pytest.raises(RunError, match="does not go with these workers"):
            search(settings(**SMALL, **wrong), tmp_path / "run", trainer=FAKE)
    with pytest.raises(RunError, match="executor is 'ray'"):
        settings(executor="ray")
    with pytest.raises(MissingComponentError, match="needs a GPU that torch can use"):
        search(settings(**SMALL, per_gpu=1), tmp_path / "run", trainer=FAKE)
    assert not (tmp_path / "run").exists()
