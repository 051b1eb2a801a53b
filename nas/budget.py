"""The widest network of a candidate that satisfies every limit at once.

    solve(candidate, task, Limits.read(params="50k"))    ->  Sized, or Refusal with its reason

Without open group numbers every cost grows with the width and bisection on the ladder of valid
widths finds the end. The optimum of open ones jumps with the divisors of the width: there a lower
bound (`nas.floors`) is bisected, and the widths below its end are tried one by one, so that the
first that fits is the widest of all. A latency comes last, by measuring (`nas.timed_width`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from nas import ladder
from nas.candidates import Candidate, Contender, Entry, Sized, Task
from nas.floors import floor
from nas.limits import BYTES, COUNT, SECONDS, Limits, quantity, show_seconds
from spaces.operator import DesignError

__all__ = [
    "BYTES",
    "COUNT",
    "SECONDS",
    "BudgetError",
    "Limits",
    "Refusal",
    "nearest_feasible",
    "quantity",
    "solve",
    "why_not_wider",
    "widest_index",
]

TIMINGS = 6
"""Timings of one candidate at most (`nas.timed_width`)."""

INCOMPLETE = 16
"""Widths that fit and see too little before the widest is looked for from the narrowest on."""


@dataclass(frozen=True)
class Refusal:
    """Why no network of a candidate can be tried; `nearest` is the smallest that stands."""

    candidate: Contender
    reason: str
    nearest: Entry | None = None


class BudgetError(Exception):
    """No network of a search fits its limits; `nearest` breaks them by the smallest factor."""

    def __init__(self, limits: Limits, nearest: Entry) -> None:
        self.nearest = nearest
        self.excess = limits.excess(nearest.cost)
        super().__init__(
            f"no network of the space fits {limits} on {nearest.task}; the nearest is "
            f"{nearest.candidate} at width {nearest.width} with {limits.why_not(nearest.cost)}"
        )

    def nearest_facts(self) -> dict[str, Any]:
        """The nearest network as plain data."""
        cost = self.nearest.cost
        return {
            "design": self.nearest.title,
            "known_as": self.nearest.candidate.known_as,
            "blocks": list(self.nearest.candidate.blocks),
            "width": self.nearest.width,
            "params": cost.params,
            "mults": cost.mults,
            "traffic_bytes": cost.traffic_bytes,
            "excess": self.excess,
        }


def solve(
    candidate: Candidate,
    task: Task,
    limits: Limits,
    *,
    allow_incomplete: bool = False,
    at_most: int | None = None,
) -> Sized | Refusal:
    """The widest network within the analytic limits whose every block sees the window.

    task: of the network for which the limits hold. Each wider valid width breaks a limit or leaves
    a block incomplete (`why_not_wider`). at_most: no wider than that, and with no more parameters
    than real group numbers need there, so that no prime width with poor numbers is taken.
    """
    try:
        unit, low, high = _range(candidate, allow_incomplete)
    except DesignError as error:
        return Refusal(candidate, str(error))
    limits = limits.analytic
    steps = min(
        [(bound - low) // unit for bound in (high, at_most) if bound is not None], default=None
    )
    last = widest_index(lambda i: limits.allow(floor(candidate, task, low + i * unit)), steps)
    if at_most is not None and candidate.design.is_family and last >= 0:
        least = floor(candidate, task, low + last * unit).params
        limits = replace(limits, params=min(math.ceil(least), limits.params or math.ceil(least)))

    def judged(index: int) -> tuple[Sized, str | None] | None:
        """The network and why it is incomplete; None where it cannot stand or breaks a limit."""
        sized = candidate.sized(task, low + index * unit)
        if not ladder.stands(candidate, sized.width):
            return None
        try:
            if not limits.allow(sized.cost):
                return None
            return sized, None if allow_incomplete else sized.why_incomplete()
        except DesignError as error:
            return sized, str(error)

    incomplete: list[str] = []
    for index in range(last, -1, -1):
        if (found := judged(index)) is None:
            continue
        sized, reason = found
        if reason is None:
            return sized
        incomplete.append(f"at width {sized.width} {reason}")
        if len(incomplete) == INCOMPLETE:
            narrow = widest_index(lambda i: (f := judged(i)) is not None and f[1] is None, index)
            if narrow >= 0 and (found := judged(narrow)) is not None:
                return found[0]
            break
    return _refusal(candidate, task, limits, low, at_most, incomplete)


def widest_index(fits: Callable[[int], bool], last: int | None = None) -> int:
    """The largest i in 0 .. last for which `fits`, which holds up to some i; -1 if for none.

    >>> widest_index(lambda i: i * i <= 50), widest_index(lambda i: i * i <= 50, 3)
    (7, 3)
    """
    good, bad = -1, 0 if last is None else min(0, last + 1)
    while (last is None or bad <= last) and fits(bad):
        good, bad = bad, 2 * bad + 1
    if last is not None:
        bad = min(bad, last + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def why_not_wider(sized: Sized, limits: Limits, *, allow_incomplete: bool = False) -> str | None:
    """What the next valid width breaks or leaves incomplete; None if nothing does.

    A latency speaks last and without being measured again.
    """
    width = ladder.following(sized.candidate, sized.width)
    if width is None:
        return f"no width above {sized.width} is valid"
    wider = sized.candidate.sized(sized.task, width)
    try:
        if (broken := limits.analytic.why_not(wider.cost)) is not None:
            return f"width {width} has {broken}"
        incomplete = None if allow_incomplete else wider.why_incomplete()
    except DesignError as error:
        incomplete = str(error)
    if incomplete is not None:
        return f"width {width} fits but is incomplete: {incomplete}"
    if limits.latency is not None:
        return (
            f"width {width} was not among the at most {TIMINGS} timed ones that took no more than "
            f"{show_seconds(limits.latency)}"
        )
    return None


def nearest_feasible(results: Iterable[Entry | Refusal], limits: Limits) -> Entry:
    """The network, solved or nearest to its candidate's refusal, with the smallest excess.

    Raises ValueError if no candidate has any valid network.
    """
    entries = [r.nearest if isinstance(r, Refusal) else r for r in results]
    standing = [entry for entry in entries if entry is not None]
    if not standing:
        raise ValueError("no candidate can stand at any width: include another composition")
    return min(standing, key=lambda entry: (limits.analytic.excess(entry.cost), entry.key))


def _range(candidate: Candidate, allow_incomplete: bool) -> tuple[int, int, int | None]:
    """The step of the valid widths, the smallest and the largest worth trying.

    Raises DesignError with the reason if there is none.
    """
    unit = ladder.step(candidate)
    if allow_incomplete:
        return unit, ladder.first_width(candidate), None
    widths = ladder.complete_widths(candidate)
    if isinstance(widths, str):
        raise DesignError(f"incomplete at every width: {widths}")
    return unit, *widths


def _refusal(
    candidate: Candidate,
    task: Task,
    limits: Limits,
    low: int,
    at_most: int | None,
    incomplete: list[str],
) -> Refusal:
    """The reason why nothing was found from `low` on, and the network of that width."""
    nearest = candidate.sized(task, low)
    if incomplete:
        tried = f" ({len(incomplete)} widths tried)" if len(incomplete) > 1 else ""
        return Refusal(candidate, f"incomplete {incomplete[0]}{tried}")
    if at_most is not None and at_most < low:
        return Refusal(candidate, f"no valid width is at most {at_most}", nearest)
    since = (
        "the narrowest"
        if low == ladder.first_width(candidate)
        else "the first that can be complete"
    )
    broken = limits.why_not(nearest.cost) or f"to be wider than {at_most}"
    return Refusal(candidate, f"width {low}, {since}, has {broken}", nearest)
