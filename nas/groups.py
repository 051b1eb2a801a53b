"""The group numbers of a family: starred, constant, or of constant size.

Of chains of grouped convolutions the theorem knows the optimum. Where another operator stands
(LEAN), all open numbers are one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from analysis.theorems import optimum
from spaces.design import Design
from spaces.grouped import STAR, GroupedConvolution, GroupNumber, NumberedGroups
from spaces.operator import Operator

T = TypeVar("T")


@lru_cache(maxsize=16384)
def is_composition(design: Design) -> bool:
    """Whether only symbols are written, so that kernel, ratio and numbers are still free."""
    return all(str(operator) == operator.symbol for operator in design.operators)


def opened(family: Design) -> list[NumberedGroups]:
    """The operators without a group number, in their order."""
    return [op for op in family.operators if isinstance(op, NumberedGroups) and op.is_open]


def unsettled(design: Design) -> bool:
    """Whether a group number is missing that no theorem fills in."""
    chain = all(isinstance(operator, GroupedConvolution) for operator in design.operators)
    return not chain and any(map(_lacks_number, design.operators))


def numbered(design: Design, *, g: int | None = None, q: int | None = None) -> Design:
    """The design with one group number, or one group size, for every operator that lacks it.

    >>> from spaces.design import parse
    >>> str(numbered(parse("LEAN(s=5)+PW"), q=16))
    'LEAN(q=16,s=5)+PW'
    """
    operators = tuple(
        replace(op, g=g, q=q) if isinstance(op, GroupNumber) and _lacks_number(op) else op
        for op in design.operators
    )
    return replace(design, operators=operators)


def _lacks_number(operator: Operator) -> bool:
    return isinstance(operator, GroupNumber) and operator.is_open


def with_groups(family: Design, groups: Sequence[int | str]) -> Design:
    """The family with g given for each open operator.

    >>> from spaces.design import parse
    >>> str(with_groups(parse("GC+PWG"), [32, 2]))
    'GC(32)+PWG(2)'
    """
    return _replaced(family, [replace(op, g=g) for op, g in _paired(family, groups)])


def starred(family: Design) -> Design:
    """The family with the optimum of each layer for every open number."""
    return with_groups(family, [STAR] * len(opened(family)))


def constant_sizes(family: Design, width: int, groups: Sequence[int]) -> Design:
    """The family with the group sizes q = C / g that these numbers have at C = F = width.

    >>> from spaces.design import parse
    >>> str(constant_sizes(parse("GC+PWG"), 64, [32, 2]))
    'GC(q=2)+PWG(q=32)'
    """
    sizes = [c // g for (c, _), g in zip(_open_widths(family, width), groups, strict=True)]
    return _replaced(family, [replace(op, g=None, q=q) for op, q in _paired(family, sizes)])


def shifted_optimum(family: Design, width: int, first: int = 0, last: int = 0) -> list[int]:
    """The optimal numbers at a width that is a power of two, moved by powers of two.

    The first moves by 2^first and the last by 2^(last - first), as far as their widths allow; a
    single number moves by 2^last.

    >>> from spaces.design import parse
    >>> [shifted_optimum(parse("GC+PWG"), 64, first, last) for first, last in ((0, 0), (-2, -1))]
    [[32, 2], [8, 4]]
    """
    groups = optimum(family, width, width).groups
    shifts = [0] * len(groups)
    shifts[-1] += last
    if len(groups) > 1:
        shifts[0] += first
        shifts[-1] -= first
    largest = [min(pair) for pair in _open_widths(family, width)]
    return [
        min(most, max(1, int(g * 2.0**shift)))
        for g, shift, most in zip(groups, shifts, largest, strict=True)
    ]


def _paired(family: Design, values: Sequence[T]) -> list[tuple[NumberedGroups, T]]:
    return list(zip(opened(family), values, strict=True))


def _replaced(family: Design, operators: Sequence[NumberedGroups]) -> Design:
    """The family with its open operators replaced, in their order."""
    left = iter(operators)
    return replace(
        family,
        operators=tuple(
            next(left) if isinstance(op, NumberedGroups) and op.is_open else op
            for op in family.operators
        ),
    )


def _open_widths(family: Design, width: int) -> list[tuple[int, int]]:
    """The channels before and behind each open operator at C = F = width."""
    widths = family.widths(width, width)
    pairs = zip(family.operators, widths, widths[1:], strict=False)
    return [(c, f) for op, c, f in pairs if isinstance(op, NumberedGroups) and op.is_open]
