"""python -m benchmarks ranking: how far brief training can be believed, from SparseKernelBench.

Every schedule is judged by Kendall's tau of its accuracies on the validation split (mean of its
seeds) with what long training shows: the mean of its seeds and, since twice the images halve the
noise, of the validation and the test split. Choices were made on half A of the designs at the first
budget; what counts is half B at the second. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import RESULTS, machine, store
from benchmarks.ranking_plot import draw
from nas.agreement import bootstrap, ceiling, kendall, partial, spearman, top_recall
from nas.sparse_kernel_bench import BRIEF, LONG, SparseKernelBench

TRIVIAL = (
    "params",
    "mults",
    "traffic_bytes",
    "width",
    "depth",
    "field_size",
    "field_volume",
    "rank",
)
SCORES = ("naswot", "gradient", "snip", "synflow")
FEWEST = 8  # designs that a tau is given for
TOP = 0.2  # of the designs count as the best


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ranking", description=__doc__)
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "ranking.json")
    parser.add_argument("--figure", type=Path, default=None, help="draw the schedules there")
    asked = parser.parse_args(arguments)
    bench = SparseKernelBench.load(*[asked.table] if asked.table else [])
    small, large = sorted(bench.pairs()["budget"].unique())
    result: dict[str, Any] = {"machine": machine(["numpy", "torch"]), "table": bench.fingerprint}
    result["schedules"] = list(schedules(bench, "A", small))
    print(
        f"schedules, half A at {small:,} parameters: tau with the long training, seconds a design"
    )
    for row in result["schedules"]:
        print(
            f"  {row['schedule']:<22}{row['seeds']} seeds {row['tau']:6.2f}{row['seconds']:8.2f} s "
            f"on {row['designs']} designs, where brief has {row['brief_there']:.2f}"
        )
    result["agreement"] = []
    for half, budget in (("B", large), ("B", small), ("A", large), ("A", small)):
        result["agreement"].append(agreement(bench, half, budget))
        _show(result["agreement"][-1])
    store(result, asked.out)
    if asked.figure is not None:
        draw(result["schedules"], result["agreement"][-1], asked.figure)
    return 0


def schedules(bench: SparseKernelBench, half: str, budget: int) -> Iterator[dict[str, Any]]:
    """Each schedule with 1, 2, ... seeds: tau, its interval and the seconds that one design takes.

    With fewer seeds than there are, tau is the mean over all choices of that many in a row.
    brief_there: tau of the default with all its seeds on the same designs.
    """
    truth = _long(bench, half, budget).mean(axis=1)
    usual = _known(bench, BRIEF, truth, half, budget).mean(axis=1)
    for name in bench.schedules:
        if name == LONG:
            continue
        table = _known(bench, name, truth, half, budget)
        if len(table) < FEWEST:
            continue
        table = table.loc[table.index.intersection(usual.index)]
        kept = truth.loc[table.index]
        seconds = bench.accuracies(name, column="seconds", half=half, budget=budget)
        one = float(seconds.loc[table.index].mean(axis=None))
        count = table.shape[1]
        for seeds in range(1, count + 1):
            chosen = [[(i + j) % count for j in range(seeds)] for i in range(count)]
            found = [kendall(table.iloc[:, columns].mean(axis=1), kept) for columns in chosen]
            yield {
                "schedule": name,
                "seeds": seeds,
                "tau": float(np.mean(found)),
                "interval": bootstrap(kendall, table.iloc[:, :seeds].mean(axis=1), kept)[1:],
                "seconds": seeds * one,
                "designs": len(table),
                "brief_there": kendall(usual.loc[table.index], kept),
            }


def agreement(bench: SparseKernelBench, half: str, budget: int) -> dict[str, Any]:
    """Brief training, trivial rankings and training-free scores against long training."""
    long = _long(bench, half, budget)
    truth = long.mean(axis=1)
    brief = _known(bench, BRIEF, truth, half, budget).mean(axis=1)
    long, truth = long.loc[brief.index], truth.loc[brief.index]
    facts = bench.pairs(half=half, budget=budget).set_index(["design", "budget"]).loc[brief.index]
    rankings = {name: facts[name].astype(float).fillna(0) for name in (*TRIVIAL, *SCORES)}
    rivals = {name: bootstrap(kendall, column, truth) for name, column in rankings.items()}
    best = max(rivals, key=lambda name: abs(rivals[name].value))
    sign = np.sign(rivals[best].value)
    complete = facts["complete"].to_numpy(bool)
    k = max(1, round(TOP * len(truth)))
    return {
        "half": half,
        "budget": int(budget),
        "designs": len(truth),
        "brief": bootstrap(kendall, brief, truth),
        "spearman": bootstrap(spearman, brief, truth),
        "recall": bootstrap(lambda b, t: top_recall(b, t, k), brief, truth),
        "top": k,
        "ceiling": ceiling(long)._asdict(),
        "complete_only": bootstrap(kendall, brief[complete], truth[complete]),
        "complete_ceiling": ceiling(long[complete])._asdict(),
        "rivals": rivals,
        "best_rival": best,
        "above_best_rival": bootstrap(
            lambda b, r, t: kendall(b, t) - kendall(r, t), brief, sign * rankings[best], truth
        ),
        "params_held": bootstrap(partial, brief, truth, facts["params"]),
        "best_rival_held": bootstrap(partial, brief, truth, rankings[best]),
        "long": {"mean": float(truth.mean()), "sd": float(truth.std()), "best": float(truth.max())},
        "seed_sd": float(np.sqrt(np.mean(long.var(axis=1)))),
    }


def _long(bench: SparseKernelBench, half: str, budget: int) -> pd.DataFrame:
    """What each seed of long training reached on validation and test images together."""
    validation = bench.accuracies(LONG, half=half, budget=budget)
    test = bench.accuracies(LONG, column="test_accuracy", half=half, budget=budget)
    return ((validation + test) / 2).dropna()


def _known(
    bench: SparseKernelBench, schedule: str, truth: pd.Series[float], half: str, budget: int
) -> pd.DataFrame:
    """The accuracies of those designs of `truth` that have every seed; a failure counts as 0."""
    filters = {"half": half, "budget": budget}
    trained = bench.accuracies(schedule, column="seconds", **filters).notna().all(axis=1)
    table = bench.accuracies(schedule, **filters).loc[trained[trained].index].fillna(0.0)
    return table.loc[table.index.intersection(truth.index)]


def _show(part: dict[str, Any]) -> None:
    most = part["ceiling"]
    print(f"\nhalf {part['half']} at {part['budget']:,} parameters, {part['designs']} designs")
    print(f"  brief training      {part['brief']}   Spearman {part['spearman']}")
    print(f"  best {part['top']} found        {part['recall']}")
    print(
        f"  ceiling             {most['single']:.2f} one long training with another "
        f"({most['mean']:.2f} with the mean, {most['noiseless']:.2f} without noise): "
        f"{part['brief'].value / most['single']:.0%} reached"
    )
    print(
        f"  complete fields     {part['complete_only']} of {part['complete_ceiling']['single']:.2f}"
    )
    for name, interval in sorted(part["rivals"].items(), key=lambda item: -abs(item[1].value)):
        print(f"  {name:<20}{interval}")
    print(f"  above {part['best_rival']:<14}{part['above_best_rival']}")
    print(
        f"  with it held        {part['best_rival_held']}, with params held {part['params_held']}"
    )
