"""Several objectives: the Pareto front of the trained networks, and the hypervolume below it.

Accuracy is to be large, costs small. A network is a point of losses in [0, 1]: 1 - accuracy,
and of a cost its logarithm within the range that counts, from 1/16 of the reference to twice the
reference (`scaled`). The reference of a cost is its limit, or what the dearest network costs.

The hypervolume is the share of the unit cube that lies behind the front, with all ones as the
reference point. In words: the accuracy that the front offers within a limit of each cost, on
average over the limits between 1/16 and 2 x the reference, evenly in their logarithm. With accuracy
as the only objective it is the best accuracy.

Sources: Zitzler and Thiele 1998; the recursion is WFG (While, Bradstreet and Barone 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ACCURACY = "accuracy"
LATENCY = "latency"
COSTS = ("params", "mults", "traffic", LATENCY)
OBJECTIVES = (ACCURACY, *COSTS)

OCTAVES = 5
ABOVE = 1
"""The range of a cost in powers of two, and how many of them lie above its reference: a network at
the limit of its cost still counts."""

Point = tuple[float, ...]


def read_objectives(text: str) -> tuple[str, ...]:
    """`accuracy,params` as names, accuracy first. Raises ValueError that says what is valid.

    >>> read_objectives("params, accuracy")
    ('accuracy', 'params')
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    return checked(names)


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """Accuracy, then the costs, in a fixed order. Raises ValueError for others and repeats."""
    given = list(names)
    wrong = [name for name in given if name not in OBJECTIVES]
    if wrong or len(set(given)) < len(given) or ACCURACY not in given:
        raise ValueError(
            f"objectives are {', '.join(given) or 'none'}; valid are accuracy and, each once, any "
            f"of {', '.join(COSTS)}"
        )
    return tuple(name for name in OBJECTIVES if name in given)


def scaled(cost: float, reference: float) -> float:
    """Where a cost lies in its range: 0 for 1/16 of the reference, 1 for twice the reference.

    >>> scaled(50_000, 50_000), scaled(25_000, 50_000), scaled(1, 50_000)
    (0.8, 0.6, 0.0)
    """
    octaves = math.log2(cost / reference) + OCTAVES - ABOVE
    return min(1.0, max(0.0, octaves / OCTAVES))


def point(accuracy: float, costs: Mapping[str, float], references: Mapping[str, float]) -> Point:
    """The losses of a network, of accuracy first, then of the costs that have a reference."""
    losses = [scaled(costs[name], reference) for name, reference in references.items()]
    return (1 - accuracy, *losses)


def costs_of(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """The costs among these objectives, from what the ledger says of a network."""
    return {name: float(facts[name]) for name in names if name != ACCURACY}


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether no loss of the first is larger and one is smaller."""
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point of losses whether none of the others dominates it.

    Whoever dominates a point comes before it in the order of the first loss, then the second, ...,
    so each is compared with the front before it only. Cost: O(n f m) for a front of f points.

    >>> front([(1, 3), (2, 2), (3, 3), (2, 2)])
    [True, True, False, True]
    """
    kept = [False] * len(points)
    leading: list[Sequence[float]] = []
    for index in sorted(range(len(points)), key=lambda index: tuple(points[index])):
        if not any(dominates(other, points[index]) for other in leading):
            kept[index] = True
            leading.append(points[index])
    return kept


def hypervolume(points: Iterable[Point]) -> float:
    """The volume between these points and the point of all ones; those beyond it count nothing.

    >>> round(hypervolume([(0.5, 0.8), (0.8, 0.5)]), 9)
    0.16
    """
    inside = sorted({one for one in points if max(one) < 1}, reverse=True)
    left = _undominated(inside)
    return math.fsum(contribution(one, left[index + 1 :]) for index, one in enumerate(left))


def contribution(new: Point, points: Iterable[Point]) -> float:
    """What a point adds to the hypervolume of others: its own box without what they cover of it."""
    if max(new) >= 1:
        return 0.0
    covered = {tuple(map(max, zip(new, other, strict=True))) for other in points}
    return math.prod(1 - loss for loss in new) - hypervolume(covered)


def history(points: Iterable[Point | None]) -> list[float]:
    """The hypervolume after each network, in the order in which they ended; None: no result."""
    volumes: list[float] = []
    volume = 0.0
    so_far: list[Point] = []
    for one in points:
        if one is not None and not any(dominates(other, one) or other == one for other in so_far):
            volume += contribution(one, so_far)
            so_far = [other for other in so_far if not dominates(one, other)] + [one]
        volumes.append(volume)
    return volumes


def _undominated(points: Sequence[Point]) -> list[Point]:
    return [one for one, kept in zip(points, front(points), strict=True) if kept]
