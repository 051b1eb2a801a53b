"""Rules that remove compositions by their information field, over all choices of group numbers.

Source: Penetrating the Fog, section 3.1, performance and efficiency, and footnote 1. The paper
worked by hand; the rules `subsequence` and `depthwise` spell out choices that it made silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

from analysis.reach import START, Edge, Reach, Size
from analysis.verdicts import Verdicts
from spaces.rules import FOG, Composition, Passes, Rejection, Rule, has_step, ordinal, show


@dataclass(frozen=True)
class SameField(Rule):
    """The field has the size (k, k, C) of the dense convolution for some group numbers."""

    name = "field"
    statement = "the field equals the dense convolution's for some group numbers"
    source = f"{FOG}, performance"
    hereditary = False

    reach: Reach

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        target = self.reach.target
        if (reason := self.reach.why_invalid(composition)) is not None:
            return Rejection(self.name, reason, {"largest": None, "target": target})
        if self.reach.reaches(composition):
            return None
        largest = self.reach.largest(composition)
        if largest[0] > target[0] or largest[1] > target[1]:
            reason = f"with every choice of group numbers the window exceeds {target}: {largest}"
        else:
            reason = (
                f"with every choice of group numbers the field is at most {largest} of {target}"
            )
        return Rejection(self.name, reason, {"largest": largest, "target": target})


@dataclass(frozen=True)
class StrictGrowth(Rule):
    """Every operator strictly grows the field of the prefix that it ends (early stop, case 1).

    It must hold for one choice of group numbers throughout, among those that reach the target
    (`to_target`; False when that rule is off). In a bottleneck the last operator is exempt: it
    restores the F channels.
    """

    name = "growth"
    statement = "every operator grows the field, for group numbers that reach the target"
    source = f"{FOG}, efficiency, case 1"
    hereditary = False

    reach: Reach
    to_target: bool = True

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        if (impossible := self.reach.why_invalid(composition)) is not None:
            return Rejection(self.name, impossible, {"operators": (), "field": None})
        steps = self.reach.edges(composition, to_target=self.to_target)
        required = steps[:-1] if self.reach.inner is not None else steps
        growing: set[Size] = {START}
        stalls: list[set[Edge]] = []
        for edges in required:
            here = {edge for edge in edges if edge.source in growing}
            stalls.append({edge for edge in here if edge.stalls})
            growing = {edge.target for edge in here if not edge.stalls}
        if growing:
            return None
        always = (e for e in required if e and all(edge.stalls for edge in e))
        guilty = next(always, None) or set().union(*stalls)
        return self._rejection(composition, guilty)

    def _rejection(self, composition: Composition, guilty: set[Edge]) -> Rejection:
        """One operator that never grows the field or, if there is none, all those of which
        each choice of group numbers meets one."""
        positions = tuple(sorted({edge.position for edge in guilty}))
        fields = {edge.target for edge in guilty}
        field = fields.pop() if len(fields) == 1 else None
        names = " or ".join(
            f"{composition[position - 1]}, the {ordinal(position)} operator,"
            for position in positions
        )
        where = f"at {field}" if field else "as it was"
        which = " that reaches the target" if self.to_target else ""
        reason = f"{names} leaves the field {where} for every choice of group numbers{which}"
        return Rejection(self.name, reason, {"operators": positions, "field": field})


@dataclass(frozen=True)
class Subsequence(Rule):
    """The target is not already reached by a part of the operators (case 2). Linear ones alone.

    Read literally, "retained by a fraction of sparse kernels in a design": any proper
    sub-sequence, not only a prefix, with group numbers of its own.
    """

    name = "subsequence"
    statement = "no proper sub-sequence already has the field"
    source = f"{FOG}, efficiency, case 2"
    hereditary = False

    reach: Reach | Verdicts

    def removes(self, composition: Composition) -> bool:
        return self._part(composition) is not None

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        part = self._part(composition)
        witness = part and self.reach.cheapest(part, growing=False)
        if not part or not witness:
            return None
        reason = f"its sub-sequence {show(part)} already reaches {self.reach.target}"
        return Rejection(self.name, reason, {"subsequence": part, "groups": witness.groups})

    def _part(self, composition: Composition) -> Composition | None:
        """The first part that reaches the target, by length and position."""
        if has_step(composition):
            return None
        for length in range(1, len(composition)):
            for positions in combinations(range(len(composition)), length):
                part = tuple(composition[i] for i in positions)
                if self.reach.reaches(part):
                    return part
        return None


@dataclass(frozen=True)
class DepthwiseInstead(Rule):
    """GC with M = C is DW, so a GC for which DW would do stands for a design listed already.

    Asked of every rule before this one; a vocabulary without DW lists no such design and
    keeps its GC.
    """

    name = "depthwise"
    statement = "no GC could be replaced by DW"
    source = "Penetrating the Fog, section 2.3"
    hereditary = False

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        choices = [(s, "DW") if s == "GC" else (s,) for s in composition]
        for other in product(*choices):
            if other != composition and passes(other):
                reason = f"replacing GC by DW gives {show(other)}, which passes"
                return Rejection(self.name, reason, {"replacement": other})
        return None
