"""The part of our own source that an operator's module needs, as text for an exported file.

An operator says what it is by `module` and `why_invalid`. Their source is followed through
everything of ours that it names, down to torch and the standard library; of a class only the
members that are reached are taken. Hyper-parameters and properties become constants, so that a file
holds an operator as it stands in its design. Nothing here knows any operator by name.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from spaces.operator import DesignError, Operator

OURS = ("kernels", "spaces")


class Name(NamedTuple):
    """A name at the top of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class File:
    """A module of ours: its lines, what it defines at its top and what its imports name."""

    lines: list[str]
    definitions: dict[str, ast.stmt]
    imports: dict[str, Name]


@cache
def read(module: str) -> File:
    """The source of a module."""
    text = inspect.getsource(import_module(module))
    tree = ast.parse(text)
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                definitions[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                definitions[name] = node
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return File(text.splitlines(), definitions, imported(outside))


def imported(nodes: Iterable[ast.AST]) -> dict[str, Name]:
    """What import statements in these nodes bind; a whole module has the empty name."""
    found: dict[str, Name] = {}
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            found |= {a.asname or a.name: Name(a.name, "") for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: Name(node.module, a.name) for a in node.names}
    return found


def is_ours(name: Name) -> bool:
    return name.module.partition(".")[0] in OURS


def uses(node: ast.AST, module: str) -> Iterator[tuple[ast.Name, Name]]:
    """Each name in the node that comes from the top of a module, and which it is."""
    file = read(module)
    scope = file.imports | {name: Name(module, name) for name in file.definitions}
    scope |= imported([node])
    inner = list(ast.walk(node))
    bound = {a.arg for a in inner if isinstance(a, ast.arg)}
    bound |= {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for name in inner:
        if isinstance(name, ast.Name) and name.id in scope and name.id not in bound:
            yield name, defining(scope[name.id])


@cache
def defining(name: Name) -> Name:
    """Of an operation with faster versions the plain function that defines it (`definition`)."""
    if not is_ours(name) or not name.name:
        return name
    definition = getattr(getattr(import_module(name.module), name.name, None), "definition", None)
    return name if definition is None else Name(definition.__module__, definition.__name__)


def constant(value: object) -> str | None:
    """A value as source text, None where it is more than numbers, words and tuples of them."""
    match value:
        case Fraction():
            return f"Fraction({value.numerator}, {value.denominator})"
        case tuple():
            parts = [constant(part) for part in value]
            if None in parts:
                return None
            return f"({', '.join(map(str, parts))}{',' * (len(parts) == 1)})"
        case None | bool() | int() | float():
            return repr(value)
        case str():
            return '"' + repr(value)[1:-1].replace('"', r"\"") + '"'
    return None


@dataclass
class Slice:
    """What the modules of these operators need, found by `grow`.

    attributes: every attribute that what is taken asks for; a member of a class of ours is taken
    if it is among them.
    """

    operators: tuple[Operator, ...]
    attributes: set[str]
    taken: dict[Name, None] = field(default_factory=dict)
    external: dict[str, Name] = field(default_factory=dict)

    def grow(self, also: Iterable[Name] = ()) -> None:
        """Follow names and attributes until nothing new is reached."""
        own = (Name(type(op).__module__, type(op).__name__) for op in self.operators)
        self.taken = dict.fromkeys([*also, *own])
        while True:
            before = len(self.taken), len(self.attributes), len(self.external)
            for name in list(self.taken):
                for node in self.nodes(name):
                    self._follow(node, name.module)
            if before == (len(self.taken), len(self.attributes), len(self.external)):
                break
        written = (text for op in self.operators for text in self.constants(op).values())
        if any(map(self.is_record, self.taken)):
            self.external["NamedTuple"] = Name("typing", "NamedTuple")
        if any("Fraction(" in text for text in written):
            self.external["Fraction"] = Name("fractions", "Fraction")

    def _follow(self, node: ast.AST, module: str) -> None:
        self.attributes |= {a.attr for a in ast.walk(node) if isinstance(a, ast.Attribute)}
        for use, name in uses(node, module):
            if is_ours(name):
                self.taken[name] = None
            elif name.module.partition(".")[0] == "numpy":
                listed = ", ".join(dict.fromkeys(map(str, self.operators)))
                raise DesignError(f"no stand-alone form: the module of {listed} uses numpy")
            else:
                self.external[use.id] = name

    def nodes(self, name: Name) -> list[ast.AST]:
        """What is taken of a definition: all of it, or of a class its head and some members."""
        definition = read(name.module).definitions[name.name]
        if not isinstance(definition, ast.ClassDef):
            return [definition]
        return [*self.bases(name), *self.members(name)]

    def kind(self, name: Name) -> type[Operator] | None:
        """The operator class of this name, None for anything else."""
        found = getattr(import_module(name.module), name.name)
        is_operator = inspect.isclass(found) and issubclass(found, Operator)
        return found if is_operator else None

    def is_record(self, name: Name) -> bool:
        """Whether it is a data class, which becomes a named tuple: data classes look up the module
        that they are in, so that a file could not be loaded from anywhere."""
        found = getattr(import_module(name.module), name.name)
        return self.kind(name) is None and is_dataclass(found)

    def bases(self, name: Name) -> list[ast.expr]:
        """The base classes; of an operator those that have a member which is taken."""
        definition = read(name.module).definitions[name.name]
        bases = definition.bases if isinstance(definition, ast.ClassDef) else []
        if self.kind(name) is None:
            return bases
        scope = {use.id: origin for base in bases for use, origin in uses(base, name.module)}
        kept: list[ast.expr] = []
        for base in bases:
            if isinstance(base, ast.Name) and base.id in scope and is_ours(scope[base.id]):
                origin = scope[base.id]
                if self.members(origin) or self.bases(origin):
                    kept.append(base)
        return kept

    def members(self, name: Name) -> list[ast.stmt]:
        """The members of a class that are taken."""
        definition = read(name.module).definitions[name.name]
        if not isinstance(definition, ast.ClassDef):
            return []
        found = getattr(import_module(name.module), name.name)
        if self.kind(name) is not None:
            return [m for m in definition.body if self._is_reached(m, found)]
        whole = any(base.__module__.startswith("torch.") for base in found.__mro__)
        return [
            member
            for member in definition.body
            if not isinstance(member, ast.FunctionDef)
            or whole
            or member.name in self.attributes
            or (member.name.startswith("__") and member.name != "__post_init__")
        ]

    def _is_reached(self, member: ast.stmt, owner: type[Operator]) -> bool:
        """Whether some operator gets this method when it is asked for the name."""
        if not isinstance(member, ast.FunctionDef) or member.name not in self.attributes:
            return False
        if getattr(owner.__dict__[member.name], "__isabstractmethod__", False):
            return False
        return any(
            owner in _definers(type(operator), member.name)
            for operator in self.operators
            if member.name not in self.constants(operator)
        )

    def constants(self, operator: Operator) -> dict[str, str]:
        """Hyper-parameters and properties that are asked for, as source text."""
        found = {}
        for name in sorted(self.attributes):
            if name.startswith("__") or not hasattr(operator, name):
                continue
            if callable(value := getattr(operator, name)):
                continue
            if (text := constant(value)) is not None:
                found[name] = text
            elif name in {argument.name for argument in operator.arguments()}:
                raise DesignError(f"no stand-alone form: {name} of {operator} is {value!r}")
        return found


@cache
def _definers(kind: type[Operator], method: str) -> list[type[Any]]:
    """The class whose method is called, and those that it calls in turn by `super()`."""
    found = []
    for owner in kind.__mro__:
        if method in owner.__dict__:
            found.append(owner)
            definition = read(owner.__module__).definitions[owner.__name__]
            body = definition.body if isinstance(definition, ast.ClassDef) else []
            own = next(m for m in body if isinstance(m, ast.FunctionDef) and m.name == method)
            if not any(isinstance(n, ast.Name) and n.id == "super" for n in ast.walk(own)):
                break
    return found
