"""The funnel of Penetrating the Fog: from every composition to a handful, each removal explained.

The paper reduced 4 + 4^2 + ... + 4^6 = 5,460 compositions to 4 designs by hand (section 3.1).
Here two passes over the same compositions do it: `plain` at C -> C, and `bottleneck` through an
inner width K = C/4 (section 3.2). At C = 64:

    plain:       5,460 -> repeats 1,108 -> field 86 -> growth 16 -> subsequence 7 -> depthwise 5
                 -> mirror 3
    bottleneck:  5,460 -> repeats 1,108 -> ... growth 26 -> palindrome 4 -> depthwise 2

PWG+DW+PWG survives in both. The paper counts it once and draws and costs it with the bottleneck
("the bottleneck structure is also adopted to achieve a better efficiency"), so the list of
designs shows a composition that survives in both passes once, as the bottleneck; the plain one
is another family all the same, and `why` answers for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from analysis import exact_rules, tabulate
from analysis import rules as field_rules
from analysis.choices import COVERS, SIZE, TARGETS
from analysis.field import field
from analysis.reach import Reach
from analysis.verdicts import Verdicts
from spaces import rules as patterns
from spaces.design import Design, parse
from spaces.enumerate import Space
from spaces.operator import DesignError
from spaces.rules import Composition, Rejection, Rule, show
from spaces.symbols import bare, every_symbol, symbols

VOCABULARY = ("GC", "DW", "PW", "PWG")
BOXES = frozenset(("STD", *VOCABULARY))
"""Operators whose chains read boxes of channels and pixels, for which `analysis.reach` is exact."""

TARGET_RULES = frozenset(("field", "covers"))
MAX_LENGTH = 6
ENLARGED_LENGTH = 4
LARGEST = 10**7
"""Compositions that a table holds; more would take minutes."""

INNER = Fraction(1, 4)
START = "compositions"
"""Name of the first step, which removes nothing."""


class Step(NamedTuple):
    """What one rule of one pass left; the first step of a pass holds all compositions."""

    stage: str
    rule: str
    kept: int
    removed: int

    def as_dict(self) -> dict[str, Any]:
        """With the stage under its public key, `pass`."""
        return {"pass": self.stage, "rule": self.rule, "kept": self.kept, "removed": self.removed}


class Verdict(NamedTuple):
    """Whether a composition survives; if not, the rule and its reason, and its evidence."""

    design: str
    kept: bool
    rule: str | None
    reason: str
    rejection: Rejection | None


@dataclass(frozen=True)
class Stage:
    """One pass: its rules, the counts and the survivors."""

    name: str
    reach: Reach | Verdicts
    space: Space
    steps: tuple[Step, ...]
    survivors: tuple[Composition, ...]

    def family(self, composition: Composition) -> str:
        """As the funnel prints it: `PW+DW+PW@1/4`."""
        return show(composition) + (f"@{self.reach.inner}" if self.reach.inner else "")

    def witness(self, composition: Composition) -> Design | None:
        """The cheapest group numbers that pass the field rule, and growth unless it is off."""
        growing = any(rule.name == "growth" for rule in self.space.rules)
        found = self.reach.cheapest(composition, growing=growing)
        return Design(found.operators, self.reach.inner) if found else None

    def verdict(self, composition: Composition) -> Verdict:
        rejection = self.space.verdict(composition)
        family = self.family(composition)
        if rejection is not None:
            return Verdict(family, False, rejection.rule, rejection.reason, rejection)
        reason = f"{family} passes every rule of the {self.name} pass"
        if (witness := self.witness(composition)) is not None:
            reason += f"; {witness} reaches {self.reach.target}"
        return Verdict(family, True, None, reason, None)


def plain_rules(
    reach: Reach | Verdicts, vocabulary: tuple[str, ...], off: frozenset[str]
) -> list[Rule]:
    """Steps 1 to 6."""

    def cost(composition: Composition) -> float:
        witness = reach.cheapest(composition, growing="growth" not in off)
        return float("inf") if witness is None else witness.params

    return [
        patterns.Repeats(),
        exact_rules.field_rule(reach),
        exact_rules.growth_rule(reach, to_target=not off & TARGET_RULES),
        field_rules.Subsequence(reach),
        field_rules.DepthwiseInstead(),
        patterns.Mirror(vocabulary, cost),
    ]


def bottleneck_rules(reach: Reach | Verdicts, off: frozenset[str]) -> list[Rule]:
    """Step 7."""
    return [
        patterns.Repeats(),
        patterns.Ends(),
        exact_rules.field_rule(reach),
        exact_rules.growth_rule(reach, to_target=not off & TARGET_RULES),
        patterns.Palindrome(),
        field_rules.DepthwiseInstead(),
    ]


def sift(name: str, reach: Reach | Verdicts, space: Space) -> Stage:
    """One pass. Where the rules prune on what operators declare to reach, the exact field of each
    survivor confirms it. Raises RuntimeError if an operator's `reach` promises too much."""
    if isinstance(reach, Verdicts):
        steps, survivors = tabulate.sift(space, reach)
    else:
        steps, survivors = space.sift()
    counted = (Step(name, START, len(space), 0), *(Step(name, *step) for step in steps))
    stage = Stage(name, reach, space, counted, survivors)
    if isinstance(reach, Verdicts):
        return stage
    for composition in survivors:
        witness = stage.witness(composition)
        if witness is None:
            continue
        exact = field(witness, reach.channels, kernel=reach.kernel)
        if not exact.equals_standard:
            raise RuntimeError(
                f"{witness} was to reach {reach.target}, but its exact field is {exact.size}: "
                "an operator's `reach` is wrong"
            )
    return stage


@dataclass(frozen=True)
class Funnel:
    """The outcome for one width: two passes, and the designs that are left."""

    channels: int
    kernel: int
    target: str
    vocabulary: tuple[str, ...]
    max_length: int
    off: tuple[str, ...]
    plain: Stage
    bottleneck: Stage

    @property
    def stages(self) -> tuple[Stage, Stage]:
        return (self.plain, self.bottleneck)

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.plain.steps + self.bottleneck.steps

    @property
    def designs(self) -> tuple[str, ...]:
        """The union by composition, short ones first; what survives in both passes shows as the
        bottleneck."""
        shown = {c: stage.family(c) for stage in self.stages for c in stage.survivors}
        return tuple(shown[c] for c in sorted(shown, key=lambda c: (len(c), c)))

    def why(self, text: str) -> Verdict:
        """The verdict on a family: `PW+DW+PW` in the plain pass, `PW+DW+PW@1/4` in the other.

        Raises DesignError for numbers, unknown operators, another inner width, and for what
        lies outside the space.
        """
        design = parse(text)
        if design.unshuffled or "~" in text or any(bare(op) != op for op in design.operators):
            raise DesignError(
                f"{text!r} is a design; the funnel judges families: write operators without "
                "numbers and marks, e.g. GC+PWG"
            )
        if design.inner not in (None, INNER):
            raise DesignError(
                f"{text!r} has the inner width @{design.inner}; the bottleneck pass has @{INNER}"
            )
        composition = tuple(str(operator) for operator in design.operators)
        outside = [symbol for symbol in composition if symbol not in self.vocabulary]
        if outside:
            raise DesignError(f"{outside[0]} is not in the vocabulary {', '.join(self.vocabulary)}")
        if len(composition) > self.max_length:
            raise DesignError(
                f"{text!r} has {len(composition)} operators; the maximal length is "
                f"{self.max_length}"
            )
        return (self.plain if design.inner is None else self.bottleneck).verdict(composition)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "channels": self.channels,
            "kernel": self.kernel,
            "target": self.target,
            "vocabulary": list(self.vocabulary),
            "max_length": self.max_length,
            "off": list(self.off),
            "steps": [step.as_dict() for step in self.steps],
            "designs": list(self.designs),
        }


def is_papers(names: Sequence[str]) -> bool:
    """Whether a vocabulary holds no more than the paper's operators, the dense one included."""
    return BOXES.issuperset(names)


def default_target(names: Sequence[str]) -> str:
    """`size` for the paper's operators, `covers` for others."""
    return SIZE if is_papers(names) else COVERS


def funnel(
    channels: int,
    *,
    vocabulary: Sequence[str] | str = VOCABULARY,
    max_length: int | None = None,
    kernel: int = 3,
    off: Sequence[str] = (),
    target: str | None = None,
) -> Funnel:
    """Both passes at C -> C channels and k x k windows, without the rules named in `off`.

    vocabulary: operators with their structural parameters, or "all" (`spaces.symbols`).
    target: `size` or `covers` (`analysis.verdicts`); unless given, `size` for the paper's
    vocabulary and `covers` for others. max_length: 6 and 4, unless given.
    Raises DesignError for an unknown operator, rule or target and for numbers out of range.

    >>> funnel(64).designs
    ('DW+PW', 'GC+PWG', 'PW+DW+PW@1/4', 'PWG+DW+PWG@1/4')
    """
    if channels < 1:
        raise DesignError(f"the number of channels is {channels}; it must be at least 1")
    if kernel < 3 or kernel % 2 == 0:
        raise DesignError(f"kernel size {kernel} is not one of 3, 5, 7, ...")
    names = every_symbol(kernel) if vocabulary == "all" else symbols(vocabulary)
    if max_length is None:
        max_length = MAX_LENGTH if is_papers(names) else ENLARGED_LENGTH
    target = default_target(names) if target is None else target
    if target not in TARGETS:
        raise DesignError(f"no target is called {target!r}; valid are {', '.join(TARGETS)}")
    left_out = frozenset(off)

    def fields(inner: Fraction | None) -> Reach | Verdicts:
        if is_papers(names) and target == SIZE:
            return Reach(channels, kernel, inner)
        if (size := len(Space(names, max_length))) > LARGEST:
            raise DesignError(
                f"{len(names)} symbols of up to {max_length} operators make {size:,} compositions; "
                f"at most {LARGEST:,} are tabulated: lower the maximal length"
            )
        prunes = not left_out & TARGET_RULES
        return Verdicts(channels, kernel, names, max_length, target, inner, prunes=prunes)

    flat = fields(None)
    narrow = fields(INNER)
    plain, bottleneck = plain_rules(flat, names, left_out), bottleneck_rules(narrow, left_out)
    known = list(dict.fromkeys(rule.name for rule in plain + bottleneck))
    if unknown := sorted(left_out.difference(known)):
        raise DesignError(f"no rule is called {unknown[0]!r}; the rules are {', '.join(known)}")
    if (INNER * channels).denominator != 1:
        bottleneck = [patterns.InnerWidth(channels, INNER)]
    stages = []
    for name, reach, rules in (("plain", flat, plain), ("bottleneck", narrow, bottleneck)):
        active = tuple(rule for rule in rules if rule.name not in left_out)
        stages.append(sift(name, reach, Space(names, max_length, active)))
    switched_off = tuple(name for name in known if name in left_out)
    return Funnel(channels, kernel, target, names, max_length, switched_off, *stages)
