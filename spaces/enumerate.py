"""Every composition of a vocabulary, and which rule removes it.

A vocabulary of V symbols has V + V^2 + ... + V^L compositions of up to L operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from spaces.operator import DesignError
from spaces.rules import Composition, Rejection, Rule


def compositions(vocabulary: tuple[str, ...], max_length: int) -> Iterator[Composition]:
    """By length, then in the order of the vocabulary.

    >>> len(list(compositions(("GC", "DW", "PW", "PWG"), 6)))
    5460
    """
    for length in range(1, max_length + 1):
        yield from product(vocabulary, repeat=length)


class Count(NamedTuple):
    """What one rule left of what reached it."""

    rule: str
    kept: int
    removed: int


@dataclass(frozen=True)
class Space:
    """All compositions of 1 to `max_length` symbols, and the rules in the order of asking.

    Raises DesignError for an empty or repeating vocabulary and for a length below 1.
    """

    vocabulary: tuple[str, ...]
    max_length: int
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if not self.vocabulary or len(set(self.vocabulary)) != len(self.vocabulary):
            raise DesignError(f"the vocabulary {self.vocabulary} must hold distinct symbols")
        if self.max_length < 1:
            raise DesignError(f"the maximal length is {self.max_length}; it must be at least 1")

    def __contains__(self, composition: Composition) -> bool:
        return 1 <= len(composition) <= self.max_length and set(composition) <= set(self.vocabulary)

    def extensions(self, length: int) -> int:
        """Compositions that begin with one given prefix of this length (itself included)."""
        return sum(len(self.vocabulary) ** more for more in range(self.max_length - length + 1))

    def __len__(self) -> int:
        return self.extensions(0) - 1

    def verdict(self, composition: Composition) -> Rejection | None:
        """The first rule that speaks; None if the composition survives."""
        return self._ask(composition, len(self.rules))

    def _ask(self, composition: Composition, count: int) -> Rejection | None:
        """The verdict of the first `count` rules. A rule may ask after another composition,
        but only about the rules before itself, so that no two wait for each other."""
        for i, rule in enumerate(self.rules[:count]):

            def passes(other: Composition, before: int = i) -> bool:
                return other in self and self._ask(other, before) is None

            if (rejection := rule.check(composition, passes)) is not None:
                return rejection
        return None

    def sift(self) -> tuple[tuple[Count, ...], tuple[Composition, ...]]:
        """The exact count at every rule, and the survivors by length and vocabulary.

        If the first rule is hereditary, nothing is generated behind a prefix that it removes:
        all extensions count as removed by it. A later rule may not prune, since an extension
        could be removed by a rule before it.
        """
        prunes = bool(self.rules) and self.rules[0].hereditary
        removed = dict.fromkeys((rule.name for rule in self.rules), 0)
        survivors: list[Composition] = []
        prefixes: list[Composition] = [()]
        for length in range(1, self.max_length + 1):
            longer: list[Composition] = []
            for prefix in prefixes:
                for symbol in self.vocabulary:
                    composition = (*prefix, symbol)
                    rejection = self.verdict(composition)
                    if prunes and rejection and rejection.rule == self.rules[0].name:
                        removed[rejection.rule] += self.extensions(length)
                        continue
                    longer.append(composition)
                    if rejection is None:
                        survivors.append(composition)
                    else:
                        removed[rejection.rule] += 1
            prefixes = longer
        steps, kept = [], len(self)
        for rule, count in removed.items():
            kept -= count
            steps.append(Count(rule, kept, count))
        return tuple(steps), tuple(survivors)
