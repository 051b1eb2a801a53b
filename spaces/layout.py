"""Whole networks by name: `LeanResNet(Res24, LEAN(g=16,s=5))`.

A layout takes a configuration (depths and widths that its paper names), then what stands in place
of its convolutions, for any input size and number of classes. A folder is a list: each file of
`spaces/layouts/` declares `LAYOUTS`, and adding a layout is adding a file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from spaces import layouts
from spaces.design import split_outside_brackets
from spaces.network import Network
from spaces.operator import DesignError

Build = Callable[[str, tuple[str, ...], tuple[int, int, int], int], Network]
"""(configuration, further arguments, (channels, height, width), classes) -> network."""


@dataclass(frozen=True)
class Layout:
    """A family of networks: what it is called, its configurations, how one is built, its source.

    `usage` shows the arguments, e.g. `LeanResNet(Res24, LEAN(g=16,s=5))`.
    """

    name: str
    configurations: tuple[str, ...]
    usage: str
    source: str
    build: Build


@cache
def known_layouts() -> dict[str, Layout]:
    """Every layout by its name."""
    found: dict[str, Layout] = {}
    for entry in iter_modules(layouts.__path__):
        module = import_module(f"{layouts.__name__}.{entry.name}")
        for layout in getattr(module, "LAYOUTS", ()):
            found[layout.name] = layout
    return found


def network(text: str, input: tuple[int, int, int], classes: int) -> Network:
    """The network of a layout string, for (channels, height, width) and a number of classes.

    Raises DesignError that names the valid layouts, configurations or arguments.
    """
    match = re.fullmatch(r"\s*([A-Za-z0-9_-]+)\s*(?:\((.*)\))?\s*", text, flags=re.DOTALL)
    if match is None:
        raise DesignError(f"cannot read the layout {text!r}; write e.g. LeanResNet(Res24, STD)")
    layout = _find(match[1])
    words = [word.strip() for word in split_outside_brackets(match[2] or "", ",")]
    configuration, *arguments = [word for word in words if word] or [""]
    if configuration not in layout.configurations:
        valid = ", ".join(layout.configurations)
        raise DesignError(
            f"{layout.name} has no configuration {configuration!r}; valid are {valid}; "
            f"write {layout.usage}"
        )
    return layout.build(configuration, tuple(arguments), input, classes)


def _find(name: str) -> Layout:
    names = {known.casefold(): layout for known, layout in known_layouts().items()}
    if (layout := names.get(name.casefold())) is not None:
        return layout
    near = difflib.get_close_matches(name.casefold(), names, n=1)
    hint = f"; did you mean {names[near[0]].name}?" if near else "."
    raise DesignError(
        f"unknown layout {name!r}{hint} Known layouts: {', '.join(sorted(known_layouts()))}"
    )
