"""The ranked table, made from study.db alone: while a run goes on, after a kill, at the end."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from nas.files import storage_errors, write_atomically
from nas.places import places
from nas.run import read_record
from nas.study import Ledger, Training, refusals, study_of

INTERNAL = ("key", "network")


@dataclass(frozen=True)
class Row:
    """A network of the run.

    accuracy: mean over `seeds` trainings on the validation split, accuracy_std their sample
    standard deviation. test_accuracy: mean of the same networks on the test split, read once after
    the ranking. Costs are those that the limits hold for; traffic in bytes, latency in seconds.
    place: the first and the last rank of those that share a place, since their seeds cannot tell
    them from the first of them (`nas.places`); the order among them means little.
    """

    rank: int | None
    design: str
    known_as: str | None
    params: int | None
    mults: int | None
    accuracy: float | None
    state: Literal["complete", "failed", "infeasible"]
    width: int | None = None
    blocks: tuple[int, ...] | None = None
    traffic: int | None = None
    seeds: int = 0
    accuracy_std: float | None = None
    test_accuracy: float | None = None
    latency: float | None = None
    seconds: float | None = None
    reason: str | None = None
    place: tuple[int, int] | None = None
    key: str | None = None
    network: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What --json and the Parquet table show."""
        return {name: value for name, value in asdict(self).items() if name not in INTERNAL}


def rows(
    trainings: Iterable[Training], tests: Mapping[str, float], refused: Iterable[Mapping[str, Any]]
) -> list[Row]:
    """Ranked networks first, then failed ones, then the infeasible designs with their reasons.

    Rank: by place, and in a place the finalists, who were trained with further seeds, before the
    others; then by mean accuracy over the seeds that did not fail; then the smaller network. Places
    are given out in that order too.
    """
    grouped: defaultdict[str, list[Training]] = defaultdict(list)
    infeasible = []
    for training in trainings:
        if training.trained:
            grouped[training.key].append(training)
        else:
            infeasible.append(_infeasible(training.facts, training.known_as, training.reason))
    infeasible += [_infeasible(one, None, one["reason"]) for one in refused]
    found = [_row(group, tests.get(key)) for key, group in grouped.items()]
    tried = {key: len(group) for key, group in grouped.items()}
    complete = sorted(
        (row for row in found if row.state == "complete"),
        key=lambda row: (-tried[row.key or ""], -(row.accuracy or 0.0), row.params, row.key),
    )
    ranked: list[Row] = []
    for indices in places([_reached(grouped[row.key or ""]) for row in complete]):
        first, last = len(ranked) + 1, len(ranked) + len(indices)
        ranked += [
            replace(complete[index], rank=rank, place=(first, last))
            for rank, index in enumerate(indices, start=first)
        ]
    return ranked + [row for row in found if row.state == "failed"] + infeasible


def _row(trainings: list[Training], test_accuracy: float | None) -> Row:
    """One network, trained with one or more seeds."""
    first = trainings[0]
    reached = _reached(trainings)
    reasons = [training.reason for training in trainings if training.reason is not None]
    facts = first.facts
    return Row(
        rank=None,
        design=facts["design"],
        known_as=first.known_as,
        params=facts["params"],
        mults=facts["mults"],
        accuracy=statistics.fmean(reached) if reached else None,
        state="complete" if reached else "failed",
        width=facts["width"],
        blocks=tuple(facts["blocks"]),
        traffic=facts["traffic"],
        seeds=len(reached),
        accuracy_std=statistics.stdev(reached) if len(reached) > 1 else None,
        test_accuracy=test_accuracy,
        latency=facts.get("latency"),
        seconds=sum(training.facts["seconds"] for training in trainings),
        reason="; ".join(reasons) or None,
        key=first.key,
        network=first.network,
    )


def _reached(trainings: Iterable[Training]) -> list[float]:
    return [training.accuracy for training in trainings if training.accuracy is not None]


def _infeasible(facts: Mapping[str, Any], known_as: str | None, reason: str | None) -> Row:
    return Row(
        rank=None,
        design=facts["design"],
        known_as=known_as,
        params=None,
        mults=None,
        accuracy=None,
        state="infeasible",
        blocks=tuple(facts["blocks"]),
        reason=reason,
    )


def table(folder: Path) -> list[Row]:
    """The table of a run as it stands. Raises RunError where `folder` is no run folder."""
    settings = read_record(folder).settings
    if settings.storage is None and not (folder / "study.db").is_file():
        return []
    with study_of(folder, settings) as store:
        ledger = Ledger(store)
        return rows(ledger.rows, ledger.tests, refusals(store))


def write_table(folder: Path, found: list[Row]) -> None:
    """Replace trials.parquet as a whole."""
    import pandas as pd

    buffer = BytesIO()
    pd.DataFrame([row.to_dict() for row in found]).to_parquet(buffer, index=False)
    with storage_errors(folder):
        write_atomically(folder / "trials.parquet", buffer.getvalue())
