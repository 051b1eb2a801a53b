"""The widths that a candidate can have, and what each costs at least.

The widths of the layout and of a design are proportional to the width w of the network, so that
what groups and @K demand are conditions "g divides p/d w" with constants p/d; they hold exactly
for the multiples of one number, the step of the candidate. Operators that are no grouped
convolution are asked (`why_invalid`): their widths are among the multiples of a step, with gaps
(a grid of channels needs factors, a shift as many channels as taps).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from analysis.completeness import shuffled_chain, why_incomplete
from analysis.cost import ITEMSIZE
from analysis.theorems import bound_params, shares
from nas.candidates import Candidate, Task
from spaces.design import Design, Step, parse
from spaces.grouped import GroupedConvolution, GroupNumber, NumberedGroups
from spaces.layouts.fog import fog
from spaces.operator import DesignError, Operator

NARROWEST = 4
"""Smallest width: with fewer channels all group numbers are 1 or C and most designs coincide."""

FAR = 2**20
"""Steps up the ladder at which what holds from some width on has begun to hold."""

PROBED = 256
"""Multiples that are asked where the valid widths are not known by rule."""

SAMPLED = 64
"""Multiples by which it is decided whether a cost falls; a grid of channels does so at 24."""


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
    """The number whose multiples are the widths at which every block can stand; where other
    operators than grouped convolutions are there, the largest that divides all such widths.

    Raises DesignError with the reason where no width is valid.

    >>> step(Candidate(parse("PWG(4)+DW+PWG(4)@1/4"), (1, 1, 1)))
    16
    """
    return _steps(dense(candidate.design), slots(candidate.blocks))[0]


@lru_cache(maxsize=4096)
def _steps(design: Design, places: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The step, and the smallest valid width from `NARROWEST` on, as far as there is one."""
    demands = [1]
    for channels, features in places:
        parts = [x * channels + y * features for x, y in shares(design)]
        for operator, before, after in zip(design.operators, parts, parts[1:], strict=False):
            demands += [_multiple(1, before), _multiple(1, after), *_of(operator, before, after)]
    unit = math.lcm(*demands)
    probed = range(unit, (1 if _is_chain(design) else PROBED) * unit + 1, unit)
    valid = [width for width in probed if _why_not(design, places, width) is None]
    if not valid:
        raise DesignError(str(_why_not(design, places, probed[-1])))
    if _is_chain(design):
        return unit, unit * -(-NARROWEST // unit)
    return math.gcd(*valid), next((w for w in valid if w >= NARROWEST), valid[-1])


def stands(candidate: Candidate, width: int) -> bool:
    """Whether every block can stand at this multiple of the step."""
    return _why_not(dense(candidate.design), slots(candidate.blocks), width) is None


@lru_cache(maxsize=65536)
def _why_not(design: Design, places: tuple[tuple[int, int], ...], width: int) -> str | None:
    """None, or why some block cannot stand at this width."""
    reasons = (design.why_invalid(c * width, f * width) for c, f in places)
    return next((reason for reason in reasons if reason is not None), None)


def following(candidate: Candidate, width: int) -> int | None:
    """The next valid width, None if there is none up to twice as many channels and `PROBED`."""
    unit = step(candidate)
    wider = range(width + unit, 2 * width + PROBED * unit, unit)
    return next((w for w in wider if stands(candidate, w)), None)


@lru_cache(maxsize=4096)
def _falls(design: Design, at: tuple[tuple[int, int], ...], unit: int) -> bool:
    """Whether the cost of some block falls from one valid width to the next."""
    widths = [w for w in range(unit, SAMPLED * unit, unit) if _why_not(design, at, w) is None]
    for c, f in at:
        stood = (design.places(c * w, f * w, 8, 8) for w in widths)
        costs = [tuple(map(sum, zip(*map(_own, steps), strict=True))) for steps in stood]
        if any(x > y for one, two in pairwise(costs) for x, y in zip(one, two, strict=True)):
            return True
    return False


def _own(step: Step) -> tuple[int, int, int]:
    """What the limits count."""
    item, place, _ = step
    return item.params(place), item.mults(place), item.traffic(place, 4)


def _is_chain(design: Design) -> bool:
    """Whether all operators are grouped convolutions, whose widths and costs are known by rule."""
    return all(isinstance(operator, GroupedConvolution) for operator in design.operators)


def _of(operator: Operator, before: Fraction, after: Fraction) -> list[int]:
    """What a group number or size demands of the width."""
    if not isinstance(operator, GroupNumber):
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
    return _steps(dense(candidate.design), slots(candidate.blocks))[1]


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
    if not _is_chain(candidate.design):
        return low, None
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


NEVER = Floor(math.inf, math.inf, math.inf)
"""Where no width is valid from some width on."""


def floor(candidate: Candidate, task: Task, width: int) -> Floor:
    """A lower bound of the cost that never falls with the width; exact for grouped convolutions
    without open numbers.

    Of other operators the cost may fall from one valid width to the next (a grid of channels is
    denser at 22 = 2 x 11 than at 24 = 4 x 6), but at twice the width it is no less: the least up
    to there bounds it.
    """
    if _is_chain(candidate.design):
        return _floor(candidate, task, width)
    unit = step(candidate)
    valid: Iterator[int] = (w for w in range(width, 2 * width, unit) if stands(candidate, w))
    if not _falls(dense(candidate.design), slots(candidate.blocks), unit):
        valid = islice(valid, 1)
    costs = [_floor(candidate, task, w) for w in valid]
    return Floor(*map(min, zip(*costs, strict=True))) if costs else NEVER


@lru_cache(maxsize=16384)
def _floor(candidate: Candidate, task: Task, width: int) -> Floor:
    """The cost, or with open numbers a lower bound that never falls with the width.

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
