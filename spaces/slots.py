"""Which design stands for each convolution of a layout.

Every convolution has a name. A layout's arguments replace some of them: a design alone stands for
the layout's main ones, `stage2.*=GC(4)` for those whose name matches the pattern; of several that
match, the last. What nothing replaces keeps the layout's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from spaces.design import Design, parse
from spaces.operator import DesignError


class Rule(NamedTuple):
    """A pattern of names and the design that stands there."""

    pattern: str
    design: Design


class Slots:
    """The rules of one network; `asked` remembers what it gave to each convolution.

    main: the pattern for which a design without a pattern stands.
    """

    def __init__(self, arguments: Sequence[str], main: str) -> None:
        self.rules = [_read(argument, main) for argument in arguments]
        self.asked: dict[str, Design] = {}

    def design(self, name: str, own: str) -> Design:
        """What stands in the convolution of this name, for which the layout has its own."""
        matching = [rule.design for rule in self.rules if fnmatchcase(name, rule.pattern)]
        self.asked[name] = matching[-1] if matching else parse(own)
        return self.asked[name]

    def check(self) -> None:
        """Raise DesignError for a rule that matches no convolution of the network."""
        for pattern, design in self.rules:
            if not any(fnmatchcase(name, pattern) for name in self.asked):
                raise DesignError(
                    f"{pattern}={design} replaces nothing: no convolution is called so; they are "
                    f"called {', '.join(self.asked)}"
                )


def _read(argument: str, main: str) -> Rule:
    """`pattern=design`, or a design for the main pattern."""
    before, equals, after = argument.partition("=")
    if equals and "(" not in before:
        return Rule(before.strip(), parse(after))
    return Rule(main, parse(argument))
