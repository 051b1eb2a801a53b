"""The papers' claims about which design is better, restated at equal budget and tested.

Each claim says that one arm reaches a higher accuracy than another. Both arms get the same limit of
parameters (the width is solved), the same data, schedule and seeds. The effect is the mean over the
seeds of the difference in validation accuracy, with Student's 95 % interval of the paired
differences:

    d +/- t(n-1) s / sqrt(n).

    seen       the interval lies above zero        (for "as good as": above -MARGIN)
    not seen   the interval lies below zero        (for "as good as": below -MARGIN)
    undecided  neither

The papers trained on ImageNet and CIFAR, for a hundred epochs and more; what is not seen on
hard-digits may hold there. An arm that is trained is stored at once, and not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.machine import RESULTS, machine, store
from benchmarks.operators import Row, measure
from nas.candidates import Candidate
from nas.limits import Limits, quantity
from nas.schedule import Schedule
from spaces.design import parse

SCHEDULE = Schedule(epochs=40, learning_rate=0.4, augment=2)
MARGIN = 0.02
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Arm:
    """A design in every block, and how many blocks each of three stages has."""

    design: str
    blocks: int = 1

    def __str__(self) -> str:
        return self.design + (f" x{self.blocks}" if self.blocks > 1 else "")

    @property
    def candidate(self) -> Candidate:
        return Candidate(parse(self.design), (self.blocks,) * 3)


@dataclass(frozen=True)
class Claim:
    """`better` beats `worse` at equal budget; as_good: it is at least not worse."""

    source: str
    sentence: str
    better: Arm
    worse: Arm
    as_good: bool = False


FOG2 = "Penetrating the Fog, Table 2"
FOG3 = "Penetrating the Fog, Table 3"
LEAN4 = "LeanConvNets, Table IV"
FACTORIZED = "Factorized CNN"
LOW2 = "Low-cost parameterizations, Table 2"

CLAIMS = (
    Claim(FOG2, "groups, hence wider, before none", Arm("PW+GC(2)~+PW@1/2"), Arm("PW+STD+PW@1/2")),
    Claim(FOG2, "more groups, hence wider", Arm("PW+DW+PW@1/2"), Arm("PW+GC(2)~+PW@1/2")),
    Claim(FOG2, "width before depth", Arm("PW+STD+PW@1/2"), Arm("PW+STD+PW@1/2", 2)),
    Claim(FOG2, "width before depth, depthwise", Arm("DW+PW"), Arm("DW+PW", 3)),
    Claim(FOG3, "sparse and wide before dense", Arm("DW+PW"), Arm("STD")),
    Claim(FOG3, "the widest before DW+PW", Arm("PW+DW+PW@1/4"), Arm("DW+PW")),
    Claim(FOG3, "even group numbers before uneven", Arm("GC(4)+PWG(4)"), Arm("GC(8)+PWG(2)")),
    Claim(FOG3, "a complete field before a part", Arm("GC(4)+PWG(4)"), Arm("GC(4)~+PWG(4)")),
    Claim(LEAN4, "constant size before number", Arm("LEAN(q=4,s=9)"), Arm("LEAN(g=4,s=9)")),
    Claim(LEAN4, "groups before depthwise", Arm("LEAN(g=4,s=9)"), Arm("LEAN(q=1,s=9)")),
    Claim(LEAN4, "5 points before 9", Arm("LEAN(g=4,s=5)"), Arm("LEAN(g=4,s=9)")),
    Claim(LEAN4, "9 points before 3", Arm("LEAN(g=4,s=9)"), Arm("LEAN(g=4,s=3)")),
    Claim(FACTORIZED, "B as good as A", Arm("UNR(b=4)"), Arm("STD"), as_good=True),
    Claim(FACTORIZED, "D before C", Arm("SIC+SIC"), Arm("SIC")),
    Claim(FACTORIZED, "E before D", Arm("SIC+SIC+SIC"), Arm("SIC+SIC")),
    Claim(FACTORIZED, "E before A", Arm("SIC+SIC+SIC"), Arm("STD")),
    Claim(FACTORIZED, "5x5 before 3x3", Arm("SIC(k=5)+SIC(k=5)"), Arm("SIC+SIC")),
    Claim(FACTORIZED, "subdivision before groups", Arm("TPS(2)+PW"), Arm("GC(4)+PW")),
    Claim(FACTORIZED, "subdivision as good as A", Arm("TPS(2)+PW"), Arm("STD"), as_good=True),
    Claim(LOW2, "LinearMix before explicit", Arm("LINEARMIX+PW"), Arm("RD+PW")),
    Claim(LOW2, "explicit before implicit", Arm("RD+PW"), Arm("IRD+PW")),
    Claim(LOW2, "implicit before circulant", Arm("IRD+PW"), Arm("CRD+PW")),
    Claim(LOW2, "ResNet before LinearMix", Arm("STD"), Arm("LINEARMIX+PW")),
)


@dataclass(frozen=True)
class Effect:
    """A difference in accuracy with the ends of its interval, and what it says of the claim."""

    value: float
    low: float
    high: float
    verdict: str


def effect(better: Sequence[float], worse: Sequence[float], *, as_good: bool = False) -> Effect:
    """The verdict on paired accuracies, one pair a seed. Raises ValueError for fewer than two."""
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    if len(differences) < 2:
        raise ValueError("an interval needs at least two seeds")
    value = statistics.fmean(differences)
    spread = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * spread
    threshold = -MARGIN if as_good else 0.0
    if value - half > threshold:
        verdict = "seen"
    elif value + half < threshold:
        verdict = "not seen"
    else:
        verdict = "undecided"
    return Effect(value, value - half, value + half, verdict)


def main(arguments: Sequence[str] = ()) -> int:
    """Train what is missing, print a table in Markdown; exit code 0 whatever the verdicts are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks claims", description=__doc__)
    parser.add_argument("--max-params", default="30k")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "claims.json")
    asked = parser.parse_args(arguments)
    limits = Limits(params=int(quantity(asked.max_params)))
    setting = {
        "data": "hard-digits",
        "max_params": limits.params,
        "seeds": asked.seeds,
        "schedule": asdict(SCHEDULE),
    }
    arms = _earlier(asked.json, setting)
    for arm in dict.fromkeys(arm for claim in CLAIMS for arm in (claim.better, claim.worse)):
        if str(arm) in arms:
            continue
        row = measure(arm.candidate, limits, SCHEDULE, asked.seeds)
        arms[str(arm)] = asdict(row)
        where = machine(("torch", "numpy"))
        store({"machine": where, "setting": setting, "arms": arms}, asked.json)
        print(f"{arm!s:24} width {row.width:4}  {row.params:6} params  {row.mean:.3f}", flush=True)
    effects = [_tested(claim, arms) for claim in CLAIMS]
    rows = [asdict(c) | asdict(e) for c, e in zip(CLAIMS, effects, strict=True)]
    where = machine(("torch", "numpy"))
    store({"machine": where, "setting": setting, "claims": rows, "arms": arms}, asked.json)
    print(markdown(arms, effects))
    return 0


def _tested(claim: Claim, arms: dict[str, Any]) -> Effect:
    better, worse = (arms[str(arm)]["accuracies"] for arm in (claim.better, claim.worse))
    return effect(better, worse, as_good=claim.as_good)


def markdown(arms: dict[str, Any], effects: Sequence[Effect]) -> str:
    """The table of the README: points of accuracy in per cent."""
    lines = [
        "| claim | arms (width) | accuracy, % | effect, points | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for claim, found in zip(CLAIMS, effects, strict=True):
        rows = [Row(**arms[str(arm)]) for arm in (claim.better, claim.worse)]
        names = " against ".join(
            f"`{arm}` ({row.width})"
            for arm, row in zip((claim.better, claim.worse), rows, strict=True)
        )
        reached = " / ".join(f"{100 * row.mean:.1f}" for row in rows)
        interval = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        lines.append(
            f"| {claim.sentence} ({claim.source}) | {names} | {reached} | {interval} "
            f"| {found.verdict} |"
        )
    return "\n".join(lines)


def _earlier(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """The arms of a run with the same setting that was stopped or is done."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    return dict(found["arms"]) if found.get("setting") == setting else {}
