"""What a network of a width costs at least, without building it.

In a grouped convolution each cost is a sum of products of at most two widths, with group numbers
or sizes that stay. So the cost of a network of them is a polynomial of degree two in its width w,
whole at every step of the ladder (`nas.ladder`), and three networks tell it for all:

    c(i) = c1 + (i - 1) (c2 - c1) + (i - 1) (i - 2) / 2 (c3 - 2 c2 + c1),   w = i step.

Open group numbers take their optimum, which jumps with the divisors of the width. For real ones the
parameters of a block are at least `bound_params`; with a_i / g_i parameters at p_i pixels, the
inequality of the means gives for their multiplications

    sum p_i a_i / g_i >= (p_1 ... p_n)^(1/n) n (a_1 ... a_n / L)^(1/n).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from analysis.cost import ITEMSIZE
from analysis.theorems import bound_open_params
from nas.candidates import Candidate, Task
from nas.ladder import dense, is_chain, slots, stands, stands_at, step
from nas.standing import Slot, block_cost, ends_cost, standing
from spaces.design import Design, Step

SAMPLED = 64
"""Multiples by which it is decided whether a cost falls; a grid of channels does so at 24."""

DTYPE = "float32"
"""In which traffic is limited (`nas.limits`)."""

SLACK = 1 - 1e-9
"""Of a bound that is computed with roots, which may round up."""


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
    if is_chain(candidate.design):
        return _of_chain(candidate, task, width)
    unit = step(candidate)
    valid: Iterator[int] = (w for w in range(width, 2 * width, unit) if stands(candidate, w))
    if not _falls(dense(candidate.design), slots(candidate.blocks), unit):
        valid = islice(valid, 1)
    costs = [_counted(candidate, task, w) for w in valid]
    return Floor(*map(min, zip(*costs, strict=True))) if costs else NEVER


@lru_cache(maxsize=1024)
def _slots(input: tuple[int, int, int], blocks: tuple[int, ...]) -> tuple[tuple[Slot, int], ...]:
    """Each slot of the layout, and how many blocks stand in one like it."""
    return tuple(Counter(slot for _, slot in standing(input, blocks)).items())


def _counted(candidate: Candidate, task: Task, width: int) -> Floor:
    """The cost with 1 for every open number."""
    design, inner = dense(candidate.design), candidate.inner
    costs = [(ends_cost(task.input, task.classes, len(candidate.blocks), width), 1)]
    for slot, count in _slots(task.input, candidate.blocks):
        costs.append((block_cost(design, inner, slot, width), count))
    return Floor(
        params=sum(count * cost.params for cost, count in costs),
        mults=sum(count * cost.mults for cost, count in costs),
        traffic_bytes=sum(count * cost.traffic_bytes for cost, count in costs),
    )


# ---- grouped convolutions: a polynomial, and the bound of open numbers -------------------------


class Quadratic(NamedTuple):
    """A polynomial through whole numbers: its value at 1, its first and its second difference."""

    first: int
    slope: int
    bend: int

    @classmethod
    def through(cls, one: int, two: int, three: int) -> Quadratic:
        """With these values at 1, 2 and 3.

        >>> Quadratic.through(1, 4, 9).at(12)
        144
        """
        return cls(one, two - one, three - 2 * two + one)

    def at(self, i: int) -> int:
        return self.first + (i - 1) * self.slope + (i - 1) * (i - 2) // 2 * self.bend


def _of_chain(candidate: Candidate, task: Task, width: int) -> Floor:
    design = candidate.design
    unit = step(candidate)
    base = Floor(*(c.at(width // unit) for c in _quadratics(candidate, task, unit)))
    if not design.is_family:
        return base
    params, weighted = 0.0, 0.0
    for slot, count in _slots(task.input, candidate.blocks):
        least = count * bound_open_params(design, slot.channels * width, slot.features * width)
        params += least
        weighted += least * _pixels(design, slot, unit)
    return Floor(
        SLACK * (base.params + params),
        SLACK * (base.mults + weighted),
        SLACK * (base.traffic_bytes + ITEMSIZE[DTYPE] * params),
    )


@lru_cache(maxsize=4096)
def _quadratics(candidate: Candidate, task: Task, unit: int) -> tuple[Quadratic, ...]:
    """Parameters, multiplications and traffic, without the weights of open operators."""
    rows = []
    for width in (unit, 2 * unit, 3 * unit):
        whole = _counted(candidate, task, width)
        params = mults = 0
        for slot, count in _slots(task.input, candidate.blocks):
            for item, place, _ in _open_steps(candidate.design, slot, width):
                params += count * item.params(place)
                mults += count * item.mults(place)
        moved = params * ITEMSIZE[DTYPE]
        rows.append((whole.params - params, whole.mults - mults, whole.traffic_bytes - moved))
    return tuple(Quadratic.through(*map(int, values)) for values in zip(*rows, strict=True))


@lru_cache(maxsize=16384)
def _pixels(design: Design, slot: Slot, unit: int) -> float:
    """The geometric mean of the output pixels of the open operators."""
    pixels = [place.out_pixels for _, place, _ in _open_steps(design, slot, unit)]
    return math.exp(math.fsum(map(math.log, pixels)) / len(pixels))


@lru_cache(maxsize=16384)
def _open_steps(design: Design, slot: Slot, width: int) -> tuple[Step, ...]:
    """The operators of a design that have an open number, in a slot, with one group each."""
    c, f, *others = slot
    steps = dense(design).places(c * width, f * width, *others)
    return tuple(
        one for one in steps if one.position is not None and design.operators[one.position].is_open
    )


# ---- other operators ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _falls(design: Design, at: tuple[tuple[int, int], ...], unit: int) -> bool:
    """Whether the cost of some block falls from one valid width to the next."""
    widths = [w for w in range(unit, SAMPLED * unit, unit) if stands_at(design, at, w)]
    for c, f in at:
        stood = (design.places(c * w, f * w, 8, 8) for w in widths)
        costs = [tuple(map(sum, zip(*map(_own, steps), strict=True))) for steps in stood]
        if any(x > y for one, two in pairwise(costs) for x, y in zip(one, two, strict=True)):
            return True
    return False


def _own(step: Step) -> tuple[int, int, int]:
    """What the limits count."""
    item, place, _ = step
    return item.params(place), item.mults(place), item.traffic(place, ITEMSIZE[DTYPE])
