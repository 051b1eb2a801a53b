"""The search: propose, refuse or train, rank, test.

    settings -> plan (limits, space, known blocks)     no design fits: BudgetError, before any work
             -> known blocks trained                   phase "known"
             -> proposals until `trials` are trained   phase "search"
             -> further seeds for the leaders          phase "finals"
             -> test split, once, after ranking        phase "test"
             -> table and winners

Every step looks into the ledger first (`nas.study`), so a run that was killed goes through the same
code and does only what is missing. torch and Optuna are imported when a design is known to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from kernels.backends import MissingComponentError
from nas.datasets import Dataset, load
from nas.driver import Driver
from nas.executors import Engine, InProcess, Plain, Processes
from nas.files import RunError
from nas.observer import Observer, Silent
from nas.plan import plan
from nas.result import Result
from nas.run import RunFolder, Settings
from nas.schedule import BRIEF
from nas.table import table
from nas.trainer import TORCH, Trainer, keep


def search(
    settings: Settings,
    folder: Path,
    observer: Observer | None = None,
    *,
    trainer: Trainer = TORCH,
    executor: Callable[[], Executor] | None = None,
) -> Result:
    """Run a search in a new folder. Ctrl-C and SIGTERM give a Result that is `interrupted`.

    executor: makes the executor of the trainings, instead of `settings.workers` processes.
    Raises BudgetError where no design fits, DataError, DesignError and RunError.
    """
    with RunFolder.create(folder) as run:
        planned = plan(settings)
        data = load(settings.data)
        planned.check_latency()
        schedule = replace(BRIEF, epochs=settings.epochs or BRIEF.epochs)
        engine = engine_for(settings, data, executor)
        run.begin(settings, asdict(schedule), data.fingerprint)
        return Driver(planned, run, observer or Silent(), trainer, engine).run()


def resume(
    folder: Path,
    observer: Observer | None = None,
    *,
    trainer: Trainer = TORCH,
    executor: Callable[[], Executor] | None = None,
) -> Result:
    """Go on with a run, whatever ended it; a finished one gives its table. Raises as `search`."""
    with RunFolder.open(folder) as run:
        if run.record.finished is not None:
            return Result(folder, table(folder))
        settings = run.record.settings
        planned = plan(settings)
        data = data_of(run)
        engine = engine_for(settings, data, executor)
        return Driver(planned, run, observer or Silent(), trainer, engine).run()


def data_of(run: RunFolder) -> Dataset:
    """The data of a run. Raises RunError where it is no longer what the run began with."""
    source = run.record.settings.data
    data = load(source)
    if data.fingerprint != run.record.data_fingerprint:
        raise RunError(
            f"{source}: the data has changed since {run.path} was begun; start a new run"
        )
    return data


def engine_for(
    settings: Settings, data: Dataset, executor: Callable[[], Executor] | None = None
) -> Engine:
    """The workers that the settings ask for. Raises RunError for what does not go together and
    MissingComponentError for what is not here."""
    keep(data)
    kind, _, address = (settings.executor or _usual(settings)).partition(":")
    if executor is not None or kind == "in-process":
        _refuse(settings, "trial_timeout", "per_gpu", why="only a process of its own can be ended")
        if executor is not None:
            return Plain(executor, settings.workers)
        _refuse(settings, "workers", why="--executor in-process is one after the other")
        return Plain(InProcess)
    if kind == "dask":
        _refuse(settings, "workers", "per_gpu", why="a Dask cluster has the workers it was given")
        try:
            from nas.cluster import Cluster
        except ImportError as error:
            raise MissingComponentError(
                f"a Dask cluster needs what is not installed ({error}); "
                "pip install 'leanfield[cluster]'"
            ) from None
        return Cluster(address)
    if settings.per_gpu is not None:
        _refuse(settings, "workers", why="--per-gpu says how many there are")
        slots = [gpu for gpu in range(_gpus()) for _ in range(settings.per_gpu)]
        return Processes([partial(keep, data, gpu) for gpu in slots], "cuda")
    # The processes get the data as it is, so that none has to import what reads it.
    return Processes([partial(keep, data)] * settings.workers)


def _usual(settings: Settings) -> str:
    alone = settings.workers == 1 and settings.trial_timeout is None and settings.per_gpu is None
    return "in-process" if alone else "processes"


def _refuse(settings: Settings, *names: str, why: str) -> None:
    """Raises RunError where one of these settings is not what it is without being given."""
    for name in names:
        if getattr(settings, name) != Settings.model_fields[name].default:
            option = "--" + name.replace("_", "-")
            raise RunError(f"{option} does not go with these workers: {why}; leave it out")


def _gpus() -> int:
    """How many GPUs torch can use. Raises MissingComponentError for none."""
    import torch

    if not (count := torch.cuda.device_count()):
        raise MissingComponentError(
            "--per-gpu needs a GPU that torch can use, and there is none here; "
            "leave it out to train on the CPU"
        )
    return count
