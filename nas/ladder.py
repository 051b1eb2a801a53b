"""The widths that a candidate can have.

The widths of the layout and of a design are proportional to the width w of the network, so that
what groups and @K demand are conditions "g divides p/d w" with constants p/d; they hold exactly
for the multiples of one number, the step of the candidate. Operators that are no grouped
convolution are asked (`why_invalid`): their widths are among the multiples of a step, with gaps
(a grid of channels needs factors, a shift as many channels as taps).
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from analysis.completeness import shuffled_chain, why_incomplete
from analysis.theorems import shares
from nas.candidates import Candidate
from nas.standing import standing
from spaces.design import Design
from spaces.grouped import GroupedConvolution, GroupNumber, NumberedGroups
from spaces.operator import DesignError, Operator

NARROWEST = 4
"""Smallest width: with fewer channels all group numbers are 1 or C and most designs coincide."""

FAR = 2**20
"""Steps up the ladder at which what holds from some width on has begun to hold."""

PROBED = 256
"""Multiples that are asked where the valid widths are not known by rule."""


@lru_cache(maxsize=256)
def slots(blocks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The (C, F) at which blocks stand, in units of the network's width, each once.

    >>> slots((2, 2))
    ((1, 1), (1, 2), (2, 2))
    """
    places = (slot[:2] for _, slot in standing((1, 1, 1), blocks))
    return tuple(dict.fromkeys(places))


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
    probed = range(unit, (1 if is_chain(design) else PROBED) * unit + 1, unit)
    valid = [width for width in probed if _why_not(design, places, width) is None]
    if not valid:
        raise DesignError(str(_why_not(design, places, probed[-1])))
    if is_chain(design):
        return unit, unit * -(-NARROWEST // unit)
    return math.gcd(*valid), next((w for w in valid if w >= NARROWEST), valid[-1])


def stands(candidate: Candidate, width: int) -> bool:
    """Whether every block can stand at this multiple of the step."""
    return stands_at(dense(candidate.design), slots(candidate.blocks), width)


def stands_at(design: Design, places: tuple[tuple[int, int], ...], width: int) -> bool:
    """Whether a design can stand at all these (C, F), in units of a width."""
    return _why_not(design, places, width) is None


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


def is_chain(design: Design) -> bool:
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


def complete_widths(candidate: Candidate) -> tuple[int, int | None] | str:
    """The smallest and largest valid width at which every block sees the window, or why none does.

    By (1) of `analysis.completeness`, a block is complete where c w^p >= 1, with p the number of
    inner widths less that of group numbers that grow with the width: GC(8)+PWG(8) from a width on
    (p = 1), DW+PW everywhere (p = 0), GC(q=8)+PWG(q=8) up to a width (p = -1). Open numbers are
    taken as 1, the best case. A design with a shuffle left out is judged as if it stood, which is
    necessary only; where other operators stand every width counts.
    """
    return _complete(dense(candidate.design), slots(candidate.blocks))


@lru_cache(maxsize=4096)
def _complete(design: Design, places: tuple[tuple[int, int], ...]) -> tuple[int, int | None] | str:
    """The same of a design without open numbers, at these (C, F) in units of the width."""
    unit, low = _steps(design, places)
    if not is_chain(design):
        return low, None
    design = replace(design, unshuffled=frozenset())
    if not shuffled_chain(design):
        return low, None

    def reason(width: int) -> str | None:
        found = (why_incomplete(design, c * width, f * width) for c, f in places)
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
