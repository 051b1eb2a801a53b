"""The ranked table, made from study.db alone: while a run goes on, after a kill, at the end."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from nas.files import storage_errors, write_atomically
from nas.objectives import ACCURACY, front, history, point
from nas.places import places
from nas.run import Settings, read_record
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
    front: with several objectives, whether no other network dominates it. hypervolume: of all
    networks trained until then, this one included (`nas.objectives`).
    """

    rank: int | None
    design: str
    known_as: str | None
    params: int | None
    mults: int | None
    accuracy: float | None
    state: Literal["complete", "stopped", "failed", "infeasible"]
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
    front: bool | None = None
    hypervolume: float | None = None
    key: str | None = None
    network: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What --json and the Parquet table show."""
        return {name: value for name, value in asdict(self).items() if name not in INTERNAL}


def rows(
    trainings: Iterable[Training],
    tests: Mapping[str, float],
    refused: Iterable[Mapping[str, Any]],
    settings: Settings | None = None,
) -> list[Row]:
    """Ranked networks first, then those that were stopped early, then failed ones, then the
    infeasible designs with their reasons. settings: for the objectives, accuracy unless given.

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
    volumes = _volumes([group[0] for group in grouped.values()], settings)
    found = [
        replace(_row(group, tests.get(key)), hypervolume=volume)
        for (key, group), volume in zip(grouped.items(), volumes, strict=True)
    ]
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
    ranked = _fronted(ranked, settings)
    ended = [row for state in ("stopped", "failed") for row in found if row.state == state]
    return ranked + ended + infeasible


def _references(facts: Sequence[Mapping[str, Any]], settings: Settings | None) -> dict[str, float]:
    """Of each cost that is an objective: its limit, or what the dearest network costs."""
    names = [name for name in settings.objectives if name != ACCURACY] if settings else []
    limits = {name: getattr(settings, f"max_{name}") for name in names}
    return {name: limits[name] or max(one[name] for one in facts) for name in names}


def _volumes(trainings: Sequence[Training], settings: Settings | None) -> list[float]:
    """The hypervolume after the first training of each network."""
    done = [training.facts for training in trainings if training.accuracy is not None]
    references = _references(done, settings) if done else {}
    return history(
        None if one.accuracy is None else point(one.accuracy, one.facts, references)
        for one in trainings
    )


def _fronted(ranked: list[Row], settings: Settings | None) -> list[Row]:
    """The rows with what the front says of them, where there are several objectives."""
    names = [name for name in settings.objectives if name != ACCURACY] if settings else []
    if not names:
        return ranked
    leads = front([(-(r.accuracy or 0.0), *(getattr(r, name) for name in names)) for r in ranked])
    return [replace(row, front=lead) for row, lead in zip(ranked, leads, strict=True)]


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
        state="complete" if reached else "failed" if first.stopped is None else "stopped",
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
        return rows(ledger.rows, ledger.tests, refusals(store), settings)


def write_table(folder: Path, found: list[Row]) -> None:
    """Replace trials.parquet as a whole."""
    import pandas as pd

    buffer = BytesIO()
    pd.DataFrame([row.to_dict() for row in found]).to_parquet(buffer, index=False)
    with storage_errors(folder):
        write_atomically(folder / "trials.parquet", buffer.getvalue())
