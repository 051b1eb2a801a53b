"""Which trainings make the table, in the order in which they are run.

    every pair of design and budget         brief, 3 seeds
    a sample, the same at both budgets      long, 2 seeds
    its half A at the first budget          every other protocol, by which the default was chosen

The strata, halves and families are woven, each spread evenly over the whole order, so that the
table is balanced wherever its making stops; the sample comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from nas.sparse_kernel_bench.designs import BUDGETS, Listed, half, hashed, listed
from nas.sparse_kernel_bench.protocols import FIRST, PROTOCOLS, Protocol

SAMPLE = {
    ("fog", "A"): 11,
    ("full", "A"): 7,
    ("control", "A"): 12,
    ("fog", "B"): 12,
    ("full", "B"): 10,
    ("control", "B"): 10,
}
"""Designs with long training, of each stratum and half."""

DEAR = ("CIRC", "LINEARMIX")
"""Operators that, like all with a time step, take as long as five others: not trained for long."""


class Job(NamedTuple):
    """One training."""

    listed: Listed
    budget: int
    protocol: Protocol
    seed: int


def plan(
    protocols: Mapping[str, Protocol] = PROTOCOLS, designs: Iterable[Listed] | None = None
) -> Iterator[Job]:
    """Every training once, in order."""
    order = woven(listed() if designs is None else designs)
    sample = sampled(order)
    first = [one for one in sample if half(one.candidate.design) == "A"]
    for one in first:
        for name in FIRST:
            yield from _jobs(one, BUDGETS[0], protocols[name])
    for budget, ab in ((BUDGETS[1], "B"), (BUDGETS[0], "B"), (BUDGETS[1], "A")):
        for one in sample:
            if half(one.candidate.design) == ab:
                yield from _jobs(one, budget, protocols["long"])
                yield from _jobs(one, budget, protocols["brief"])
    for one in order:
        for budget in BUDGETS:
            yield from _jobs(one, budget, protocols["brief"])
    for one in first:
        for protocol in protocols.values():
            yield from _jobs(one, BUDGETS[0], protocol)


def sampled(order: Iterable[Listed]) -> list[Listed]:
    """Of an order the first of each stratum and half, as many as `SAMPLE` says, without `DEAR`."""
    left = dict(SAMPLE)
    taken = []
    for one in order:
        design = one.candidate.design
        key = one.stratum, half(design)
        dear = any(op.kind == "step" or op.symbol in DEAR for op in design.operators)
        if left[key] and not dear:
            left[key] -= 1
            taken.append(one)
    return taken


def woven(designs: Iterable[Listed]) -> list[Listed]:
    """Families in turn within each stratum and half, and these spread evenly among each other."""
    groups: dict[tuple[str, str], dict[str, list[Listed]]] = {}
    for one in designs:
        families = groups.setdefault((one.stratum, half(one.candidate.design)), {})
        families.setdefault(one.family, []).append(one)
    placed: list[tuple[Fraction, tuple[str, str], Listed]] = []
    for key, families in groups.items():
        turns = [
            (turn, hashed(family), one)
            for family, own in families.items()
            for turn, one in enumerate(own)
        ]
        own = [one for _, _, one in sorted(turns, key=lambda t: t[:2])]
        placed += [(Fraction(2 * i + 1, 2 * len(own)), key, one) for i, one in enumerate(own)]
    return [one for _, _, one in sorted(placed, key=lambda p: p[:2])]


def _jobs(one: Listed, budget: int, protocol: Protocol) -> Iterator[Job]:
    return (Job(one, budget, protocol, seed) for seed in protocol.seeds)
