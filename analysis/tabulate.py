"""The counts of a large space: one table of verdicts over all words of a length.

    38 symbols of 26 kinds, up to 4 operators: 2.1 million compositions, 0.5 million kinds of word

Most rules look at no more than what the operators read, so symbols that read alike
(`Verdicts.alike`) are judged once, by their first, and the verdict spread over all words of the
kind. The repeat rule is a comparison of axes. Whatever rule comes after them meets few words and
judges each by itself.

Cost: a byte for each composition of the greatest length, and a verdict for each kind.
"""

from __future__ import annotations

from functools import reduce
from itertools import product

import numpy as np

from analysis.verdicts import Verdicts
from spaces.enumerate import Count, Space
from spaces.rules import Composition, Rule
from spaces.symbols import operator_of

BY_KIND = ("field", "covers", "growth", "subsequence")
"""Rules that look at what the operators read, and whether they are steps."""

BY_FIELD = ("field", "covers", "growth")
"""Those of them that `Verdicts.verdicts` answers for all kinds at once."""

KEPT = 0


class Table:
    """Which rule (counted from 1) removes each composition of one length; KEPT for none."""

    def __init__(self, space: Space, choices: Verdicts, length: int) -> None:
        self.space, self.choices, self.length = space, choices, length
        self.speaks = np.zeros((len(space.vocabulary),) * length, np.uint8)
        self._index = {symbol: i for i, symbol in enumerate(space.vocabulary)}
        kinds = [_kind(choices, symbol) for symbol in space.vocabulary]
        first = {kind: i for i, kind in reversed(list(enumerate(kinds)))}
        self._leaders = sorted(first.values())
        self._kind_of = np.array([self._leaders.index(first[kind]) for kind in kinds])
        names = {rule.name for rule in space.rules}
        stands = choices.inner is None or "ends" in names
        self._at_once = stands and bool(names & {"field", "covers"})
        self._verdicts: np.ndarray | None = None
        for number, rule in enumerate(space.rules, start=1):
            self._apply(number, rule)

    def _apply(self, number: int, rule: Rule) -> None:
        if rule.name == "repeats":
            removed = _repeating(self.speaks.shape)
        elif rule.name == "ends":
            removed = self._unable_ends()
        elif rule.name == "palindrome":
            removed = _uneven(self.speaks.shape)
        elif rule.name in BY_FIELD and self._at_once:
            removed = self._by_field(rule)
        elif rule.name in BY_KIND:
            removed = self._by_kind(rule)
        else:
            removed = self._one_by_one(rule)
        self.speaks[(self.speaks == KEPT) & removed] = number

    def _unable_ends(self) -> np.ndarray:
        """Whether the first or the last operator cannot change the width, or is the only one."""
        keeps = np.array([not operator_of(symbol).resizes for symbol in self.space.vocabulary])
        first = keeps.reshape(-1, *[1] * (self.length - 1))
        return np.broadcast_to(first | keeps | (self.length == 1), self.speaks.shape)

    def _by_field(self, rule: Rule) -> np.ndarray:
        """The rules that ask whether the target is hit, or hit by growth."""
        if self._verdicts is None:
            names = [self.space.vocabulary[leader] for leader in self._leaders]
            self._verdicts = ~self.choices.verdicts(names, self.length)
        return self._spread(self._verdicts[int(rule.name == "growth")])

    def _spread(self, of_kinds: np.ndarray) -> np.ndarray:
        return of_kinds[np.ix_(*[self._kind_of] * self.length)]

    def _by_kind(self, rule: Rule) -> np.ndarray:
        """The rule is asked about one word of each kind of which some word is left."""
        left = self.speaks == KEPT
        for _ in range(self.length):
            kinds = [left[self._kind_of == i].any(axis=0) for i in range(len(self._leaders))]
            left = np.moveaxis(np.array(kinds), 0, -1)
        removed = np.zeros(left.shape, bool)
        names = [self.space.vocabulary[leader] for leader in self._leaders]
        removes = getattr(rule, "removes", None) or (
            lambda word: rule.check(word, self._passes) is not None
        )
        for kind in np.argwhere(left):
            removed[tuple(kind)] = removes(tuple(names[i] for i in kind))
        return self._spread(removed)

    def _one_by_one(self, rule: Rule) -> np.ndarray:
        removed = np.zeros(self.speaks.shape, bool)
        for word in np.argwhere(self.speaks == KEPT):
            composition = tuple(self.space.vocabulary[i] for i in word)
            removed[tuple(word)] = rule.check(composition, self._passes) is not None
        return removed

    def _passes(self, other: Composition) -> bool:
        """Whether a composition of this length passes the rules applied so far."""
        if other not in self.space:
            return False
        return bool(self.speaks[tuple(self._index[symbol] for symbol in other)] == KEPT)

    def survivors(self) -> list[Composition]:
        kept = np.argwhere(self.speaks == KEPT)
        return [tuple(self.space.vocabulary[i] for i in word) for word in kept]


def sift(space: Space, choices: Verdicts) -> tuple[tuple[Count, ...], tuple[Composition, ...]]:
    """As `Space.sift`: the exact count at every rule, and the survivors."""
    tables = [Table(space, choices, length) for length in range(1, space.max_length + 1)]
    counts = [np.bincount(t.speaks.ravel(), minlength=len(space.rules) + 1) for t in tables]
    removed = np.sum(counts, axis=0)
    steps, kept = [], len(space)
    for number, rule in enumerate(space.rules, start=1):
        count = int(removed[number])
        kept -= count
        steps.append(Count(rule.name, kept, count))
    return tuple(steps), tuple(word for table in tables for word in table.survivors())


def _kind(choices: Verdicts, symbol: str) -> object:
    """What symbols of one kind have in common, wherever they stand."""
    c = choices.channels
    k = c if choices.inner is None else max(1, int(choices.inner * c))
    return tuple(choices.alike((symbol, a, b)) for a, b in product(sorted({c, k}), repeat=2))


def _repeating(shape: tuple[int, ...]) -> np.ndarray:
    """Whether some pattern stands twice in a row."""
    axes, length = np.indices(shape, sparse=True), len(shape)
    found = np.zeros(shape, bool)
    for size in range(1, length // 2 + 1):
        for start in range(length - 2 * size + 1):
            same = [axes[start + i] == axes[start + size + i] for i in range(size)]
            found |= reduce(np.logical_and, same)
    return found


def _uneven(shape: tuple[int, ...]) -> np.ndarray:
    """Whether the word reads differently backwards."""
    axes, length = np.indices(shape, sparse=True), len(shape)
    found = np.zeros(shape, bool)
    for i in range(length // 2):
        found |= axes[i] != axes[length - 1 - i]
    return found
