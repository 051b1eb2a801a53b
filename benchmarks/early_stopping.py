"""python -m benchmarks early_stopping: what stopping costs and saves, on SparseKernelBench.

The networks of the table arrive in a random order and are trained along their stored curves, once
to the end and once with the rule of `nas.stopping`: by accuracy alone, and by accuracy, parameters
and multiplications. Printed are the hypervolume that is reached, as a share of that of full
training, and the share of the epochs; medians and extremes of the seeds. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import RESULTS, machine, store
from nas.objectives import hypervolume, point
from nas.sparse_kernel_bench import BRIEF, LONG, SparseKernelBench
from nas.stopping import Curve, bar, dominated_floors, halving_floors, rungs

OBJECTIVES = {1: (), 3: ("params", "mults")}


class Arrival(NamedTuple):
    """A network of the table: its curve and its costs."""

    curve: Curve
    costs: dict[str, float]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks early_stopping")
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--schedules", nargs="+", default=[LONG, BRIEF])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "early_stopping.json")
    asked = parser.parse_args(arguments)
    bench = SparseKernelBench.load(*[asked.table] if asked.table else [])
    result: dict[str, Any] = {"machine": machine(["numpy"]), "table": bench.fingerprint, "rows": []}
    for schedule in asked.schedules:
        judged = used(bench, schedule)
        print(f"{schedule}: judged after {', '.join(map(str, judged))} epochs")
        for count, names in OBJECTIVES.items():
            for label, all_of_them in populations(bench, schedule, names):
                found = [simulated(all_of_them, names, judged, seed) for seed in range(asked.seeds)]
                volumes, epochs = np.array(found).T
                row = {
                    "schedule": schedule,
                    "objectives": count,
                    "networks": label,
                    "count": len(all_of_them),
                    "volume": volumes.tolist(),
                    "epochs": epochs.tolist(),
                }
                result["rows"].append(row)
                print(
                    f"  {count} objectives, {label:<14} {len(all_of_them):4} networks: hypervolume "
                    f"{100 * np.median(volumes):.1f} % [{100 * volumes.min():.1f}, "
                    f"{100 * volumes.max():.1f}], epochs {100 * np.median(epochs):.0f} % "
                    f"[{100 * epochs.min():.0f}, {100 * epochs.max():.0f}]"
                )
    store(result, asked.out)
    return 0


def used(bench: SparseKernelBench, schedule: str) -> tuple[int, ...]:
    """The epochs at which a stored curve is judged: the first at or after each rung."""
    points = epochs_of(bench, schedule)
    return tuple(sorted({next(p for p in points if p >= rung) for rung in rungs(points[-1])}))


def epochs_of(bench: SparseKernelBench, schedule: str) -> list[int]:
    """The epochs of the stored accuracies."""
    definition = bench.record["schedules"][schedule]
    every, last = definition["every"], definition["schedule"]["epochs"]
    return sorted({last, *range(every, last + 1, every)})


def populations(
    bench: SparseKernelBench, schedule: str, names: Sequence[str]
) -> Iterator[tuple[str, list[Arrival]]]:
    """All networks trained by a schedule with its first seed: of each budget where accuracy is the
    only objective, else together."""
    rows = bench.trainings[bench.trainings["schedule"] == schedule]
    rows = rows[(rows["seed"] == rows["seed"].min()) & rows["accuracy"].notna()]
    points = epochs_of(bench, schedule)
    groups = [("both budgets", rows)] if names else list(rows.groupby("budget"))
    for label, part in groups:
        yield (
            str(label),
            [
                Arrival(
                    dict(zip(points, map(float, row["curve"]), strict=True)),
                    {name: float(row[name]) for name in names},
                )
                for _, row in part.iterrows()
            ],
        )


def simulated(
    networks: Sequence[Arrival], names: Sequence[str], judged: Sequence[int], seed: int
) -> tuple[float, float]:
    """Shares of the hypervolume and of the epochs of full training."""
    order = np.random.default_rng(seed).permutation(len(networks))
    references = {name: max(one.costs[name] for one in networks) for name in names}
    end, spent = judged[-1], 0
    curves: list[Curve] = []
    finished: list[Arrival] = []
    for index in order:
        new = networks[index]
        floors = floors_for(new, names, curves, finished, judged)
        last = next((e for e in judged[:-1] if new.curve[e] < floors[e]), end)
        spent += last
        curves.append({epoch: new.curve[epoch] for epoch in judged if epoch <= last})
        if last == end:
            finished.append(new)
    reached, possible = (
        hypervolume([point(one.curve[end], one.costs, references) for one in some])
        for some in (finished, networks)
    )
    return reached / possible, spent / (end * len(networks))


def floors_for(
    new: Arrival,
    names: Sequence[str],
    curves: Sequence[Curve],
    finished: Sequence[Arrival],
    judged: Sequence[int],
) -> dict[int, float]:
    """As the search computes them when a training begins."""
    if not names:
        return halving_floors(curves, judged)
    end = judged[-1]
    ends = [(one.curve[end], list(one.costs.values())) for one in finished]
    return dominated_floors(curves, bar(list(new.costs.values()), ends), judged)
