"""python -m benchmarks samplers: how many trainings until one of the best 2 % is found.

On SparseKernelBench, one half of the designs at one budget at a time; nothing is trained. A trial
shows the accuracy of one brief training, drawn among the seeds of the table; which networks are the
best 2 % is settled by the mean of these seeds. Trials are different networks: Optuna's samplers may
ask for one again, and are told what it reached, free of charge, as the search does it. They get the
columns of the table as genes; where no row has the genes that they ask for, they get the nearest
one by the number of genes that differ, of several one at random. After 20 proposals in a row that
were trained before, a random one is taken, also as in the search.

The prior of our model is fitted on half A only (in a search on all); choices were made there, at
the first budget, and what counts is half B at the second budget. For half A itself the prior is
that of half B.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna

from benchmarks.machine import RESULTS, machine, store
from nas.model import scores
from nas.prior import Prior, raw_features
from nas.sparse_kernel_bench import BRIEF, SparseKernelBench
from nas.surrogate import Array
from spaces.design import parse

BEST = 0.02
PATIENCE = 20
SLOW_SEEDS = 5
"""Seeds of Optuna's Gaussian process, which takes seconds a proposal."""

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "TPE": lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed),
    "NSGA-II": lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    "GP": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
NAMES = ("random", *SAMPLERS, "model")


class Part(NamedTuple):
    """A half at a budget: features, genes and accuracies (designs x seeds) of its networks."""

    half: str
    budget: int
    raw: Array
    genes: list[dict[str, str | int]]
    accuracies: Array

    @property
    def best(self) -> set[int]:
        """The networks that count as found."""
        means = self.accuracies.mean(axis=1)
        return set(np.argsort(-means, kind="stable")[: max(1, -int(-BEST * len(means) // 1))])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks samplers", description=__doc__)
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--schedule", default=BRIEF, help="whose accuracies a trial shows")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=RESULTS / "samplers.json")
    asked = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = SparseKernelBench.load(*[asked.table] if asked.table else [])
    small, large = sorted(map(int, bench.pairs(asked.schedule)["budget"].unique()))
    parts = {
        (half, budget): part(bench, asked.schedule, half, budget)
        for half in "AB"
        for budget in (small, large)
    }
    result: dict[str, Any] = {"machine": machine(["optuna", "numpy"]), "table": bench.fingerprint}
    result["parts"] = []
    for half, budget in (("B", large), ("B", small), ("A", large), ("A", small)):
        other = "A" if half == "B" else "B"
        fitted = joined(parts[other, small], parts[other, large])
        found = {
            name: trials(name, parts[half, budget], fitted, asked.seeds) for name in asked.only
        }
        count, best = len(parts[half, budget].genes), len(parts[half, budget].best)
        result["parts"].append(
            {"half": half, "budget": budget, "networks": count, "best": best, "trials": found}
        )
        print(f"half {half} at {budget:,} parameters: {best} of {count} networks are to be found")
        for name, counts in found.items():
            low, middle, high = np.quantile(counts, [0.25, 0.5, 0.75])
            ratios = [
                f"{middle / np.median(found[other]):.2f} of {other}'s"
                for other in ("random", "TPE")
                if other in found and name == "model"
            ]
            print(f"  {name:<8}{middle:6.1f} [{low:.0f}, {high:.0f}]  {', '.join(ratios)}")
    store(result, asked.out)
    return 0


def part(bench: SparseKernelBench, schedule: str, half: str, budget: int) -> Part:
    """What the table holds of a half at a budget, without the trainings that failed."""
    table = bench.accuracies(schedule, half=half, budget=budget).dropna()
    pairs = bench.pairs(schedule, half=half, budget=budget).set_index(["design", "budget"])
    rows = pairs.loc[table.index].reset_index()
    genes = [
        genome(family, block, blocks)
        for family, block, blocks in zip(rows["family"], rows["block"], rows["blocks"], strict=True)
    ]
    return Part(half, budget, raw_features(rows), genes, table.to_numpy(float))


def joined(first: Part, second: Part) -> Part:
    """Both budgets of a half."""
    raw = np.concatenate([first.raw, second.raw])
    accuracies = np.concatenate([first.accuracies, second.accuracies])
    return Part(first.half, 0, raw, first.genes + second.genes, accuracies)


def genome(family: str, block: str, blocks: str) -> dict[str, str | int]:
    """A design of the table as genes: what a search would let a sampler choose."""
    design = parse(block)
    numbers = [
        f"q={q}" if (q := getattr(op, "q", None)) else str(getattr(op, "g", None) or "-")
        for op in design.operators
    ]
    return {
        "family": family,
        "numbers": ",".join(numbers),
        "kernel": max(max(operator.window or (1, 1)) for operator in design.operators),
        "ratio": str(Fraction(design.inner or 1)),
        "blocks": blocks,
    }


def trials(name: str, where: Part, fitted: Part, seeds: int) -> list[int]:
    """How many networks were trained when one of the best was, for each seed."""
    counts = []
    for seed in range(min(seeds, SLOW_SEEDS) if name == "GP" else seeds):
        order = _modelled(where, fitted, seed) if name == "model" else _sampled(name, where, seed)
        best = where.best
        counts.append(next(count for count, index in enumerate(order, 1) if index in best))
    return counts


def _shown(where: Part, seed: int) -> Array:
    """One of each network's accuracies."""
    columns = np.random.default_rng(seed).integers(where.accuracies.shape[1], size=len(where.genes))
    return np.asarray(where.accuracies[np.arange(len(columns)), columns])


def _modelled(where: Part, fitted: Part, seed: int) -> Iterator[int]:
    """Our model: every network of the part is a candidate, none is asked for twice."""
    prior = Prior.fit(fitted.raw, fitted.accuracies.mean(axis=1))
    x = prior.standardised(where.raw, where.raw)
    shown, left, done = _shown(where, seed), list(range(len(x))), list[int]()
    while left:
        gains = scores(
            prior, x[left], np.empty((len(left), 0)), x[done], np.empty((len(done), 0)),
            shown[done], x[:0], seed,
        )  # fmt: skip
        done.append(left.pop(int(np.argmax(gains))))
        yield done[-1]


def _sampled(name: str, where: Part, seed: int) -> Iterator[int]:
    """A sampler of Optuna; "random" takes the networks in a random order."""
    draw = random.Random(seed)
    left = list(range(len(where.genes)))
    draw.shuffle(left)
    if name == "random":
        yield from left
        return
    shown, useless = _shown(where, seed), 0
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](seed))
    choices = {gene: sorted({one[gene] for one in where.genes}) for gene in where.genes[0]}
    space = {
        gene: optuna.distributions.CategoricalDistribution(values)
        for gene, values in choices.items()
    }
    while left:
        if useless == PATIENCE:
            index, useless = left[-1], 0
        else:
            trial = study.ask(space)
            index = _nearest(where, trial.params, draw)
            study.tell(trial, shown[index])
        if index in left:
            left.remove(index)
            useless = 0
            yield index
        else:
            useless += 1


def _nearest(where: Part, genes: dict[str, Any], draw: random.Random) -> int:
    differing = [sum(one[gene] != genes[gene] for gene in genes) for one in where.genes]
    least = min(differing)
    return draw.choice([index for index, count in enumerate(differing) if count == least])
