"""Operators in an exported file: their source as it stands, with their hyper-parameters in place.

class Lean: ...                     the methods that build a module or refuse a width
class Operator1(Lean): g = 4 ...    an operator of the design
Operator1().module(Place(in_channels, out_channels, 1, 1, stride))
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from textwrap import dedent

from nas.exports.sources import Name, Slice, read, uses
from spaces.operator import Operator

ALWAYS = (Name("spaces.place", "Place"), Name("spaces.modules", "initialise"))
"""What the block of an exported file uses besides its operators."""

COLUMNS = 88
"""The default of formatters, so that an exported file is at home in any code base."""


class Written:
    """The definitions that the operators need, and the names that stand for the operators."""

    def __init__(self, operators: Sequence[Operator], reserved: Iterable[str]) -> None:
        asked = {"module", "why_invalid"}
        asked |= {"groups"} if any(operator.grouped for operator in operators) else set()
        asked |= {"adds_input"} if any(op.kind != "linear" for op in operators) else set()
        self._slice = Slice(tuple(dict.fromkeys(operators)), asked)
        self._slice.grow(ALWAYS)
        self.names = {op: f"Operator{i}" for i, op in enumerate(self._slice.operators, start=1)}
        self._called = self._unique({*reserved, *self.names.values()})

    @property
    def imports(self) -> dict[str, tuple[str, str]]:
        """What the definitions import: name -> (module, name there or nothing)."""
        return {name: (at.module, at.name) for name, at in self._slice.external.items()}

    def texts(self) -> list[str]:
        """The definitions, each behind what it is made of, then the operators."""
        return [
            *(self._definition(name) for name in self._ordered()),
            *(self._operator(operator) for operator in self._slice.operators),
        ]

    # ---- names and order ---------------------------------------------------------------------

    def _unique(self, reserved: set[str]) -> dict[Name, str]:
        """A name for each definition; of two that are equal one gets its folder's in front."""
        called: dict[Name, str] = {}
        used = set(reserved) | set(self._slice.external)
        for at in self._slice.taken:
            name = at.name
            if name in used:
                folder = at.module.split(".")[1]
                name = folder.title().replace("_", "") + name if name[0].isupper() else name
                name = f"{folder}_{name}" if name == at.name else name
            called[at] = name
            used.add(name)
        return called

    def _ordered(self) -> list[Name]:
        """Depth first, so that base classes and constants come before what is made of them."""
        order: dict[Name, None] = {}
        visited: set[Name] = set()

        def visit(at: Name) -> None:
            if at in visited:
                return
            visited.add(at)
            for node in self._slice.nodes(at):
                for _, name in uses(node, at.module):
                    if name in self._slice.taken:
                        visit(name)
            order[at] = None

        for at in self._slice.taken:
            visit(at)
        return list(order)

    # ---- text --------------------------------------------------------------------------------

    def _operator(self, operator: Operator) -> str:
        """A class of constants."""
        kind = self._called[Name(type(operator).__module__, type(operator).__name__)]
        constants = self._slice.constants(operator)
        return "\n".join(
            [
                f"class {self.names[operator]}({kind}):",
                f'    """{operator}, as it stands in the design."""',
                "",
                *(f"    {name} = {text}" for name, text in constants.items()),
                *([""] if constants else []),
                "    def __str__(self) -> str:",
                f'        return "{operator}"',
            ]
        )

    def _definition(self, at: Name) -> str:
        """The source of a function, constant or class, with names as they are here."""
        node = read(at.module).definitions[at.name]
        if not isinstance(node, ast.ClassDef):
            return self._source(node, at.module, self._called[at])
        bases = [self._source(base, at.module) for base in self._slice.bases(at)]
        bases += ["NamedTuple"] if self._slice.is_record(at) else []
        lines = [f"class {self._called[at]}{'(' + ', '.join(bases) + ')' if bases else ''}:"]
        lines += _summary(node)
        lines[-1] += '"""'
        for member in self._slice.members(at):
            if isinstance(member, ast.Expr):
                continue
            if isinstance(member, ast.FunctionDef) or lines[-1].endswith('"""'):
                lines.append("")
            text = self._source(member, at.module)
            lines += ["    " + line if line else "" for line in text.splitlines()]
        return "\n".join(lines)

    def _source(self, node: ast.stmt | ast.expr, module: str, called: str | None = None) -> str:
        """The lines of a node without its imports, names replaced, at the left margin."""
        lines = list(read(module).lines)
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        changes = [
            (use.lineno, use.col_offset, use.id, self._called[name])
            for use, name in uses(node, module)
            if name in self._called and self._called[name] != use.id
        ]
        if called is not None and isinstance(node, ast.FunctionDef) and called != node.name:
            changes.append((node.lineno, node.col_offset + len("def "), node.name, called))
        dropped: set[int] = set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                dropped |= set(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
        end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
        if isinstance(node, ast.expr):
            lines[end[0] - 1] = lines[end[0] - 1][: end[1]]
        for row, column, old, new in sorted(changes, reverse=True):
            line = lines[row - 1]
            lines[row - 1] = line[:column] + new + line[column + len(old) :]
        if isinstance(node, ast.expr):
            return lines[node.lineno - 1][node.col_offset :]
        dropped |= {row + 1 for row in dropped if not lines[row].strip()}
        rows = (row for row in range(first, end[0] + 1) if row not in dropped)
        return dedent("\n".join(lines[row - 1] for row in rows))


def _summary(node: ast.ClassDef) -> list[str]:
    """The first paragraph of a docstring, as it stands."""
    first, *rest = (ast.get_docstring(node) or node.name).split("\n\n")[0].splitlines()
    return [f'    """{first}', *("    " + line for line in rest)]
