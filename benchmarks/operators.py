"""Does each operator train? One design of each under a common budget, against the dense one.

Every design gets the same number of parameters at most, blocks, schedule, data and seeds; its
width is solved. The score is the share of the way from chance to STD,

    (accuracy - chance) / (accuracy of STD - chance),

with the mean validation accuracy over the seeds. The aim is 0.6; a design below it is printed with
its figure. The schedule is `nas.schedule.BRIEF` for more epochs and at a higher rate, since three
epochs tell little of how far a network of 20,000 parameters gets on hard-digits.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, machine, store
from nas.budget import Refusal, solve
from nas.candidates import Candidate, Task
from nas.compositions import ALL, compositions
from nas.datasets import load
from nas.groups import numbered, opened, starred
from nas.limits import Limits, quantity
from nas.schedule import BRIEF, Schedule
from spaces.design import Design, parse
from spaces.operator import DesignError
from spaces.vocabulary import vocabulary

AIM = 0.6
GROUPS = 16
"""The number of groups of LeanConvNets, where no theorem gives one."""


@dataclass(frozen=True)
class Row:
    """What one design reached."""

    design: str
    width: int
    params: int
    accuracies: list[float]
    seconds: float
    failures: list[str]

    @property
    def mean(self) -> float:
        """Over the seeds; a training that failed counts as nothing learnt."""
        return statistics.fmean(self.accuracies)


def designs() -> dict[Design, list[str]]:
    """STD, and for each operator the shortest composition that has it, with its group numbers."""
    composed = sorted(compositions([ALL], incomplete=True), key=lambda d: len(d.operators))
    found: dict[Design, list[str]] = {parse("STD"): ["STD"]}
    for symbol in sorted(set(vocabulary()) - {"STD"}):
        design = next((d for d in composed if symbol in d.composition), None)
        if design is None:
            raise DesignError(f"no composition of two operators has {symbol}")
        found.setdefault(_closed(design), []).append(symbol)
    return found


def _closed(design: Design) -> Design:
    """With the optimum where a theorem gives it, else with 16 groups."""
    grouped = numbered(design, g=GROUPS)
    return starred(design) if opened(design) else grouped


def measure(candidate: Candidate, limits: Limits, schedule: Schedule, seeds: int) -> Row:
    """Train the widest network of the candidate. Raises DesignError where none fits."""
    from nas.threads import threads
    from nas.train import seeded, train

    data = load("hard-digits")
    shape = data.shape
    task = Task((shape.channels, shape.height, shape.width), shape.classes)
    sized = solve(candidate, task, limits, allow_incomplete=True)
    if isinstance(sized, Refusal):
        raise DesignError(sized.reason)
    outcomes = []
    for seed in range(seeds):
        with threads(1), seeded(seed):
            outcomes.append(train(sized.module(seed), data, schedule, seed))
    chance = 1 / shape.classes
    return Row(
        sized.title,
        sized.width,
        sized.cost.params,
        [chance if o.accuracy is None else o.accuracy for o in outcomes],
        round(sum(o.seconds for o in outcomes), 1),
        [o.failure for o in outcomes if o.failure],
    )


def main(arguments: Sequence[str] = ()) -> int:
    """Prints one line a design; exit code 0 if each trains, also one below the aim."""
    parser = argparse.ArgumentParser(prog="benchmarks operators", description=__doc__)
    parser.add_argument("--max-params", default="20k")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=1, help="of each of three stages")
    parser.add_argument("--only", nargs="*", help="operators; STD always runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    limits = Limits(params=int(quantity(asked.max_params)))
    schedule = replace(BRIEF, epochs=asked.epochs, learning_rate=asked.learning_rate)
    wanted = {"STD", *(asked.only or vocabulary())}
    chosen = {design: of for design, of in designs().items() if wanted.intersection(of)}
    chance = 1 / load("hard-digits").shape.classes
    print(
        f"hard-digits, at most {asked.max_params} parameters, {asked.epochs} epochs, "
        f"{asked.seeds} seeds, chance {chance:.3f}"
    )
    print(f"{'operators':10} {'design':22} {'width':>5} {'params':>7} {'accuracy':>8} {'share':>6}")
    rows: list[dict[str, Any]] = []
    dense = chance
    for design, symbols in chosen.items():
        row = measure(Candidate(design, (asked.blocks,) * 3), limits, schedule, asked.seeds)
        dense = row.mean if symbols == ["STD"] else dense
        share = (row.mean - chance) / (dense - chance)
        notes = [f"below {AIM}"] * (share < AIM) + row.failures
        figures = f"{row.width:5} {row.params:7} {row.mean:8.3f} {share:6.2f}"
        print(f"{','.join(symbols):10} {row.design:22} {figures}  {'; '.join(notes)}", flush=True)
        rows.append({"operators": symbols, **asdict(row), "share": round(share, 3)})
    result = {
        "machine": machine(("torch", "numpy")),
        "data": "hard-digits",
        "max_params": limits.params,
        "blocks": [asked.blocks] * 3,
        "schedule": asdict(schedule),
        "chance": chance,
        "aim": AIM,
        "rows": rows,
    }
    print("stored in", store(result, asked.out / "operators.json"))
    return 0
