"""The compositions of a search over any vocabulary, found by the exact field.

Of the designs of one or two operators that stand in the layout (C -> C and C -> 2 C channels)
those are taken that see the whole window at every output and of which no part does so by itself.
Two operators are of one class, or one of them mixes channels alone (PW) or pixels alone (DW). Of
two mirror images of linear operators the first is taken, in which PW comes last.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

from analysis.field import field
from nas.groups import numbered
from spaces.design import Design, parse
from spaces.operator import DesignError
from spaces.symbols import every_symbol, operator_of, symbol
from spaces.vocabulary import operator_class

FOG = (
    "DW+PW",
    "GC+PWG",
    "PWG+DW+PWG",
    "PW+DW+PW@1/4",
    "PWG+DW+PWG@1/4",
)
"""The survivors of the paper's funnel (`analysis.funnel`), PWG+DW+PWG in both of its forms."""

ALL = "all"
PLAIN = ("DW", "PW")
FOG_SYMBOLS = ("STD", "GC", "DW", "PW", "PWG")
CHANNELS = 64


def compositions(words: Iterable[str], *, incomplete: bool = False) -> tuple[Design, ...]:
    """The compositions of a vocabulary, given as `all`, as operators (`LEAN`: in each of its
    forms) or as symbols (`LEAN(s=5)`): those of the paper's funnel, then the others.

    incomplete: those whose field is as large as the window, (3, 3, C), without filling it too.
    Raises DesignError for an unknown operator and where nothing can be composed.
    """
    words = tuple(words)
    symbols = tuple(form for form in every_symbol() if any(_is_meant(form, w) for w in words))
    classes = {operator_of(form).symbol for form in symbols}
    fog = [design for design in map(parse, FOG) if classes.issuperset(design.composition)]
    found = tuple(dict.fromkeys([*fog, *_others(symbols, incomplete)]))
    if not found:
        raise DesignError(
            f"nothing can be composed of {', '.join(words)}: no design of one or two of them sees "
            "the whole window and can widen; add PW or DW"
        )
    return found


def _is_meant(form: str, word: str) -> bool:
    """Whether a word of a vocabulary means this symbol."""
    if word == ALL:
        return True
    if "(" in word:
        return form == symbol(word)
    return isinstance(operator_of(form), operator_class(word))


@lru_cache(maxsize=64)
def _others(symbols: tuple[str, ...], incomplete: bool) -> tuple[Design, ...]:
    """Those with an operator that the paper's funnel does not have."""
    new = [form for form in symbols if operator_of(form).symbol not in FOG_SYMBOLS]
    alone = [form for form in new if _sees(form, incomplete)]
    left = [form for form in symbols if form not in alone]
    pairs: dict[frozenset[str], str] = {}
    for first, second in product(sorted(left, key="PW".__eq__), repeat=2):
        pair = f"{first}+{second}"
        if _may_pair(first, second) and _sees(pair, incomplete):
            is_linear = all(operator_of(one).kind == "linear" for one in (first, second))
            pairs.setdefault(frozenset((first, second) if is_linear else (pair,)), pair)
    return tuple(map(parse, (*alone, *pairs.values())))


def _may_pair(first: str, second: str) -> bool:
    """Whether the two are new and of one class and number, or one is new and the other plain."""
    a, b = operator_of(first), operator_of(second)
    if a.symbol == b.symbol:
        return a.symbol not in FOG_SYMBOLS and a.is_open == b.is_open
    return any(x.symbol not in FOG_SYMBOLS and str(y) in PLAIN for x, y in ((a, b), (b, a)))


def _sees(text: str, incomplete: bool) -> bool:
    """Whether the design, with groups of one channel, stands in the layout and sees the window."""
    design = numbered(parse(text), q=1)
    for features in (CHANNELS, 2 * CHANNELS):
        if design.why_invalid(CHANNELS, features) is not None:
            return False
        seen = field(design, CHANNELS, features)
        if not (seen.complete or (incomplete and seen.equals_standard)):
            return False
    return True
