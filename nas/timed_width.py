"""The widest network of a candidate that is fast enough, found by timing a few.

Seconds are taken to grow as a power of the width between those that were timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from nas.budget import TIMINGS, Refusal
from nas.candidates import Entry
from nas.limits import USUAL, Limits, show_seconds

GUESSES = 4
"""Widths whose time is estimated before the first is measured, at most."""

E = TypeVar("E", bound=Entry)


def usual_seconds(entry: Entry) -> float:
    """A guess at what one image takes where no profile of the device is known."""
    return entry.cost.mults / USUAL


def within_latency(
    sized: E,
    limits: Limits,
    measure: Callable[[E], float],
    refit: Callable[[int], E | Refusal],
    expect: Callable[[E], float] = usual_seconds,
) -> E | Refusal:
    """The widest of at most 6 timed networks that meets the latency limit too.

    sized: the widest within the analytic limits. measure: seconds for one image. refit: the
    widest within the analytic limits that is no wider than a width. expect: seconds as guessed; it
    settles which network is timed first. The search takes latency as proportional to a power of
    the width between the timed ones and corrects itself.
    """
    if limits.latency is None:
        return sized
    timed: dict[int, float] = {}
    best: E | None = None
    fastest = entry = _first_guess(sized, limits.latency, refit, expect)
    while True:
        timed[entry.width] = measure(entry)
        fastest = min(fastest, entry, key=lambda one: timed[one.width])
        if timed[entry.width] <= limits.latency and (best is None or entry.width > best.width):
            best = entry
        following = None
        if len(timed) < TIMINGS:
            following = _next_guess(sized, timed, limits.latency, refit)
        if following is None:
            break
        entry = following
    if best is not None:
        return best
    return Refusal(
        sized.candidate,
        f"at width {fastest.width} it takes {show_seconds(timed[fastest.width])}, of at most "
        f"{show_seconds(limits.latency)}, the least of {len(timed)} timings",
        fastest,
    )


def _first_guess(
    sized: E, limit: float, refit: Callable[[int], E | Refusal], expect: Callable[[E], float]
) -> E:
    """The widest, or a narrower one that is expected to meet the limit."""
    entry = sized
    for _ in range(GUESSES):
        seconds = expect(entry)
        if seconds <= limit:
            break
        narrower = refit(min(entry.width - 1, int(entry.width * (limit / seconds) ** 0.5)))
        if isinstance(narrower, Refusal):
            break
        entry = narrower
    return entry


def _next_guess(
    widest: E, timed: dict[int, float], limit: float, refit: Callable[[int], E | Refusal]
) -> E | None:
    """The width to time next: between the widest fast one and the narrowest slow one above it.

    Seconds are taken to grow as a power of the width, through the two nearest timings; with all
    timings on one side of the limit the guess goes 10 % further, to find the other side.
    """
    fast = max((width for width, seconds in timed.items() if seconds <= limit), default=0)
    slow = min((width for width in timed if width > fast), default=widest.width + 1)
    if slow - fast < 2:
        return None
    if fast and slow in timed:
        near, other, margin = fast, slow, 1.0
    else:
        near, margin = (fast, 1.1) if fast else (slow, 0.9)
        other = min((w for w in timed if w != near), key=lambda w: abs(w - near), default=near)
    growth = 2.0 if fast else 1.0
    if other != near:
        slope = math.log(timed[other] / timed[near]) / math.log(other / near)
        growth = min(max(slope, 0.25), 4.0)
    cap = margin * near * (limit / timed[near]) ** (1 / growth)
    cap = max(fast + 1, min(int(cap), slow - 1))
    while True:
        found = refit(cap)
        if not isinstance(found, Refusal) and found.width > fast:
            return found
        if cap == slow - 1:
            return None
        cap = min(slow - 1, fast + 2 * (cap - fast))
