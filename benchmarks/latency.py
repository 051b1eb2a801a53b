"""Does the roofline know how long a block takes? Estimates against measured medians.

Blocks of several designs, with 1 < g < C among them, on three map sizes; the width of each is the
one whose multiplications come nearest to a target, so that within a target all have the same
within 20 %. Two questions, two rank correlations (Spearman):

    over all blocks:     estimate against measured, and multiplications against measured
    within each target:  the same, where multiplications say nothing; the mean over the targets

The aims are 0.9 and 0.7. The device profile is measured first, in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import nn

from analysis.cost import part_cost
from benchmarks.machine import RESULTS, machine, store
from nas.calibrate import calibrate
from nas.roofline import estimate
from nas.threads import threads
from spaces.design import Design, parse
from spaces.network import Part, block
from spaces.operator import DesignError

TARGETS = (300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
MAPS = (8, 16, 32)
NEAR = 0.1  # of the target, so that two blocks of one target differ by 20 % at most
WIDTHS = range(16, 513, 16)
DESIGNS = (
    "STD",
    "STD(k=5)",
    "GC(2)",
    "GC(4)",
    "GC(16)",
    "DW+PW",
    "DW(k=5)+PW",
    "GC(4)+PWG(4)",
    "GC(8)+PWG(2)",
    "GC(16)+PW",
    "PW+DW+PW@1/4",
    "PW+DW+PW@2",
    "PWG(4)+DW+PWG(4)@1/4",
    "PWG(2)+DW+PWG(2)",
    "PWG(8)+DW+PWG(8)",
    "PW+GC(16)~+PW@1/2",
    "PW+STD+PW@1/4",
)
AIMS = (0.9, 0.7)


@dataclass(frozen=True)
class Row:
    """One block: milliseconds estimated and measured."""

    target: int
    design: str
    channels: int
    side: int
    mults: int
    estimated: float
    measured: float


def candidates(target: int) -> Iterator[tuple[Design, int, int, Part]]:
    """(design, channels, side, block) for each design and map with a width near the target."""
    for design in map(parse, DESIGNS):
        for side in MAPS:
            near = []
            for channels in WIDTHS:
                try:
                    part = block(str(design), design, channels, channels, side, side)
                    distance = abs(part_cost(part).mults / target - 1)
                except DesignError:
                    continue
                near.append((distance, channels, part))
            if near:
                distance, channels, part = min(near, key=lambda one: one[0])
                if distance <= NEAR:
                    yield design, channels, side, part


@torch.inference_mode()
def measured(
    models: Sequence[nn.Module], inputs: Sequence[torch.Tensor], rounds: int
) -> list[float]:
    """Medians in milliseconds; the models take turns, so that a busy moment hits them alike."""
    times: list[list[float]] = [[] for _ in models]
    for _ in range(rounds):
        for index, (model, x) in enumerate(zip(models, inputs, strict=True)):
            model(x)
            start = time.perf_counter()
            model(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            times[index].append(1e3 * (time.perf_counter() - start))
    return [statistics.median(one) for one in times]


def correlation(rows: Sequence[Row], by: str) -> float:
    return float(spearmanr([getattr(r, by) for r in rows], [r.measured for r in rows]).statistic)


def main(arguments: list[str]) -> int:
    """Print the two correlations; the exit code is 1 where an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks latency", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=RESULTS / "latency.json")
    asked = parser.parse_args(arguments)
    with threads(asked.threads):
        started = time.perf_counter()
        profile = calibrate(asked.device, asked.threads)
        took = time.perf_counter() - started
        built: list[tuple[int, Design, int, int, Part]] = [
            (target, *one) for target in TARGETS for one in candidates(target)
        ]
        models = [part.module().eval().to(asked.device) for *_, part in built]
        inputs = [torch.zeros(1, c, s, s, device=asked.device) for _, _, c, s, _ in built]
        times = measured(models, inputs, asked.rounds)
        rows = [
            Row(
                target,
                str(design),
                channels,
                side,
                part_cost(part).mults,
                1e3 * estimate(model, tuple(x.shape), profile),
                milliseconds,
            )
            for (target, design, channels, side, part), model, x, milliseconds in zip(
                built, models, inputs, times, strict=True
            )
        ]
    result = summary(rows) | {"calibration_seconds": took, "device": profile.device}
    where = machine(("torch",)) | {"threads": asked.threads}
    store(where | result | {"rows": [asdict(row) for row in rows]}, asked.json)
    _print(result, where)
    return int(result["all"]["estimated"] < AIMS[0] or result["equal"]["estimated"] < AIMS[1])


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Rank correlations of the estimate and of the multiplications with what was measured."""
    ratio = [row.estimated / row.measured for row in rows]
    groups = {t: [row for row in rows if row.target == t] for t in TARGETS}
    within = {
        str(t): {by: correlation(group, by) for by in ("estimated", "mults")}
        | {"blocks": len(group)}
        for t, group in groups.items()
        if len(group) >= 8
    }
    return {
        "blocks": len(rows),
        "grouped": sum("GC(" in row.design or "PWG" in row.design for row in rows),
        "median_ratio": statistics.median(ratio),
        "all": {by: correlation(rows, by) for by in ("estimated", "mults")},
        "equal": {
            by: statistics.fmean(one[by] for one in within.values())
            for by in ("estimated", "mults")
        },
        "within": within,
    }


def _print(result: dict[str, Any], where: dict[str, Any]) -> None:
    print(f"{where['processor']}, {where['threads']} thread(s), torch {where['versions']['torch']}")
    print(
        f"{result['blocks']} blocks, {result['grouped']} of them grouped; profile measured in "
        f"{result['calibration_seconds']:.1f} s; estimate / measured {result['median_ratio']:.2f}"
    )
    print(f"{'Spearman with measured':<28}{'estimate':>10}{'mults':>10}{'aim':>8}")
    for name, key, aim in (("all sizes", "all", AIMS[0]), ("equal mults, mean", "equal", AIMS[1])):
        found = result[key]
        print(f"{name:<28}{found['estimated']:>10.2f}{found['mults']:>10.2f}{aim:>8}")
    for target, found in result["within"].items():
        name = f"  {int(target):,} ({found['blocks']} blocks)"
        print(f"{name:<28}{found['estimated']:>10.2f}{found['mults']:>10.2f}")
