"""Parameter efficiency: the best group numbers of a layer, and the widest layer of a budget.

Source: Penetrating the Fog, section 3.3 and Theorem 1, for any chain of grouped convolutions.

Operator i maps W(i-1) to W(i) channels with a k_i x k_i window in g_i groups, so that

    params = sum of a_i / g_i,   a_i = W(i-1) W(i) k_i^2.

One output reads W(n-1)/g_n channels, and one operator earlier f becomes min(W(i-1), f W(i-1)/g_i):
the shuffle spreads any run of f channels evenly over the groups (`spaces.fixed.Shuffle`). Since
g_i divides its widths, the field holds all W(0) channels exactly if

    g_1 g_2 ... g_n <= W(1) W(2) ... W(n-1)                                                (1)

which is the paper's M N <= C for GC(M)+PWG(N), and M N <= K for PWG(M)+DW+PWG(N).
Where a shuffle is left out, (1) is necessary only and the exact field decides.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

from analysis.completeness import why_incomplete
from analysis.field import support
from spaces.design import Design
from spaces.grouped import GroupedConvolution, NumberedGroups, divisors
from spaces.operator import DesignError
from spaces.operators.depthwise import Depthwise


@dataclass(frozen=True)
class Optimum:
    """The cheapest complete choice of group numbers at C -> F channels.

    design: canonical at these widths. groups: the numbers of the open operators, in their order.
    bound: the fewest parameters for real group numbers (`bound_params`).
    """

    design: Design
    groups: tuple[int, ...]
    params: int
    bound: float

    @property
    def gap(self) -> float:
        """What divisibility costs: params / bound - 1."""
        return self.params / self.bound - 1


@dataclass(frozen=True)
class Widest:
    """The widest layer, C -> alpha C channels, that a number of parameters affords.

    bound: the width G that real group numbers would afford.
    """

    channels: int
    out_channels: int
    optimum: Optimum
    bound: float

    @property
    def gap(self) -> float:
        """G / C - 1."""
        return self.bound / self.channels - 1


def optimum(design: Design, channels: int, out_channels: int | None = None) -> Optimum:
    """The group numbers, 1 allowed, with the fewest parameters and a complete field.

    Exact over the common divisors of each operator's widths. Of equally cheap choices the one
    with the smaller number at the first difference is taken. Numbers that the design already
    has are kept. Raises DesignError where the design cannot stand or no choice is complete.
    """
    opened = [operator.is_open for operator in chain(design)]
    widths = design.widths(channels, out_channels)
    pairs = zip(pairwise(widths), opened, strict=True)
    choices = [divisors(*pair) for pair, is_open in pairs if is_open]
    layer = _relax(design, widths)
    areas = [int(area) for area in layer.areas]
    search = _ranked if design.unshuffled else _best
    for groups in search(areas, choices, int(layer.inner // layer.taken)):
        best = fill(design, groups)
        if _complete(best, widths):
            params = int(layer.fixed) + sum(a // g for a, g in zip(areas, groups, strict=True))
            bound = min(layer.bound, params)  # the root may round up where they are equal
            return Optimum(best.canonical(channels, out_channels), groups, params, bound)
    densest = fill(design, (1,) * len(areas))
    reason = why_incomplete(densest, channels, widths[-1])
    raise DesignError(f"no group numbers make {design} complete: {reason}")


@lru_cache(maxsize=4096)
def resolve(design: Design, channels: int, out_channels: int | None = None) -> Design:
    """The design with its stars and open numbers filled in by the optimum at these widths.

    A design with all its numbers is returned as it is. Raises DesignError as `optimum`.
    """
    return optimum(design, channels, out_channels).design if design.is_family else design


def best_groups(
    areas: Sequence[int], choices: Sequence[Sequence[int]], room: int
) -> tuple[int, ...] | None:
    """One g_i from each ascending list, minimising sum(a_i / g_i) with product at most `room`.

    Depth first, smaller numbers first; a branch is left when even the largest numbers behind it
    cannot beat the best so far, and the last operator takes the largest number that fits.
    None if nothing fits.

    >>> best_groups([9 * 64 * 64, 64 * 64], [divisors(64)] * 2, 64)
    (32, 2)
    """
    if not areas:
        return () if room >= 1 else None
    floors = [0] * (len(areas) + 1)
    for i in reversed(range(len(areas))):
        floors[i] = floors[i + 1] + areas[i] // choices[i][-1]
    best_cost, best = math.inf, None

    def descend(i: int, room: int, cost: int, chosen: tuple[int, ...]) -> None:
        nonlocal best_cost, best
        fitting = bisect_right(choices[i], room)
        last = i == len(areas) - 1
        for g in choices[i][max(0, fitting - 1) if last else 0 : fitting]:
            total = cost + areas[i] // g
            if total + floors[i + 1] >= best_cost:
                continue
            if last:
                best_cost, best = total, (*chosen, g)
            else:
                descend(i + 1, room // g, total, (*chosen, g))

    descend(0, room, 0, ())
    return best


def bound_params(design: Design, channels: float, out_channels: float | None = None) -> float:
    """The fewest parameters of a complete choice of real group numbers g > 0, also at real widths.

    Numbers that the design has are kept. With n open operators, whose product may be at most L
    by (1) and by their widths, the inequality of the means gives

        sum a_i / g_i >= n (a_1 ... a_n / L)^(1/n),   equality where all a_i / g_i are equal.

    Every integer choice is among the real ones, so this bounds the optimum at all widths, also
    where equality asks for g < 1. It grows with the width. Section 3.3: 6 C sqrt(F) for GC+PWG,
    (F/4) (4 sqrt(C) + 9) for PWG+DW+PWG@1/4.

    >>> from spaces.design import parse
    >>> bound_params(parse("GC+PWG"), 64)
    3072.0
    """
    return _real(design, channels, out_channels).bound


def bound_open_params(design: Design, channels: float, out_channels: float | None = None) -> float:
    """Of `bound_params` what belongs to the operators without a group number."""
    return _real(design, channels, out_channels).least


def widest(design: Design, params: int, alpha: int | Fraction = 1) -> Widest:
    """The largest C at which the optimum for C -> alpha C channels has at most `params`.

    Exact: every width from the real bound G downward is tried, since divisibility makes the
    optimum jump. Raises DesignError if no width fits.
    """
    if alpha <= 0:
        raise DesignError(f"alpha is {alpha}; the ratio F / C must be positive")
    real = _real_width(design, params, alpha)
    why = f"the bound already allows only {real:.2f} channels"
    for channels in range(math.floor(real) + 1, 0, -1):
        features = alpha * channels
        if features != int(features):
            continue
        try:
            best = optimum(design, channels, int(features))
        except DesignError as error:
            why = str(error)
            continue
        if best.params <= params:
            return Widest(channels, int(features), best, real)
        why = f"{best.design} at {channels} channels takes {best.params}"
    raise DesignError(f"no width of {design} fits {params} parameters: {why}")


def chain(design: Design) -> tuple[GroupedConvolution, ...]:
    """The operators, of which each must be a grouped convolution for (1) to hold.

    Raises DesignError that names the operator that is not.
    """
    operators = tuple(op for op in design.operators if isinstance(op, GroupedConvolution))
    if len(operators) < len(design.operators):
        other = next(op for op in design.operators if not isinstance(op, GroupedConvolution))
        raise DesignError(
            f"the theorems hold for chains of STD, GC, DW, PW and PWG; {design} has {other}"
        )
    return operators


@lru_cache(maxsize=4096)
def shares(design: Design) -> tuple[tuple[Fraction, Fraction], ...]:
    """Each width of the design as (x, y): W = x C + y F, from `Design.widths` at two points.

    >>> from spaces.design import parse
    >>> [f"{x} C + {y} F" for x, y in shares(parse("PW+DW+PW@1/4"))]
    ['1 C + 0 F', '0 C + 1/4 F', '0 C + 1/4 F', '0 C + 1 F']
    """
    if not any(operator.resizes for operator in design.operators):
        return ((Fraction(1), Fraction(0)),) * (len(design.operators) + 1)
    f = design.inner.denominator if design.inner else 1
    at_one, at_two = design.widths(1, f), design.widths(2, f)
    slopes = [Fraction(two - one) for one, two in zip(at_one, at_two, strict=True)]
    return tuple((x, (one - x) / f) for x, one in zip(slopes, at_one, strict=True))


class _Layer(NamedTuple):
    """A chain at its widths: params = fixed + sum(a / g over the open operators).

    inner: the product of the inner widths. taken: that of the numbers that the design has.
    largest: that of the largest numbers that the widths of the open operators admit.
    """

    fixed: float
    areas: tuple[float, ...]
    inner: float
    taken: float
    largest: float

    @property
    def least(self) -> float:
        """Of sum(a / g) over real numbers."""
        if not self.areas:
            return 0
        n, room = len(self.areas), min(self.inner / self.taken, self.largest)
        return n * (math.prod(self.areas) / room) ** (1 / n)

    @property
    def bound(self) -> float:
        return self.fixed + self.least


def _real(design: Design, channels: float, out_channels: float | None) -> _Layer:
    """The problem at widths that need not be whole. Raises DesignError as `chain`."""
    features = channels if out_channels is None else out_channels
    chain(design)
    return _relax(design, [float(x * channels + y * features) for x, y in shares(design)])


def _relax(design: Design, widths: Sequence[float]) -> _Layer:
    """The problem at these widths, whole or real."""
    fixed: float = 0
    taken: float = 1
    largest: float = 1
    areas = []
    for operator, (before, after) in zip(chain(design), pairwise(widths), strict=True):
        area = before * after * operator.kernel**2
        if operator.is_open:
            areas.append(area)
            largest *= min(before, after)
        else:
            g = _number(operator, before)
            fixed += area / g
            taken *= g
    return _Layer(fixed, tuple(areas), math.prod(widths[1:-1]), taken, largest)


def _number(operator: GroupedConvolution, width: float) -> float:
    """The group number at a width, whole or real."""
    if isinstance(operator, Depthwise):
        return width
    if isinstance(operator, NumberedGroups) and operator.q:
        return width / operator.q
    if isinstance(operator, NumberedGroups) and isinstance(operator.g, int):
        return operator.g
    return 1


def fill(design: Design, groups: Sequence[int]) -> Design:
    """The design with its open numbers given, in their order."""
    numbers = iter(groups)
    return replace(
        design,
        operators=tuple(
            replace(op, g=next(numbers)) if isinstance(op, NumberedGroups) and op.is_open else op
            for op in design.operators
        ),
    )


def _best(
    areas: Sequence[int], choices: Sequence[Sequence[int]], room: int
) -> Iterator[tuple[int, ...]]:
    """The cheapest choice that (1) admits, if there is one."""
    if (groups := best_groups(areas, choices, room)) is not None:
        yield groups


def _ranked(
    areas: Sequence[int], choices: Sequence[Sequence[int]], room: int
) -> Iterator[tuple[int, ...]]:
    """Every choice that (1) admits, the cheapest first."""
    admitted = (groups for groups in product(*choices) if math.prod(groups) <= room)
    ranked = sorted(
        (sum(a // g for a, g in zip(areas, groups, strict=True)), groups) for groups in admitted
    )
    return (groups for _, groups in ranked)


def _complete(design: Design, widths: Sequence[int]) -> bool:
    """Where a shuffle is left out, the first output rules out most designs at little cost."""
    ends = (widths[0], widths[-1])
    if design.unshuffled and not support(design, *ends, output=0).inputs.any(axis=(1, 2)).all():
        return False
    return why_incomplete(design, *ends) is None


def _real_width(design: Design, params: int, alpha: int | Fraction) -> float:
    """The width at which the bound equals `params`, by bisection."""
    low, high = 0.0, 1.0
    while bound_params(design, high, float(alpha) * high) <= params:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        if bound_params(design, middle, float(alpha) * middle) <= params:
            low = middle
        else:
            high = middle
    return low
