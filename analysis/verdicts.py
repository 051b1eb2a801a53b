"""Whether a composition hits its target for some group numbers, for all compositions at once.

Forward over the operators, a layer is the set of nodes that the choices so far can reach. Symbols
of which each choice reads the same are alike: layers are shared by all words of alike symbols,
which are few, since STD, UNR, SIC and STRUCT(c=1/2,n=2) all read (k, k, C).

What the last operator makes of a node is not composed if a bound tells it already: no output reads
more channels, or inputs, than it reads of what reads most; none has a narrower window than what it
reads. Everything else is exact, so that a removal is never a guess.

Cost: one composition (`analysis.composed`) for each distinct field and operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from analysis.choices import Choice, Choices, Station
from spaces.operator import DesignError
from spaces.rules import Composition

Node = tuple[int, int, bool]
"""A field, the groups of the last operator (whose shuffle acts if another follows), and whether
every operator so far has grown the field."""


class Verdicts(Choices):
    """Every choice of every composition. `prunes`: the target decides what follows, so that under
    `size` a node whose window is too large needs no successor."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        vocabulary: tuple[str, ...],
        max_length: int,
        target: str,
        inner: Fraction | None = None,
        *,
        prunes: bool = True,
    ) -> None:
        super().__init__(channels, kernel, vocabulary, max_length, target, inner)
        self.prunes = prunes and self.by_size
        self._verdicts: dict[Composition, tuple[bool, bool]] = {}
        self._moving: dict[Station, bool] = {}
        self._lasts: dict[Station, tuple[Choice, ...]] = {}
        self._completed: dict[tuple[int, int], bool] = {}
        self._layers: dict[tuple[tuple[Station, ...], bool], frozenset[Node]] = {}
        self._layer_steps: dict[tuple[frozenset[Node], Station, bool], frozenset[Node]] = {}
        self._ends: dict[tuple[frozenset[Node], Station], tuple[bool, bool]] = {}

    # ---- questions ---------------------------------------------------------------------------

    def verdict(self, composition: Composition) -> tuple[bool, bool]:
        """Whether some choice hits the target, and whether one does of which each operator grows
        the field; in a bottleneck the last is exempt, since it restores the F channels."""
        if composition not in self._verdicts:
            self._verdicts[composition] = self._decide(composition)
        return self._verdicts[composition]

    def reaches(self, composition: Composition) -> bool:
        return self.verdict(composition)[0]

    def grows_somehow(self, composition: Composition) -> bool:
        """Whether each operator grows the field for some choice, whatever it ends with."""
        return any(True for _ in self.paths(composition, growing=True))

    def verdicts(self, symbols: Sequence[str], length: int) -> np.ndarray:
        """`verdict` of every word of these symbols: an array (2, symbols, ..., symbols).

        Few layers are distinct, so each step is one look-up for all words. In a bottleneck the
        first operator enters the inner width and the last leaves it: a symbol that cannot change
        the width gives False at the ends.
        """
        widths = [self.channels] * (length + 1)
        if self.inner is not None:
            widths[1:-1] = [int(self.inner * self.channels)] * (length - 1)
        rows = [[self.alike((symbol, *pair)) for symbol in symbols] for pair in pairwise(widths)]
        layers, at = [self._layer((), False)], np.zeros((), int)
        unsure = np.zeros((), bool)
        for i, stations in enumerate(rows):
            cut = np.array([self._is_cut(layer) for layer in layers])[at]
            moves = np.array([i > 0 and self._moves(station) for station in stations])
            unsure = unsure[..., None] | (cut[..., None] & moves)
            if i == length - 1:
                break
            following: dict[frozenset[Node], int] = {}
            table = [
                [
                    following.setdefault(self._stepped(layer, station, False), len(following))
                    for station in stations
                ]
                for layer in layers
            ]
            layers, at = list(following), np.array(table)[at]
        ends = [[self._ended(layer, last) for last in rows[-1]] for layer in layers]
        found = np.moveaxis(np.array(ends)[at], -1, 0).copy()
        unsure &= ~found[0] if self.inner is None else ~found.all(axis=0)
        for word in np.argwhere(unsure):
            found[(slice(None), *word)] = self.verdict(tuple(symbols[i] for i in word))
        return found

    # ---- one composition ---------------------------------------------------------------------

    def _decide(self, composition: Composition) -> tuple[bool, bool]:
        try:
            stations = tuple(map(self.alike, self.stations(composition)))
        except DesignError:
            return (False, False)
        if not all(map(self.at, stations)):
            return (False, False)
        found = self._ended(self._layer(stations[:-1], False), stations[-1])
        if not all(found) and self._was_cut(stations):
            found = self._ended(self._layer(stations[:-1], True), stations[-1])
        return found

    def _was_cut(self, stations: tuple[Station, ...]) -> bool:
        """Whether a part that `_layer` cut away could matter: only to an operator that does not
        read the centre pixel for each output, as SHIFT."""
        moving = [i for i, station in enumerate(stations) if i and self._moves(station)]
        return any(self._is_cut(self._layer(stations[:i], False)) for i in moving)

    def _is_cut(self, layer: frozenset[Node]) -> bool:
        return not self.by_size and any(self.complete(field) for field, _, _ in layer)

    def _moves(self, station: Station) -> bool:
        if station not in self._moving:
            centre, common = self.fields.taps.centre, self.fields.common
            self._moving[station] = not all(
                common(choice.field) & centre for choice in self.at(station)
            )
        return self._moving[station]

    # ---- layers ------------------------------------------------------------------------------

    def _layer(self, stations: tuple[Station, ...], whole: bool) -> frozenset[Node]:
        """The nodes behind these operators. Under `size` without those whose window is too large,
        since no later operator narrows it. Under `covers` a complete field, which no operator can
        grow, is cut down to a box within it unless it is wanted `whole`."""
        if not stations:
            return frozenset([(self.start, 1, True)])
        key = (stations, whole)
        if key not in self._layers:
            before = self._layer(stations[:-1], whole)
            self._layers[key] = self._stepped(before, stations[-1], whole)
        return self._layers[key]

    def _stepped(self, layer: frozenset[Node], station: Station, whole: bool) -> frozenset[Node]:
        key = (layer, station, whole)
        if key not in self._layer_steps:
            self._layer_steps[key] = frozenset(self._steps(*key))
        return self._layer_steps[key]

    def _steps(self, layer: frozenset[Node], station: Station, whole: bool) -> Iterator[Node]:
        for field, groups, grew in layer:
            for choice in self.at(station):
                later = self.appended(groups, choice, station[1])
                if self.prunes and self._overshoots(later, field):
                    continue
                after = self.fields.after(later, field)
                grown = grew and self.grows(field, after)
                if not (whole or self.by_size) and self.fields.covers(after):
                    after = self.fields.collapsed(after)
                if not (self.prunes and self.fields.seen(after).narrowest > self.kernel):
                    yield after, choice.groups, grown

    # ---- the last operator -------------------------------------------------------------------

    def _ended(self, layer: frozenset[Node], last: Station) -> tuple[bool, bool]:
        if (layer, last) not in self._ends:
            self._ends[layer, last] = self._end(layer, last)
        return self._ends[layer, last]

    def _end(self, layer: frozenset[Node], last: Station) -> tuple[bool, bool]:
        """First the nodes that the last operator may complete by growth, which settles both."""
        restores = self.inner is not None
        fresh = {node for node in layer if node[2] and (restores or not self.complete(node[0]))}
        if self._completing([*fresh], last):
            return (True, True)
        rest = sorted(layer - fresh, key=lambda node: not self.complete(node[0]))
        return (self._completing(rest, last), False)

    def _completing(self, nodes: list[Node], last: Station) -> bool:
        """Whether some choice of the last operator completes one of the nodes."""
        return any(
            self._is_completed(self.appended(groups, choice, last[1]), field)
            for field, groups, _ in nodes
            for choice in self._last(last)
        )

    def _last(self, station: Station) -> tuple[Choice, ...]:
        """The choices that need asking at the end: under `covers` those whose field lies in no
        other's, since who reads more covers more."""
        if station not in self._lasts:
            choices = self.at(station)
            if not self.by_size:
                fields = dict.fromkeys(choice.field for choice in choices)
                within = self.fields.contains
                inner = {f for f in fields if any(f != g and within(g, f) for g in fields)}
                choices = tuple(choice for choice in choices if choice.field not in inner)
            self._lasts[station] = choices
        return self._lasts[station]

    def _is_completed(self, later: int, field: int) -> bool:
        """Whether the later operator makes the field complete."""
        key = (later, field)
        if key not in self._completed:
            self._completed[key] = self._completes(later, field)
        return self._completed[key]

    def _completes(self, later: int, field: int) -> bool:
        """First by bounds: an output reads no more channels, or inputs, than it reads of what
        the earlier ones read at most."""
        channels = self.fields.most_channels(later) * self.fields.most_channels(field)
        if channels < self.channels:
            return False
        if self.by_size:
            if self._overshoots(later, field):
                return False
            sizes = self.fields.sizes(later, field, self.kernel)
            if self.target not in sizes or len(sizes) == 1:
                return self.target in sizes
            return self.complete(self.fields.after(later, field))
        if self.complete(field) and self.fields.common(later) & self.fields.taps.centre:
            return True
        fewest, most = self.fields.volumes(later)[0], self.fields.volumes(field)[1]
        if fewest * most < self.kernel**2 * self.channels:
            return False
        return self.fields.completes(later, field)

    def _overshoots(self, later: int, field: int) -> bool:
        """Whether every output surely sees more than the window: the taps that all outputs of
        the one and of the other read add up."""
        taps = self.fields.taps.sum(self.fields.common(later), self.fields.common(field))
        return self.fields.taps.side(taps) > self.kernel
