"""Rules that remove compositions, each with a reason; here those that look at the symbols alone.

A composition is a design without group numbers: the symbols of its operators, `("GC", "PWG")`.
Rules that need the information field are in `analysis/rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Protocol

from spaces.symbols import operator_of

Composition = tuple[str, ...]
Passes = Callable[[Composition], bool]
"""Whether a composition is in the space and passes the rules before the one that asks."""

FOG = "Penetrating the Fog, section 3.1"


@dataclass(frozen=True)
class Rejection:
    """The record that a rule spoke: the reason as a sentence, the evidence for a checker.

    Operators are counted from 1, in the sentence and in the evidence.
    """

    rule: str
    reason: str
    evidence: Mapping[str, Any]


class Rule(Protocol):
    """A predicate on compositions. `hereditary`: what removes a prefix removes its extensions."""

    name: ClassVar[str]
    statement: ClassVar[str]
    source: ClassVar[str]
    hereditary: ClassVar[bool]

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        """None, or why the composition is removed."""


def show(composition: Composition) -> str:
    """As a design's string: `GC+PWG`."""
    return "+".join(composition)


def has_step(composition: Composition) -> bool:
    """Whether an operator has an activation of its own, so that the whole is no linear map: the
    algebra of designs (mirror images, sub-sequences) does not apply."""
    return any(operator_of(symbol).kind == "step" for symbol in composition)


def ordinal(number: int) -> str:
    """
    >>> [ordinal(n) for n in (1, 2, 3, 4, 11, 22)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd']
    """
    teens = 10 < number % 100 < 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


@dataclass(frozen=True)
class Repeats(Rule):
    """A block is repeated by the layout anyway, so a design need not repeat a part of itself.

    The paper's expression, found anywhere, on one character a symbol.
    """

    name = "repeats"
    statement = "no pattern is repeated side by side"
    source = f"{FOG}, composition"
    hereditary = True

    _pattern: ClassVar[re.Pattern[str]] = re.compile(r"(.+?)\1+", re.DOTALL)

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        letter = {symbol: chr(i) for i, symbol in enumerate(dict.fromkeys(composition))}
        found = self._pattern.search("".join(letter[symbol] for symbol in composition))
        if found is None:
            return None
        start, end = found.span()
        pattern = composition[start : found.end(1)]
        reason = f"the pattern {show(pattern)} repeats at operators {start + 1} to {end}"
        evidence = {"pattern": pattern, "start": start + 1, "end": end}
        return Rejection(self.name, reason, evidence)


@dataclass(frozen=True)
class InnerWidth(Rule):
    """No bottleneck stands where K = r F is no whole number of channels."""

    name = "inner-width"
    statement = "the inner width is a whole number of channels"
    source = "Penetrating the Fog, section 3.2"
    hereditary = True

    channels: int
    inner: Fraction

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        width = self.inner * self.channels
        if width.denominator == 1:
            return None
        reason = (
            f"the inner width {self.inner} x {self.channels} is not a whole number; valid widths "
            f"are multiples of {width.denominator}"
        )
        return Rejection(self.name, reason, {"inner": self.inner, "channels": self.channels})


@dataclass(frozen=True)
class Ends(Rule):
    """The first operator of a bottleneck maps C to K, the last K to F."""

    name = "ends"
    statement = "the first and the last operator can change the width"
    source = "Penetrating the Fog, section 3.2"
    hereditary = False

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        last = len(composition)
        if last == 1:
            reason = (
                f"{composition[0]} stands alone: a bottleneck needs one operator to enter the "
                "inner width and another to leave it"
            )
            return Rejection(self.name, reason, {"operator": 1})
        for position, role in ((1, "first"), (last, "last")):
            symbol = composition[position - 1]
            if not operator_of(symbol).resizes:
                verb = "enter" if position == 1 else "leave"
                reason = (
                    f"{symbol}, the {role} operator, keeps the width: "
                    f"it cannot {verb} the inner width"
                )
                return Rejection(self.name, reason, {"operator": position})
        return None


@dataclass(frozen=True)
class Palindrome(Rule):
    """A bottleneck expands by the operator that reduced: the shape of both designs that the
    paper draws in Figure 1 (d) and (e). Without it the cheaper, mixed PW+DW+PWG would stay."""

    name = "palindrome"
    statement = "the composition reads the same in both directions"
    source = "Penetrating the Fog, Figure 1 (d), (e)"
    hereditary = False

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        last = len(composition)
        for position, symbol in enumerate(composition[: last // 2], start=1):
            opposite = composition[-position]
            if symbol != opposite:
                reason = (
                    f"no palindrome: the {ordinal(position)} operator is {symbol}, "
                    f"the {ordinal(last + 1 - position)} is {opposite}"
                )
                return Rejection(self.name, reason, {"operators": (position, last + 1 - position)})
        return None


@dataclass(frozen=True)
class Mirror(Rule):
    """Two mirror images are shown once, although they are different functions.

    Kept is the one whose first spatial operator stands further left, then the cheaper, then the
    first in the order of the vocabulary. `cost` is the least number of parameters.
    """

    name = "mirror"
    statement = "of two mirror images one is shown, the spatial operator first"
    source = "definitions: equal field, and equal parameters at C = F"
    hereditary = False

    vocabulary: tuple[str, ...]
    cost: Callable[[Composition], float]

    def check(self, composition: Composition, passes: Passes) -> Rejection | None:
        image = composition[::-1]
        if image == composition or has_step(composition) or not passes(image):
            return None
        if self._spatial(image) != self._spatial(composition):
            preferred = self._spatial(image) < self._spatial(composition)
            because = "whose first spatial operator stands further left"
        elif (theirs := self.cost(image)) != (ours := self.cost(composition)):
            preferred = theirs < ours
            because = f"which is cheaper: {theirs} against {ours} parameters"
        else:
            preferred = self._order(image) < self._order(composition)
            because = "which comes first in the order of the vocabulary"
        if not preferred:
            return None
        return Rejection(self.name, f"mirror image of {show(image)}, {because}", {"mirror": image})

    def _spatial(self, composition: Composition) -> int:
        """Operators before the first spatial one; all of them if there is none."""
        for i, symbol in enumerate(composition):
            if operator_of(symbol).spatial:
                return i
        return len(composition)

    def _order(self, composition: Composition) -> tuple[int, ...]:
        return tuple(map(self.vocabulary.index, composition))
