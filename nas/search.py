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

from nas.datasets import Dataset, load
from nas.driver import Driver, Result
from nas.executors import InProcess, Workers
from nas.files import RunError
from nas.observer import Observer, Silent
from nas.plan import plan
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
        run.begin(settings, asdict(schedule), data.fingerprint)
        keep(data)
        make = executor or _executors(settings, data)
        return Driver(planned, run, observer or Silent(), trainer, make).run()


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
        data = load(settings.data)
        if data.fingerprint != run.record.data_fingerprint:
            raise RunError(
                f"{settings.data}: the data has changed since {folder} was begun; start a new run"
            )
        keep(data)
        make = executor or _executors(settings, data)
        return Driver(planned, run, observer or Silent(), trainer, make).run()


def _executors(settings: Settings, data: Dataset) -> Callable[[], Executor]:
    """Worker processes get the data as it is, so that none has to import what reads it."""
    if settings.workers == 1:
        return InProcess
    return lambda: Workers(settings.workers, partial(keep, data))
