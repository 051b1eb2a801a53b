"""The designs of SparseKernelBench: which blocks, in which depths, at which width for a budget.

    fog       the survivors of the paper's funnel, plain and as bottlenecks, with group numbers that
              are optimal, constant or of constant size, kernels of 3 and 5, and STD beside them
    full      the survivors of the funnel over the whole vocabulary with up to two operators, under
              both of its targets, as far as they can stand in the layout (C -> C and C -> 2 C);
              with a time step, those that the paper's target leaves or that `nas search` composes
    control   an incomplete field: the shuffle removed, M N beyond the width, one operator alone

Each family has a pool: its kernels, ratios, group numbers and depths, crossed. Of a pool those are
taken that fill both budgets, in the order of a hash, up to the share of the family.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

from analysis.choices import SIZE, TARGETS
from analysis.field import field
from analysis.funnel import funnel
from nas.budget import Refusal, solve
from nas.candidates import Candidate, Sized, Task
from nas.compositions import ALL, compositions
from nas.groups import numbered, opened, unsettled, with_groups
from nas.limits import Limits
from spaces.design import Design, parse
from spaces.symbols import with_kernel

Stratum = Literal["fog", "full", "control"]

TASK = Task((1, 16, 16), 10)
BUDGETS = (5_000, 12_000)
FILLED = 0.7  # of the budget at least, lest size rank the designs
DEAREST = 2_000_000  # multiplications an image at most; a depthwise block of 200 channels has more

DEPTHS = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 1, 3))
MORE_DEPTHS = ((2, 1, 1), (1, 2, 1))
KERNELS = (3, 5)
RATIOS = ("1/8", "1/4", "1/2", "2")
NUMBERS = ("*,*", "2,2", "2,4", "4,2", "4,4", "2,8", "8,2", "q=2,q=16", "q=4,q=8", "q=8,q=4")
SIZES = (1, 2, 4)
CHANNELS = 64  # at which the funnel sifts, as the paper's does

FOG = {
    "STD": 5,
    "DW+PW": 10,
    "GC({0})+PWG({1})": 16,
    "PWG({0})+DW+PWG({1})": 14,
    "PW+DW+PW@{r}": 16,
    "PWG({0})+DW+PWG({1})@{r}": 16,
}
"""The families of the paper's vocabulary, and how many designs of each are taken."""

CONTROLS = {
    "GC(2)~+PWG(2)": 2,
    "GC(*)~+PWG(*)": 1,
    "GC(4)~+PWG(4)": 2,
    "GC(2)~+PWG(4)": 2,
    "PWG(2)~+DW+PWG(2)": 2,
    "PWG(4)~+DW+PWG(4)": 2,
    "PWG(2)~+DW+PWG(2)@1/2": 2,
    "PWG(2)~+DW(k=5)+PWG(2)@1/4": 1,
    "GC(8)+PWG(8)": 2,
    "GC(4,k=5)+PWG(8)": 1,
    "PWG(8)+DW+PWG(8)": 2,
    "PWG(4)+DW+PWG(8)@1/2": 1,
    "GC(q=1)": 1,
    "PW": 3,
    "GC(2)": 2,
    "GC(4)": 1,
    "PWG(2)": 2,
    "PWG(4)": 2,
    "GC(2,k=5)": 1,
}
"""Designs that must not see everything. GC of one channel a group is DW, which may widen here."""

FULL_SHARE = 1
"""Designs of each family of the whole vocabulary, of which there are many."""


class Listed(NamedTuple):
    """A candidate of the table, its stratum and its family."""

    candidate: Candidate
    stratum: Stratum
    family: str


def half(design: Design) -> Literal["A", "B"]:
    """The fixed random half of the designs: all depths and budgets of a design are in one."""
    return "A" if hashed(str(design)) % 2 else "B"


def sized(listed: Listed, budget: int) -> Sized | None:
    """The widest network of a budget; None where it stays far below it, or is what its stratum
    forbids: a control that sees everything, or another whose field is not of the window's size."""
    limits = Limits(params=budget, mults=DEAREST)
    found: Sized | Refusal = solve(
        listed.candidate, TASK, limits, allow_incomplete=listed.stratum == "control"
    )
    if isinstance(found, Refusal) and listed.stratum == "full":
        found = solve(listed.candidate, TASK, limits, allow_incomplete=True)
    if isinstance(found, Refusal) or found.cost.params < FILLED * budget:
        return None
    if listed.stratum == "control":
        return None if found.why_incomplete() is None else found
    return found if found.why_incomplete() is None or _as_large_as_window(found) else None


@cache
def listed() -> tuple[Listed, ...]:
    """Every candidate of the table, in a fixed order. Cost: some seconds."""
    taken: list[Listed] = []
    keys: set[str] = set()
    for stratum, family, share, pool in _pools():
        left = share
        for candidate in sorted(pool, key=lambda one: hashed(f"{one}")):
            one = Listed(candidate, stratum, family)
            networks = [sized(one, budget) for budget in BUDGETS] if left else [None]
            found = [network.key for network in networks if network is not None]
            if len(found) == len(BUDGETS) and keys.isdisjoint(found):
                keys.update(found)
                taken.append(one)
                left -= 1
    return tuple(taken)


def _pools() -> Iterator[tuple[Stratum, str, int, list[Candidate]]]:
    for form, share in FOG.items():
        yield "fog", form.replace("({0})", "").replace("({1})", ""), share, _fog(form)
    for family in _families():
        yield "full", str(family), FULL_SHARE, _full(family)
    for text, share in CONTROLS.items():
        pool = [Candidate(parse(text), depth) for depth in (*DEPTHS, *MORE_DEPTHS)]
        yield "control", text, share, pool


def _fog(form: str) -> list[Candidate]:
    """Depths, kernels, ratios and group numbers, crossed; each once."""
    texts = {
        form.format(*numbers.split(","), r=ratio) for numbers, ratio in product(NUMBERS, RATIOS)
    }
    designs = (_with_kernel(parse(text), k) for text, k in product(sorted(texts), KERNELS))
    return [Candidate(design, depth) for design, depth in product(designs, DEPTHS)]


def _families() -> Iterator[Design]:
    """Of the enlarged funnel, those of the paper's target first, each once."""
    seen = {"STD", "DW+PW", "GC+PWG"}
    searched = {str(design) for design in compositions([ALL])}
    for target in TARGETS:
        sifted = funnel(CHANNELS, vocabulary="all", max_length=2, target=target)
        for text in sifted.designs:
            family = parse(text)
            timed = any(operator.kind == "step" for operator in family.operators)
            if text not in seen and (not timed or target == SIZE or text in searched):
                seen.add(text)
                yield family


def _full(family: Design) -> list[Candidate]:
    """Constant sizes where a number is open, and kernels where they are free."""
    settled = [numbered(family, q=q) for q in SIZES] if unsettled(family) else [family]
    if not unsettled(family) and opened(family):
        settled = [with_groups(family, ["*"] * len(opened(family)))]
    designs = [_with_kernel(one, k) for one, k in product(settled, KERNELS)]
    return [Candidate(one, depth) for one, depth in product(dict.fromkeys(designs), DEPTHS[:2])]


def _with_kernel(design: Design, kernel: int) -> Design:
    """With this kernel wherever an operator has one that is as its symbol leaves it."""
    operators = tuple(
        with_kernel(op, kernel) if op.spatial and kernel != 3 else op for op in design.operators
    )
    return Design(operators, design.inner, design.unshuffled)


def _as_large_as_window(network: Sized) -> bool:
    """Whether each block's field has the window's size: the target of the paper's funnel."""
    return all(
        field(parse(layer), part.whole.channels, part.whole.features).equals_standard
        for part, layer in zip(
            (part for part in network.network.blocks() if part.design is not None),
            network.layers,
            strict=True,
        )
    )


def hashed(text: str) -> int:
    """A number that orders texts at random, the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
