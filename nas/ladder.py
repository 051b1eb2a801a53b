"""The widths that a candidate can have, and what each costs at least.

The widths of the layout and of a design are proportional to the width w of the network, so that
what groups and @K demand are conditions "g divides p/d w" with constants p/d; they hold exactly
for the multiples of one number, the step of the candidate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from analysis.completeness import shuffled_chain, why_incomplete
from analysis.cost import ITEMSIZE
from analysis.theorems import bound_params, shares
from nas.candidates import Candidate, Task
from spaces.design import Design, parse
from spaces.grouped import NumberedGroups
from spaces.layouts.fog import fog
from spaces.operator import DesignError, Operator

NARROWEST = 4
"""Smallest width: with fewer channels all group numbers are 1 or C and most designs coincide."""

FAR = 2**20
"""Steps up the ladder at which what holds from some width on has begun to hold."""


@lru_cache(maxsize=256)
def slots(blocks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The (C, F) at which blocks stand, in units of the network's width, each once.

    >>> slots((2, 2))
    ((1, 1), (1, 2), (2, 2))
    """
    found: dict[tuple[int, int], None] = {}

    def record(name: str, c: int, f: int, h: int, w: int, stride: int) -> Design:
        found[c, f] = None
        return parse("PW")

    fog(record, input=(1, 1, 1), classes=1, width=1, blocks=blocks)
    return tuple(found)


@lru_cache(maxsize=4096)
def step(candidate: Candidate) -> int:
    """The number whose multiples are the widths at which every block can stand.

    Raises DesignError with the reason where no width is valid.

    >>> step(Candidate(parse("PWG(4)+DW+PWG(4)@1/4"), (1, 1, 1)))
    16
    """
    demands = [1]
    for channels, features in slots(candidate.blocks):
        parts = [x * channels + y * features for x, y in shares(candidate.design)]
        for operator, before, after in zip(
            candidate.design.operators, parts, parts[1:], strict=False
        ):
            demands += [_multiple(1, before), _multiple(1, after), *_of(operator, before, after)]
    width = math.lcm(*demands)
    for channels, features in slots(candidate.blocks):
        reason = dense(candidate.design).why_invalid(channels * width, features * width)
        if reason is not None:
            raise DesignError(reason)
    return width


def _of(operator: Operator, before: Fraction, after: Fraction) -> list[int]:
    """What a group number or size demands of the width."""
    if not isinstance(operator, NumberedGroups):
        return []
    if operator.q is not None:
        return [_multiple(operator.q, before)]
    if isinstance(operator.g, int):
        return [_multiple(operator.g, before), _multiple(operator.g, after)]
    return []


def _multiple(number: int, part: Fraction) -> int:
    """The smallest w for which `number` divides the whole number part x w."""
    whole = number * part.denominator
    return whole // math.gcd(whole, part.numerator)


@lru_cache(maxsize=4096)
def dense(design: Design) -> Design:
    """The design with 1 for every open group number: what it sees and costs at most."""
    operators = (
        replace(op, g=1) if isinstance(op, NumberedGroups) and op.is_open else op
        for op in design.operators
    )
    return replace(design, operators=tuple(operators))


def first_width(candidate: Candidate) -> int:
    """The smallest valid width."""
    unit = step(candidate)
    return unit * -(-NARROWEST // unit)


@lru_cache(maxsize=4096)
def complete_widths(candidate: Candidate) -> tuple[int, int | None] | str:
    """The smallest and largest valid width at which every block sees the window, or why none does.

    By (1) of `analysis.completeness`, a block is complete where c w^p >= 1, with p the number of
    inner widths less that of group numbers that grow with the width: GC(8)+PWG(8) from a width on
    (p = 1), DW+PW everywhere (p = 0), GC(q=8)+PWG(q=8) up to a width (p = -1). Open numbers are
    taken as 1, the best case. A design with a shuffle left out is judged as if it stood, which is
    necessary only; where other operators stand every width counts.
    """
    low, unit = first_width(candidate), step(candidate)
    design = replace(dense(candidate.design), unshuffled=frozenset())
    if not shuffled_chain(design):
        return low, None

    def reason(width: int) -> str | None:
        found = (why_incomplete(design, c * width, f * width) for c, f in slots(candidate.blocks))
        return next((why for why in found if why is not None), None)

    at_first, far = reason(low), reason(low + FAR * unit)
    if at_first is None and far is None:
        return low, None
    if at_first is not None and far is not None:
        return at_first
    good, bad = (low + FAR * unit, low) if far is None else (low, low + FAR * unit)
    while abs(good - bad) > unit:
        middle = low + (min(good, bad) + abs(good - bad) // 2 - low) // unit * unit
        good, bad = (middle, bad) if reason(middle) is None else (good, middle)
    return (good, None) if far is None else (low, good)


class Floor(NamedTuple):
    """What a network of a width costs at least."""

    params: float
    mults: float
    traffic_bytes: float


@lru_cache(maxsize=16384)
def floor(candidate: Candidate, task: Task, width: int) -> Floor:
    """A lower bound of the cost that never falls with the width; exact without open numbers.

    Open group numbers take their optimum, which jumps with the divisors of the width. For real
    ones the parameters of a block are at least `bound_params`; with a_i / g_i parameters at p_i
    pixels, the inequality of the means gives for their multiplications

        sum p_i a_i / g_i >= (p_1 ... p_n)^(1/n) n (a_1 ... a_n / L)^(1/n).
    """
    stand_in = replace(candidate, design=dense(candidate.design))
    network = stand_in.sized(task, width)
    cost = network.cost
    params, mults, traffic = float(cost.params), float(cost.mults), float(cost.traffic_bytes)
    if not candidate.design.is_family:
        return Floor(params, mults, traffic)
    for part in network.network.blocks():
        if part.shortcut is None:
            continue
        whole = part.shortcut.place
        least = bound_params(candidate.design, whole.channels, whole.features)
        pixels, saved = [], 0.0
        for item, place, position in part.body:
            if position is None:
                continue
            own = item.params(place)
            if candidate.design.operators[position].is_open:
                pixels.append(place.out_pixels)
                saved += own
                mults -= item.mults(place)
            else:
                least -= own
        params += least - saved
        mults += least * math.exp(math.fsum(map(math.log, pixels)) / len(pixels))
        traffic += (least - saved) * ITEMSIZE[cost.dtype]
    slack = 1 - 1e-9
    return Floor(params * slack, mults * slack, traffic * slack)
