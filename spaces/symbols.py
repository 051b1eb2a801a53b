"""Symbols: the letters of compositions.

A symbol is an operator with its structural parameters, but without a number of groups that the
funnel may choose: `GC`, `LEAN(s=5)`, `UNR(b=1)`, `TPS(2)`. One group names another operator, as
GC(1) is STD; where that has no name of its own, `LEAN(g=1,s=5)`, the number stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cache

from spaces.design import parse
from spaces.operator import DesignError, Operator
from spaces.vocabulary import operator_class, vocabulary


def has_number(operator: Operator) -> bool:
    """Whether the operator declares a group number as a hyper-parameter."""
    return any(f.metadata["key"] == "g" for f in operator.arguments())


def bare(operator: Operator) -> Operator:
    """The operator without the number that makes it one member of a family.

    >>> [str(bare(parse(text).operators[0])) for text in ("GC(4)", "LEAN(q=4,s=5)", "TPS(2)")]
    ['GC', 'LEAN(s=5)', 'TPS(2)']
    """
    if not has_number(operator) or getattr(operator, "g", None) == 1:
        return operator
    opened = replace(operator, **dict.fromkeys(("g", "q")))
    return opened if opened.is_open else operator


@cache
def operator_of(symbol: str) -> Operator:
    """The operator of a symbol, its group number still open."""
    operator: Operator = parse(symbol).operators[0]
    return operator


def symbol(text: str) -> str:
    """The canonical symbol of `LEAN(s=5)`, or of a plain name in any of the papers' spellings.

    A plain name that leaves more open than a group number stands for its first example: TPS is
    TPS(2). Raises DesignError for several operators, group numbers and unknown names.

    >>> symbol("gconv"), symbol("TPS"), symbol("UNR(b=4)")
    ('GC', 'TPS(2)', 'UNR')
    """
    name = text.partition("(")[0]
    if "+" in text or "@" in text or "~" in text:
        raise DesignError(f"{text!r} is a design; a vocabulary holds single operators")
    operator_class(name)
    operator: Operator = parse(text).operators[0]
    if bare(operator) != operator or _number(operator) > 1:
        raise DesignError(
            f"{text!r} has a group number, which the funnel chooses; write operators with their "
            f"structural parameters alone, e.g. LEAN(s=5)"
        )
    if operator.turned(0) is not operator:
        forms = " and ".join(str(operator.turned(before)) for before in (0, 1))
        raise DesignError(f"{text!r} alternates along a design; write {forms} as two symbols")
    if operator.is_open and not has_number(operator):
        operator = type(operator).examples()[0]
    return str(operator)


def _number(operator: Operator) -> int:
    number = getattr(operator, "g", None) if has_number(operator) else None
    return number if isinstance(number, int) else 1


def symbols(names: Iterable[str]) -> tuple[str, ...]:
    """The canonical symbols of a vocabulary, without repeats."""
    return tuple(dict.fromkeys(map(symbol, names)))


@cache
def every_symbol(kernel: int = 3) -> tuple[str, ...]:
    """One symbol for each operator and structural choice that some `examples()` names.

    Left out are choices that make no other kind of field or cost: windows other than k x k and
    1 x 1, dilations and step sizes other than 1; grids for one width; several groups of a fixed
    number; and `s=3`, which stands for 1x3 and 3x1 in turn.
    """
    examples = (example for kind in vocabulary().values() for example in kind.examples())
    found = dict.fromkeys(str(bare(one)) for one in examples if _typical(one, kernel))
    return tuple(text for text in found if operator_of(text).turned(0) is operator_of(text))


def _typical(operator: Operator, kernel: int) -> bool:
    values = {f.metadata["key"]: getattr(operator, f.name) for f in operator.arguments()}
    usual = {f.metadata["key"]: f.default for f in operator.arguments()}
    windows = (None, 1, usual.get("k"), kernel)
    return (
        values.get("k") in windows
        and all(values.get(key) == usual.get(key) for key in ("d", "h", "t"))
        and _number(bare(operator)) == 1
    )


def with_kernel(operator: Operator, kernel: int) -> Operator:
    """The operator with a k x k window, where its own is left at the default size."""
    for f in fields(operator):
        if f.metadata.get("key") == "k" and getattr(operator, f.name) == f.default:
            return replace(operator, **{f.name: kernel})
    return operator
