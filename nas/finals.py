"""The finals: the same schedule and the same seeds for the leaders and every known block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nas.candidates import Entry, Sized
from nas.exports import file_stem, python
from nas.files import storage_errors, write_atomically
from nas.objectives import ACCURACY, Point, contribution, costs_of, front, point
from nas.run import RunFolder
from nas.study import Ledger, Training
from nas.table import Row

SCHEMA = 1


def training_seed(seed: int, repeat: int) -> int:
    """The seed of the `repeat`-th training, equal for all networks: the same images in the same
    order, so that a comparison is one of designs."""
    return int.from_bytes(hashlib.sha256(f"train {seed} {repeat}".encode()).digest()[:4], "big")


def leaders(
    trainings: Iterable[Training], count: int | None, objectives: Sequence[str] = (ACCURACY,)
) -> list[Training]:
    """The best searched networks by their first training; the smaller of equals first.

    With several objectives those that no other network dominates, the one first that adds most to
    the hypervolume of those before. count: None for all of them.
    """
    first = [row for row in trainings if row.repeat == 0 and row.accuracy is not None]
    searched = [row for row in first if row.known_as is None]
    searched.sort(key=lambda row: (-(row.accuracy or 0.0), row.facts["params"], row.key))
    if len(objectives) == 1:
        return searched[:count]
    points = losses(first, objectives)
    on_front = dict(zip((row.key for row in first), front(points), strict=True))
    at = dict(zip((row.key for row in first), points, strict=True))
    left = [row for row in searched if on_front[row.key]]
    if count is None or len(left) <= count:
        return left
    chosen: list[Training] = []
    for _ in range(count):
        before = [at[row.key] for row in chosen]
        chosen.append(max(left, key=lambda row: contribution(at[row.key], before)))
        left.remove(chosen[-1])
    return chosen


def losses(rows: Sequence[Training], objectives: Sequence[str]) -> list[Point]:
    """Of each network, costs relative to the largest among them."""
    costs = [costs_of(row.facts, objectives) for row in rows]
    largest = {name: max(one[name] for one in costs) for name in (costs[0] if costs else ())}
    return [point(row.accuracy or 0.0, one, largest) for row, one in zip(rows, costs, strict=True)]


def finalists(
    trainings: Iterable[Training], count: int, objectives: Sequence[str] = (ACCURACY,)
) -> list[Training]:
    """The first training of each network of the finals: known blocks, then the leaders."""
    trainings = list(trainings)
    known = [row for row in trainings if row.repeat == 0 and row.known_as and row.trained]
    return known + leaders(trainings, count, objectives)


def missing(
    ledger: Ledger, count: int, seeds: int, objectives: Sequence[str] = (ACCURACY,)
) -> list[tuple[Training, int]]:
    """(first training, repeat) of each training still to be done: one seed for all, then the
    next, so that an early end leaves a fair comparison."""
    chosen = finalists(ledger.rows, count, objectives)
    return [
        (first, repeat)
        for repeat in range(1, seeds)
        for first in chosen
        if ledger.get(first.key, repeat) is None
    ]


def shipped(trainings: Iterable[Training], key: str) -> Training:
    """Of a network's trainings the one whose weights are handed over: best on validation."""
    own = [row for row in trainings if row.key == key and row.accuracy is not None]
    return min(own, key=lambda row: (-(row.accuracy or 0.0), row.repeat))


def write_winner(
    folder: RunFolder, row: Row, training: Training, trained: Entry, weights: bytes
) -> Path:
    """winners/<rank>-<design>/ with network.json, weights.safetensors and stand-alone code.

    network.json: `network` is what the limits hold for, `trained` what weights and code belong to
    (it differs with --deploy), `result` the row of the table. A user's own block has no code here.
    """
    name = file_stem(trained) if isinstance(trained, Sized) else "rival"
    target = folder.path / "winners" / f"{row.rank:02}-{name}"
    spec = {
        "schema": SCHEMA,
        "network": training.network,
        "trained": trained.to_dict(),
        "seed": training.facts["seed"],
        "result": row.to_dict(),
    }
    with storage_errors(folder.path):
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / "weights.safetensors", weights)
        write_atomically(target / "network.json", json.dumps(spec, indent=2).encode() + b"\n")
        if isinstance(trained, Sized):
            facts = training_facts(folder.record.settings.data, row)
            code = python.render(trained, "weights.safetensors", facts)
            write_atomically(target / f"{name}.py", code.encode())
    return target


def training_facts(data: str, row: Row) -> dict[str, Any]:
    """What an exported file says of its training."""
    return {
        "data": data,
        "accuracy": row.accuracy,
        "test_accuracy": row.test_accuracy,
        "seeds": row.seeds,
    }
