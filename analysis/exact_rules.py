"""The field rules over any vocabulary, decided by exact fields (`analysis.verdicts`).

A lean operator's field is no box, so that the sizes which `analysis.rules` steps through do not
tell whether two of them complete it. The sub-sequence rule is that of `analysis.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.reach import Reach
from analysis.rules import SameField, StrictGrowth
from analysis.verdicts import Verdicts
from spaces.rules import FOG, Composition, Passes, Rejection, Rule, ordinal
from spaces.symbols import operator_of, with_kernel


@dataclass(frozen=True)
class SizeReached(Rule):
    """The field has the size (k, k, C) of the dense convolution for some group numbers."""

    name = "field"
    statement = "the field has the dense convolution's size for some group numbers"
    source = f"{FOG}, performance"
    hereditary = False

    choices: Verdicts

    def removes(self, composition: Composition) -> bool:
        return not self.choices.reaches(composition)

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        if not self.removes(composition):
            return None
        target = self.choices.target
        if (reason := self.choices.why_invalid(composition)) is not None:
            return Rejection(self.name, reason, {"largest": None, "target": target})
        if self._reads_plane(composition):
            reason = f"it reads the whole plane, more than the window of {target}"
            return Rejection(self.name, reason, {"largest": None, "target": target})
        fields = self.choices.fields
        sizes = {fields.seen(cuts[-1]).size for _, cuts in self.choices.paths(composition)}
        fitting = [size for size in sizes if max(size[:2]) <= self.choices.kernel]
        if fitting:
            largest = max(fitting, key=lambda size: (size[2], size))
            reason = f"no choice of group numbers gives more than {largest} of {target}"
        else:
            largest = min(sizes, key=lambda size: (max(size[:2]), size))
            reason = f"with every choice of group numbers the window exceeds {target}: {largest}"
        return Rejection(self.name, reason, {"largest": largest, "target": target})

    def _reads_plane(self, composition: Composition) -> bool:
        kernel = self.choices.kernel
        return any(with_kernel(operator_of(s), kernel).window is None for s in composition)


@dataclass(frozen=True)
class WindowCovered(Rule):
    """Every output reads the whole k x k x C window for some group numbers."""

    name = "covers"
    statement = "every output reads the whole window for some group numbers"
    source = "definitions: a complete field; a lean operator's is no box"
    hereditary = False

    choices: Verdicts

    def removes(self, composition: Composition) -> bool:
        return not self.choices.reaches(composition)

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        if not self.removes(composition):
            return None
        columns, rows, channels = self.choices.target
        whole = columns * rows * channels
        if (reason := self.choices.why_invalid(composition)) is not None:
            return Rejection(self.name, reason, {"inside": None, "window": whole})
        fields = self.choices.fields
        most = max(fields.inside(cuts[-1]) for _, cuts in self.choices.paths(composition))
        reason = (
            f"with every choice of group numbers some output reads at most {most:,} of the "
            f"{whole:,} inputs of the {columns} x {rows} x {channels} window"
        )
        return Rejection(self.name, reason, {"inside": most, "window": whole})


@dataclass(frozen=True)
class Growth(Rule):
    """Every operator strictly grows the field of the prefix that it ends (early stop, case 1).

    It must hold for one choice of group numbers throughout, among those that hit the target
    (`to_target`; False when that rule is off). In a bottleneck the last operator is exempt: it
    restores the F channels.
    """

    name = "growth"
    statement = "every operator grows the field, for group numbers that hit the target"
    source = f"{FOG}, efficiency, case 1"
    hereditary = False

    choices: Verdicts
    to_target: bool = True

    def removes(self, composition: Composition) -> bool:
        if self.to_target:
            return not self.choices.verdict(composition)[1]
        if self.choices.why_invalid(composition) is not None:
            return True
        return not self.choices.grows_somehow(composition)

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        if not self.removes(composition):
            return None
        if (impossible := self.choices.why_invalid(composition)) is not None:
            return Rejection(self.name, impossible, {"operators": ()})
        stalled = {
            self.choices.stalls(cuts)
            for _, cuts in self.choices.paths(composition)
            if not self.to_target or self.choices.complete(cuts[-1])
        }
        always = sorted(set.intersection(*map(set, stalled)))
        positions = tuple(always[:1] or sorted({i for each in stalled for i in each}))
        names = " or ".join(f"{composition[i - 1]}, the {ordinal(i)} operator," for i in positions)
        what = "enlarges the field" if self.choices.by_size else "adds to the field in the window"
        which = " that hits the target" if self.to_target else ""
        reason = f"{names} never {what}, for every choice of group numbers{which}"
        if len(positions) > 1:
            reason = f"for every choice of group numbers{which} one of {names} never {what}"
        return Rejection(self.name, reason, {"operators": positions})


def field_rule(reach: Reach | Verdicts) -> Rule:
    """That the target is hit."""
    if isinstance(reach, Reach):
        return SameField(reach)
    return SizeReached(reach) if reach.by_size else WindowCovered(reach)


def growth_rule(reach: Reach | Verdicts, *, to_target: bool) -> Rule:
    """That each operator brings the target nearer."""
    if isinstance(reach, Reach):
        return StrictGrowth(reach, to_target)
    return Growth(reach, to_target)
