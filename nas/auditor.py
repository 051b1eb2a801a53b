"""The audit of a finished run: a sample of its designs is trained for long.

    audit(Path("runs/first"), sample=12, seeds=2)      ->  Audited, and audit.json in the folder

The sample is stratified over the brief ranking and settled by the run's seed; designs without an
accuracy (failed, or stopped early) have no rank and are not in it. `nas.audit_lab` trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nas import audit as statistics
from nas.audit_lab import AuditLab
from nas.datasets import Dataset
from nas.files import RunError
from nas.observer import Observer, Silent
from nas.plan import Plan, plan
from nas.rankings import FREE, TRIVIAL, training_free, trivial
from nas.run import RunFolder, Settings
from nas.schedule import LONG, Schedule
from nas.search import data_of, engine_for
from nas.study import Ledger, refusals, study_of
from nas.table import Row, rows
from nas.trainer import TORCH, Trainer


@dataclass(frozen=True)
class Audited:
    """audit.json of a run; where the audit was interrupted, without what long training says."""

    run: Path
    content: dict[str, Any]
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"run": str(self.run), **self.content, "interrupted": self.interrupted}


def audit(
    folder: Path,
    *,
    sample: int = 12,
    seeds: int = 2,
    epochs: int | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
    trainer: Trainer = TORCH,
    executor: Callable[[], Executor] | None = None,
) -> Audited:
    """Train what is missing and compare. Ctrl-C and SIGTERM give what is `interrupted`.

    epochs: in place of those of `nas.schedule.LONG`. workers: processes, those of the run unless
    given. Raises RunError for a run that is not finished or has too few designs, and as
    `nas.search.resume`.
    """
    if sample < statistics.LEAST or seeds < 1:
        raise RunError(
            f"a sample of {sample} designs with {seeds} seeds was asked for; an agreement needs "
            f"at least {statistics.LEAST} designs and one seed"
        )
    schedule = replace(LONG, epochs=epochs or LONG.epochs)
    with RunFolder.open(folder) as run:
        if run.record.finished is None:
            raise RunError(
                f"{folder} is not finished, so its ranking is not settled; "
                f"go on with leanfield search --resume {folder} first"
            )
        settings = _settings(run, schedule, workers)
        with study_of(folder, settings) as store:
            ledger = Ledger(store)
            ranked = [
                row
                for row in rows(ledger.rows, ledger.tests, refusals(store))
                if row.rank is not None
            ]
            if len(ranked) < statistics.LEAST:
                raise RunError(
                    f"{folder} has {len(ranked)} designs with an accuracy; an audit needs at "
                    f"least {statistics.LEAST}: search with more --trials"
                )
            accuracies = [row.accuracy or 0.0 for row in ranked]
            chosen = [ranked[i] for i in statistics.stratified(accuracies, sample, settings.seed)]
            planned, data = plan(settings), data_of(run)
            bench = AuditLab(
                planned, run, store, schedule, trainer, engine_for(settings, data, executor)
            )
            whole = bench.train(chosen, seeds, observer or Silent())
            after_search = statistics.brief(ranked, ledger.rows, settings.seed)
            if not whole:
                content = {"schema": statistics.SCHEMA, "brief": after_search, "long": None}
                return Audited(folder, content, interrupted=True)
            compared = _compare(chosen, seeds, bench, planned, data)
            compared |= {"schedule": asdict(schedule), "seeds": seeds, "asked": sample}
            return Audited(folder, statistics.write(folder, after_search, compared))


def _settings(run: RunFolder, schedule: Schedule, workers: int | None) -> Settings:
    """Those of the run, with other workers; its time limit grows with the length of a training."""
    own = run.record.settings
    changes: dict[str, Any] = {}
    if workers is not None:
        changes |= {"workers": workers, "executor": None, "per_gpu": None}
    if own.trial_timeout is not None:
        longer = max(1.0, schedule.epochs / int(run.record.schedule["epochs"]))
        changes["trial_timeout"] = own.trial_timeout * longer
    return own.model_copy(update=changes)


def _compare(
    chosen: Sequence[Row], seeds: int, bench: AuditLab, planned: Plan, data: Dataset
) -> dict[str, Any]:
    """The agreement over the designs of which no long training failed. Raises RunError where these
    are too few."""
    from nas.threads import threads

    kept, trained, failed = [], [], []
    for row in chosen:
        reached = [value for value in bench.reached(row.key or "", seeds) if value is not None]
        if len(reached) == seeds:
            kept.append(row)
            trained.append(reached)
        else:
            failed.append(row.design)
    if len(kept) < statistics.LEAST:
        raise RunError(
            f"of {len(chosen)} designs only {len(kept)} could be trained for long; an agreement "
            f"needs at least {statistics.LEAST}"
        )
    values = []
    with threads(planned.settings.threads):
        for row in kept:
            entry = planned.proxy(planned.read(row.network or {}))
            own = {"brief": row.accuracy, **trivial(row), **training_free(entry, data)}
            values.append(own)
    columns = {name: [one[name] for one in values] for name in ("brief", *TRIVIAL, *FREE)}
    facts = [
        {
            "design": row.design,
            "known_as": row.known_as,
            "blocks": list(row.blocks or ()),
            "rank": row.rank,
            "place": list(row.place or ()),
            **own,
        }
        for row, own in zip(kept, values, strict=True)
    ]
    return {**statistics.long(facts, columns, trained, planned.settings.seed), "failed": failed}
