"""Which network to train next: candidates of the space, the process, the expected improvement.

All that a choice depends on is given to it: what was trained, what is under way, and its number.
The pool are networks drawn at random once, some more with each choice, and the neighbours of the
best: one gene of theirs changed. A network stands in it once, whatever candidates lead to it, and
those that a limit forbids do not.

Cost of a choice: about 10 widths to be solved, 1 ms each, and the process.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from nas.acquisition import improvement
from nas.budget import Refusal
from nas.candidates import Candidate, Entry, Sized
from nas.features import features, names
from nas.objectives import scaled
from nas.prior import Prior
from nas.space import Choice, Space
from nas.surrogate import Array, Process

FIRST = 160
"""Networks drawn before the first choice."""
EACH = 8
"""Further ones with each choice, ..."""
LASTING = 24
"""... which stay for so many choices."""
PARENTS = 2
CHILDREN = 3
"""Of the best of the pool so many, as many of the best of the trained, and of each so many
neighbours."""


class Known(NamedTuple):
    """A trained network, what it reached (or would have, where it was stopped), its costs."""

    key: str
    entry: Sized
    accuracy: float
    costs: tuple[float, ...] = ()


class Option(NamedTuple):
    """A network that could be trained, genes that lead to it, its scaled costs and features."""

    key: str
    genes: Mapping[str, Choice]
    costs: tuple[float, ...]
    features: Array


class Predicted(NamedTuple):
    """An option, and mean and deviation of what it will reach."""

    option: Option
    mean: float
    deviation: float


class Learned(NamedTuple):
    """What the trained networks tell: the process, and what it says that they reach."""

    process: Process
    reached: Array


class Model:
    """Chooses networks of a space. settle: the network of a candidate, or why there is none;
    costs: those of its costs that are objectives."""

    def __init__(
        self,
        space: Space,
        settle: Callable[[Candidate], Entry | Refusal],
        costs: Callable[[Sized], tuple[float, ...]],
        seed: str,
        prior: Prior,
    ) -> None:
        self._space, self._settle, self._costs = space, settle, costs
        self._seed, self._prior = seed, prior
        self._genes = space.genes
        self._raw: dict[str, Array] = {}
        self._options: dict[tuple[Choice, ...], Option | None] = {}
        self._drawings: dict[str, list[Option]] = {}
        self._first = self._drawn("first", FIRST)
        self._space_features = np.array([option.features for option in self._first])

    def choose(
        self,
        known: Sequence[Known],
        busy: Mapping[str, Sized],
        closed: Collection[str],
        parents: Sequence[Mapping[str, Choice]],
        references: Sequence[float | None],
        number: int,
    ) -> Option | None:
        """The best network whose key is not closed; None where all are.

        known: what was trained. busy: what is under way. parents: genes of the best of the trained.
        references: of the costs (`nas.objectives`), None for the largest there is. number: of the
        choice.
        """
        turns = range(max(0, number - LASTING + 1), number + 1)
        drawn = (self._drawn(f"turn {turn}", EACH) for turn in turns)
        pool = _different([*self._first, *(one for part in drawn for one in part)], closed)
        learned = self._learned(known, busy)
        judge = partial(self._judged, learned, known, references, number)
        scored = judge(predicted := self._predicted(learned, pool))
        parents = [*parents, *(option.genes for _, option in scored[:PARENTS])]
        near = _different(self._neighbours(parents, number), {*closed, *(o.key for o in pool)})
        if near:
            scored = judge([*predicted, *self._predicted(learned, near)])
        return scored[0][1] if scored else None

    def _learned(self, known: Sequence[Known], busy: Mapping[str, Sized]) -> Learned:
        return learn(
            self._prior,
            self._standardised([self._features(one.key, one.entry) for one in known]),
            np.array([one.accuracy for one in known]),
            self._standardised([self._features(key, entry) for key, entry in busy.items()]),
        )

    def _predicted(self, learned: Learned, options: Sequence[Option]) -> list[Predicted]:
        """Options with mean and deviation of what they will reach."""
        if not options:
            return []
        x = self._standardised([option.features for option in options])
        mean, deviation = learned.process.predict(x, self._prior.expected(x))
        return list(map(Predicted, options, mean.tolist(), deviation.tolist()))

    def _judged(
        self,
        learned: Learned,
        known: Sequence[Known],
        references: Sequence[float | None],
        number: int,
        pool: Sequence[Predicted],
    ) -> list[tuple[float, Option]]:
        """The pool by its expected improvement, the largest first."""
        if not pool:
            return []
        costs = [one.option.costs for one in pool] + [one.costs for one in known]
        largest = [max(column) for column in zip(*costs, strict=True)]
        ends = [given or most for given, most in zip(references, largest, strict=True)]
        rows = [list(map(scaled, row, ends)) for row in costs]
        placed = np.array(rows, dtype=np.float64).reshape(len(rows), len(ends))
        found = improvement(
            np.array([one.mean for one in pool]),
            np.array([one.deviation for one in pool]),
            placed[: len(pool)],
            learned.reached,
            placed[len(pool) :],
            _derived(self._seed, f"limits {number}"),
        )
        options = [one.option for one in pool]
        return sorted(zip(found.tolist(), options, strict=True), key=_order)

    def _neighbours(self, parents: Iterable[Mapping[str, Choice]], number: int) -> list[Option]:
        """Of each parent some, with one gene changed."""
        draw = random.Random(_derived(self._seed, f"neighbours {number}"))
        found = []
        for genes in parents:
            for _ in range(CHILDREN):
                name = draw.choice(list(self._genes))
                found.append(self._option({**genes, name: draw.choice(self._genes[name])}))
        return [option for option in found if option is not None]

    def _drawn(self, what: str, count: int) -> list[Option]:
        """So many genomes at random, as far as they have a network; always the same ones."""
        if what in self._drawings:
            return self._drawings[what]
        draw = random.Random(_derived(self._seed, what))
        genomes = [
            {name: draw.choice(choices) for name, choices in self._genes.items()}
            for _ in range(count)
        ]
        found = [option for genes in genomes if (option := self._option(genes)) is not None]
        self._drawings[what] = found
        return found

    def _option(self, genes: Mapping[str, Choice]) -> Option | None:
        genes = self._space.canonical(genes)
        key = tuple(genes.values())
        if key not in self._options:
            entry = self._settle(self._space.decode(genes))
            self._options[key] = None
            if isinstance(entry, Sized):
                name, costs = entry.key, self._costs(entry)
                self._options[key] = Option(name, genes, costs, self._features(name, entry))
        return self._options[key]

    def _standardised(self, raw: Sequence[Array]) -> Array:
        """Features, with sizes relative to those of the networks drawn first."""
        matrix = np.array(raw).reshape(len(raw), len(names()))
        return self._prior.standardised(matrix, self._space_features)

    def _features(self, key: str, entry: Sized) -> Array:
        if key not in self._raw:
            self._raw[key] = features(entry)
        return self._raw[key]


def learn(prior: Prior, known: Array, accuracy: Array, busy: Array) -> Learned:
    """From t trained networks: features, standardised, (t, features), and accuracies (t,).

    busy: features of those under way.
    """
    expected = prior.expected(known)
    process = Process.fit(known, expected, accuracy, prior.unit)
    reached = process.mean(known, expected)
    if len(busy):
        process = process.expecting(busy, prior.expected(busy))
    return Learned(process, reached)


def scores(
    prior: Prior, pool: Array, costs: Array, known: Array, spent: Array, accuracy: Array,
    busy: Array, seed: int,
) -> Array:  # fmt: skip
    """The expected improvement of each of n networks. All features are standardised.

    pool: (n, features); costs: (n, m). known: (t, features) with costs `spent` (t, m) and
    `accuracy` (t,). busy: (b, features), under way.
    """
    process, reached = learn(prior, known, accuracy, busy)
    mean, deviation = process.predict(pool, prior.expected(pool))
    return improvement(mean, deviation, costs, reached, spent, seed)


def _different(options: Iterable[Option], closed: Collection[str]) -> list[Option]:
    """The first of each key that is not closed."""
    found: dict[str, Option] = {}
    for option in options:
        if option.key not in closed:
            found.setdefault(option.key, option)
    return list(found.values())


def _order(scored: tuple[float, Option]) -> tuple[float, str]:
    return -scored[0], scored[1].key


def _derived(seed: str, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"model {seed} {what}".encode()).digest()[:4], "big")
