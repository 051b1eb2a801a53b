"""When a training is not worth going on with.

A training is judged after a few of its epochs, the rungs. It is stopped at a rung where its
accuracy lies below a floor, a number that is known when it begins: whoever trains it needs no word
from anyone else, and the driver stores the floors with the trial.

Several objectives. Costs are exact before training, so the networks that cost no more in any
objective are known, and with them the accuracy that this one has to beat. The end of a training is
predicted from its accuracy a_r at rung r by the finished ones,

    end = c_r + b_r a_r + e,    least squares;    optimistic end = c_r + b_r a_r + q,

with q a high quantile of their residuals e. It is dominated, and the training stopped, where the
optimistic end is below the accuracy to beat.

One objective. Successive halving: only the best 1 / ETA of those that reached a rung go on.
Sources: Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA); the end of
a curve from its beginning: Domhan et al. 2015.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Curve = Mapping[int, float]
"""Accuracy by the number of epochs trained; of a finished training the last is its end."""

ETA = 2
OPTIMISM = 0.9
ENOUGH = 6
"""Finished trainings without which nothing is stopped."""
FEWEST = 4
"""Epochs of the shortest schedule in which anything is stopped."""
NEVER = -math.inf


def rungs(epochs: int) -> tuple[int, ...]:
    """After which epochs a training of so many is judged: 1/16, 1/8, 1/4, 1/2 and all.

    >>> rungs(40), rungs(4), rungs(1)
    ((3, 5, 10, 20, 40), (1, 2, 4), (1,))
    """
    shares = {max(1, math.ceil(epochs / part)) for part in (16, 8, 4, 2)}
    return tuple(sorted(shares | {epochs}))


def bar(costs: Sequence[float], finished: Sequence[tuple[float, Sequence[float]]]) -> float:
    """The accuracy that a network of these costs has to beat in order not to be dominated.

    finished: accuracy and costs of each finished network. NEVER where none costs as little.
    """
    rivals = (
        accuracy
        for accuracy, theirs in finished
        if all(a <= b for a, b in zip(theirs, costs, strict=True))
    )
    return max(rivals, default=NEVER)


def dominated_floors(
    curves: Sequence[Curve], to_beat: float, judged: Sequence[int]
) -> dict[int, float]:
    """For each rung before the last, the end, the accuracy below which even an optimistic end is
    too low."""
    *early, _ = judged
    lines = {rung: line(curves, rung, judged[-1]) for rung in early}
    return {rung: NEVER if one is None else one.reaching(to_beat) for rung, one in lines.items()}


def halving_floors(curves: Sequence[Curve], judged: Sequence[int]) -> dict[int, float]:
    """For each rung before the last, the end, what the best 1 / ETA of all have reached there."""
    floors = {}
    for rung in judged[:-1]:
        reached = [curve[rung] for curve in curves if rung in curve]
        enough = len(reached) >= ENOUGH
        floors[rung] = float(np.quantile(reached, 1 - 1 / ETA)) if enough else NEVER
    return floors


class Line(NamedTuple):
    """end = start + slope a_r, and the residual of an optimist."""

    start: float
    slope: float
    margin: float

    def end(self, accuracy: float) -> float:
        """The end that is expected of a training with this accuracy at the rung."""
        return self.start + self.slope * accuracy

    def reaching(self, end: float) -> float:
        """The accuracy at the rung of which an optimist still expects this end."""
        return (end - self.start - self.margin) / self.slope


def line(curves: Sequence[Curve], rung: int, end: int) -> Line | None:
    """How the end follows from the accuracy at a rung; None where too few have finished to say, or
    where it does not rise with it."""
    pairs = [(curve[rung], curve[end]) for curve in curves if rung in curve and end in curve]
    if len(pairs) < ENOUGH:
        return None
    early, last = np.array(pairs).T
    centred = early - early.mean()
    spread = float(centred @ centred)
    slope = float(centred @ last) / spread if spread > 0 else 0.0
    if slope <= 0:
        return None
    start = float(last.mean() - slope * early.mean())
    return Line(start, slope, float(np.quantile(last - start - slope * early, OPTIMISM)))


def foreseen(curve: Curve, found: Line | None) -> float:
    """What a training that was stopped at the rung of a line would have reached; its last accuracy
    where there is none."""
    last = curve[max(curve)]
    return last if found is None else found.end(last)
