"""The block of an exported file: its layers written out, and the widths that it admits.

A grouped convolution is one call; any other operator brings its source (`nas.exports.operators`)
and is asked for its module at its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm
from textwrap import indent
from typing import NamedTuple

from nas.exports.operators import COLUMNS, Written
from spaces.design import Design
from spaces.grouped import GroupedConvolution, NumberedGroups
from spaces.operator import DesignError, Operator


def call(function: str, arguments: Sequence[str], column: int) -> str:
    """A call that begins at a column: on one line, or with one argument a line."""
    line = f"{function}({', '.join(arguments)})"
    if "\n" not in line and column + len(line) < COLUMNS:
        return line
    return f"{function}(\n" + indent(",\n".join(arguments) + ",\n", "    ") + ")"


class Layer(NamedTuple):
    """An operator in the words of the file: its widths, and its group number, which is None where
    the file has to find it."""

    operator: Operator
    before: str
    after: str
    groups: str | None
    strides: bool

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"Place({self.before}, {self.after}, 1, 1{', stride' if self.strides else ''})"


class BlockText:
    """The source of `fits` and `Block` for a design, with ReLU behind the operators `inner`."""

    def __init__(self, design: Design, inner: Sequence[int], reserved: Sequence[str]) -> None:
        self.title = str(design)
        self.design = design.turned()
        self.inner = inner
        others = [op for op in self.design.operators if not isinstance(op, GroupedConvolution)]
        if others and design.is_family:
            raise DesignError(f"{design} cannot be exported without its group numbers")
        self.written = Written(others, reserved) if others else None

    def texts(self) -> list[str]:
        """Definitions of the operators, `fits`, `Block`."""
        return [*(self.written.texts() if self.written else ()), self._fits(), self._block()]

    # ---- layers ------------------------------------------------------------------------------

    @cached_property
    def layers(self) -> list[Layer]:
        names = self._width_names()
        striding = next((i for i, op in enumerate(self.design.operators) if op.strides), None)
        ends = zip(self.design.operators, names, names[1:], strict=False)
        return [
            self._numbered(Layer(op, before, after, "1", i == striding))
            for i, (op, before, after) in enumerate(ends)
        ]

    def _numbered(self, layer: Layer) -> Layer:
        """With the group number as the file says it."""
        match layer.operator:
            case NumberedGroups(g=g, q=q) as operator:
                groups = f"{layer.before} // {q}" if q else str(g)
                return layer._replace(groups=None if operator.is_open else groups)
            case GroupedConvolution() as operator if not operator.resizes:
                return layer._replace(groups=layer.before)
            case GroupedConvolution():
                return layer
        return layer._replace(groups=f"{self._object(layer)}.groups({layer.place})")

    def _object(self, layer: Layer) -> str:
        """The operator as an object of the file."""
        if self.written is None:
            raise TypeError(f"{layer.operator} is written as a call")
        return f"{self.written.names[layer.operator]}()"

    def _width_names(self) -> list[str]:
        """The widths of the design by name, told apart where C, F and K all differ."""
        design = self.design
        if not any(operator.resizes for operator in design.operators):
            return ["in_channels"] * (len(design.operators) + 1)
        ratio = design.inner or Fraction(1)
        features, channels = ratio.denominator, ratio.denominator + ratio.numerator
        names = {channels: "in_channels", features: "out_channels"}
        return [names.get(width, "inner") for width in design.widths(channels, features)]

    @property
    def _inner_width(self) -> str | None:
        """K = r F, where some layer has this width."""
        ratio = self.design.inner
        if ratio is None or not any(layer.after == "inner" for layer in self.layers):
            return None
        times = f"{ratio.numerator} * " if ratio.numerator > 1 else ""
        over = f" // {ratio.denominator}" if ratio.denominator > 1 else ""
        return f"{times}out_channels{over}"

    # ---- the block ---------------------------------------------------------------------------

    def _block(self) -> str:
        body = "self.body = nn.Sequential"
        statements = [
            *([f"inner = {self._inner_width}"] if self._inner_width else []),
            *self._group_numbers(),
            call(body, list(self._body()), 8),
            *(["initialise(self.body)"] if self.written else []),
            "self.features = out_channels",
            "self.stride = stride",
            *self._own_identity(),
        ]
        return f'''\
class Block(nn.Module):
    """{self.title}: {self._formula}, each operator normalised.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride).
    Raises ValueError for widths that the design does not admit, naming near ones.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check(fits, in_channels, out_channels, stride)
{indent(chr(10).join(statements), " " * 8)}

    def forward(self, x: Tensor) -> Tensor:
{indent(self._forward, " " * 8)}'''

    @property
    def _steps(self) -> bool:
        """Whether all operators have their own activation and identity."""
        return all(operator.kind == "step" for operator in self.design.operators)

    @property
    def _linear(self) -> bool:
        """Whether no operator adds its input, so that the block always does."""
        return any(operator.kind == "linear" for operator in self.design.operators)

    @property
    def _formula(self) -> str:
        if self._steps:
            return "body(x)"
        return "relu(body(x) + x)" if self._linear else "relu(body(x) + x), or without + x"

    @property
    def _forward(self) -> str:
        if self._steps:
            return "y: Tensor = self.body(x)\nreturn y"
        if self._linear:
            shortcut = "identity(x, self.features, self.stride)"
            return f"return functional.relu(self.body(x) + {shortcut})"
        return (
            "y = self.body(x)\n"
            "if not self.own_identity:\n"
            "    y = y + identity(x, self.features, self.stride)\n"
            "return functional.relu(y)"
        )

    def _own_identity(self) -> list[str]:
        """Whether every operator adds its input here: then the block does not."""
        if self._steps or self._linear:
            return []
        asked = [f"{self._object(layer)}.adds_input({layer.place})" for layer in self.layers]
        line = f"[{', '.join(asked)}]"
        if len(line) + len("self.own_identity = all()") + 8 > COLUMNS:
            line = "[\n" + indent(",\n".join(asked) + ",\n", "    ") + "]"
        return [call("self.own_identity = all", [line], 8)]

    def _group_numbers(self) -> list[str]:
        """The statement that finds the open group numbers: that of operator i is g{i}."""
        if not self.design.is_family:
            return []
        layers = self.layers
        found = [
            f"g{i}" if layer.groups is None else "_" for i, layer in enumerate(layers, start=1)
        ]
        names = ", ".join(found) if len(found) > 1 else f"({found[0]},)"
        given = [
            f"{layer.before}, {layer.after}, {layer.operator.kernel}, {layer.groups}"
            for layer in layers
            if isinstance(layer.operator, GroupedConvolution)
        ]
        if not self.design.unshuffled:
            return [call(f"{names} = best_groups", [f"({words})" for words in given], 8)]
        behind = [self._shuffled(i) for i in range(len(layers))]
        mixed = [f"({words}, {shuffle})" for words, shuffle in zip(given, behind, strict=True)]
        return [call(f"{names} = best_groups_unshuffled", mixed, 8)]

    def _shuffled(self, position: int) -> bool:
        """Whether a shuffle may follow this operator."""
        design = self.design
        last = position == len(design.operators) - 1
        return design.operators[position].grouped and position not in design.unshuffled and not last

    def _body(self) -> Iterator[str]:
        """The entries of the block's body, in the order of `spaces.network.block`."""
        if not any(layer.strides for layer in self.layers):
            yield "*pool(stride)"
        for i, layer in enumerate(self.layers):
            groups = layer.groups or f"g{i + 1}"
            if isinstance(layer.operator, GroupedConvolution):
                yield _convolution(layer, layer.operator, groups)
            else:
                yield call(f"{self._object(layer)}.module", [layer.place], 12)
            if layer.operator.kind != "step":
                yield f"nn.BatchNorm2d({layer.after})"
                if i in self.inner:
                    yield "nn.ReLU()"
            if self._shuffled(i):
                yield call("*shuffle", [layer.after, groups], 12)

    # ---- the widths that the block admits ----------------------------------------------------

    def _fits(self) -> str:
        conditions = ["min(in_channels, out_channels) > 0", *self._divisions()]
        if not any(operator.resizes for operator in self.design.operators):
            conditions.append("in_channels == out_channels")
        others = [la for la in self.layers if not isinstance(la.operator, GroupedConvolution)]
        conditions += [
            f"{self._object(layer)}.why_invalid({layer._replace(strides=False).place}) is None"
            for layer in others
        ]
        line = f"    return {' and '.join(conditions)}"
        if len(line) > COLUMNS:
            line = "    return (\n        " + "\n        and ".join(conditions) + "\n    )"
        if any("inner" in (layer.before, layer.after) for layer in others):
            line = f"    inner = {self._inner_width}\n{line}"
        return f'''\
def fits(in_channels: int, out_channels: int) -> bool:
    """Whether the {"operators admit" if self.written else "group numbers divide"} these widths \
of a Block."""
{line}'''

    def _divisions(self) -> list[str]:
        """The conditions of `why_invalid`, each of the two widths a multiple of one number.

        n divides K = p F / s exactly if s n / gcd(p, n) divides F. A group number C / q that has
        to divide another width is a condition of its own.
        """
        design = self.design
        p, s = design.inner.as_integer_ratio() if design.inner else (1, 1)
        steps = {"in_channels": 1, "out_channels": s}
        own = []
        for operator, before, after, *_ in self.layers:
            if not isinstance(operator, NumberedGroups) or operator.is_open:
                continue
            number = operator.q if operator.q else int(operator.g or 1)
            for width in {before} if operator.q else {before, after}:
                step = s * (number // gcd(p, number)) if width == "inner" else number
                name = "in_channels" if width == "in_channels" else "out_channels"
                steps[name] = lcm(steps[name], step)
            if operator.q and before == "in_channels" and after != before:
                divided = f"({self._inner_width})" if after == "inner" else after
                own.append(f"{divided} % (in_channels // {operator.q}) == 0")
            if operator.q and before == "inner" and after != before and s * operator.q % p:
                raise DesignError(f"{operator} in {design} divides no output width")
        return [f"{name} % {step} == 0" for name, step in steps.items() if step > 1] + own


def _convolution(layer: Layer, operator: GroupedConvolution, groups: str) -> str:
    """The call that makes a grouped convolution."""
    words = [layer.before, layer.after, str(operator.kernel)]
    words += ["stride=stride"] if layer.strides else []
    words += [f"dilation={operator.dilation}"] if operator.dilation > 1 else []
    words += [f"groups={groups}"] if groups != "1" else []
    return call("convolution", words, 12)
