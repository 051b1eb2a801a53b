"""What the funnel leaves, each family with its best group numbers.

Best: the fewest parameters of a choice that passes the rules and whose equivalent matrix has at
least rank F/4, which the paper's own bottleneck allows. A family none of whose choices has it is
shown by its cheapest one, with that rank. A step has no such matrix: fewest parameters decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from analysis.equivalent import rank
from analysis.funnel import INNER, Funnel, Stage
from analysis.reach import Witness
from analysis.verdicts import Verdicts
from spaces.design import Design
from spaces.rules import Composition


class Survivor(NamedTuple):
    """A design that stands for its family. weights: parameters per output. rank: None for a step.
    missed: whether the paper's four designs do not hold the family."""

    family: str
    design: str
    params: int
    weights_per_output: float
    rank: int | None
    missed: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return self._asdict()


PAPER = frozenset(("DW+PW", "GC+PWG", "PW+DW+PW@1/4", "PWG+DW+PWG@1/4", "PWG+DW+PWG"))
"""The paper's four designs; the last of them in both forms."""


def survivors(result: Funnel) -> tuple[Survivor, ...]:
    """Those of both passes, the cheapest first."""
    found = [
        survivor
        for stage in result.stages
        for composition in stage.survivors
        if (survivor := best(stage, composition)) is not None
    ]
    return tuple(sorted(found, key=lambda one: (one.params, one.family)))


def best(stage: Stage, composition: Composition) -> Survivor | None:
    """The family by its best choice; None where no choice passes, its rule being off."""
    channels, family = stage.reach.channels, stage.family(composition)
    shown: Survivor | None = None
    for witness in _ranked(stage, composition):
        design = Design(witness.operators, stage.reach.inner)
        has = rank(design, channels)
        shown_here = Survivor(
            family,
            str(design),
            witness.params,
            witness.params / channels,
            has,
            family not in PAPER,
        )
        shown = shown or shown_here
        if has is None or has >= INNER * channels:
            return shown_here
    return shown


def _ranked(stage: Stage, composition: Composition) -> Iterable[Witness]:
    growing = any(rule.name == "growth" for rule in stage.space.rules)
    if isinstance(stage.reach, Verdicts):
        return stage.reach.ranked(composition, growing=growing)
    witness = stage.reach.cheapest(composition, growing=growing)
    return [witness] if witness else []
