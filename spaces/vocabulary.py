"""The operators that exist: whatever `spaces/operators/` holds."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from spaces import operators
from spaces.operator import DesignError, Operator


@cache
def vocabulary() -> dict[str, type[Operator]]:
    """Every operator class by its symbol, in alphabetical order of the files."""
    found: dict[str, type[Operator]] = {}
    for entry in iter_modules(operators.__path__):
        module = import_module(f"{operators.__name__}.{entry.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Operator) and kind.__module__ == module.__name__:
                if kind.symbol in found:
                    raise DesignError(f"two operators are called {kind.symbol}")
                found[kind.symbol] = kind
    return found


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


@cache
def _names() -> dict[str, type[Operator]]:
    """Every operator class by its symbol and each of its spellings."""
    kinds = vocabulary().values()
    return {_plain(name): kind for kind in kinds for name in (kind.symbol, *kind.spellings)}


def operator_class(name: str) -> type[Operator]:
    """By symbol or by a spelling of the papers, in any case: `PWG`, `PWGConv`, `gconv`.

    Raises DesignError that names the nearest known operator.
    """
    names = _names()
    if (kind := names.get(_plain(name))) is not None:
        return kind
    near = difflib.get_close_matches(_plain(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {names[near[0]].symbol}?" if near else "."
    known = ", ".join(sorted(vocabulary()))
    raise DesignError(f"unknown operator {name.strip()!r}{hint} Known operators: {known}")


def symbols(names: Iterable[str]) -> tuple[str, ...]:
    """The canonical symbols of a vocabulary given by name, without repeats."""
    return tuple(dict.fromkeys(operator_class(name).symbol for name in names))
