"""One Python file that needs torch only: the block for any width, the network, the weights.

The layers of the block are written out, not interpreted. Helpers come from
`nas.exports.standalone` as they stand, and only those that this network calls.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from math import gcd, lcm
from textwrap import indent
from typing import Any, NamedTuple

from nas.candidates import Sized
from nas.exports.docstring import docstring
from spaces.design import Design
from spaces.fixed import Classifier, MaxPool
from spaces.grouped import GroupedConvolution, NumberedGroups
from spaces.network import Part
from spaces.operator import DesignError
from spaces.operators.depthwise import Depthwise

NAME = "python"
ABOUT = "one file that needs torch only: Block for any width, Network, and load for the weights"
SUFFIX = ".py"

COLUMNS = 88
"""The default of formatters, so that an exported file is at home in any code base."""

HELPERS = (
    "convolution",
    "shuffle",
    "pool",
    "identity",
    "divisors",
    "best_groups",
    "best_groups_unshuffled",
    "check",
    "Stem",
    "Head",
    "read_safetensors",
)

IMPORTS = """\
from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional"""

LOAD = '''\
def load(path: str | Path) -> Network:
    """The network with the weights of a safetensors file, in the types of the file.

    Raises ValueError where the file is malformed or belongs to another network.
    """
    network = Network()
    try:
        network.load_state_dict(read_safetensors(path), assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another network: {error}") from error
    return network'''


def render(sized: Sized, weights: str | None, facts: Mapping[str, Any]) -> str:
    """The text of the file. Raises DesignError for an operator that it cannot write out."""
    candidate = sized.candidate
    layers = _layers(candidate.design)
    own = [
        _fits(candidate.design, layers),
        _block(candidate.design, layers, candidate.inner),
        _network(sized),
        LOAD,
        _main(sized),
    ]
    return (
        f"{docstring(sized, weights, facts)}\n\n{IMPORTS}\n\n\n"
        + "\n\n\n".join([*_helpers(own), *own])
        + "\n"
    )


def _helpers(texts: Sequence[str]) -> list[str]:
    """The sources of the helpers that the texts call, and of those that these call in turn."""
    called: list[str] = []
    while True:
        text = "\n".join([*texts, *map(_source, called)])
        more = [name for name in HELPERS if re.search(rf"(?<!def )\b{name}\(", text)]
        if more == called:
            return [_source(name) for name in called]
        called = more


@cache
def _source(helper: str) -> str:
    from nas.exports import standalone

    return inspect.getsource(getattr(standalone, helper)).rstrip()


def _call(function: str, arguments: Sequence[str], column: int) -> str:
    """A call that begins at a column: on one line, or with one argument a line."""
    line = f"{function}({', '.join(arguments)})"
    if "\n" not in line and column + len(line) < COLUMNS:
        return line
    return f"{function}(\n" + indent(",\n".join(arguments) + ",\n", "    ") + ")"


# ---- the block -----------------------------------------------------------------------------------


class Layer(NamedTuple):
    """An operator in the words of the file: its widths and its group number, which is None where
    the file has to find it."""

    operator: GroupedConvolution
    before: str
    after: str
    groups: str | None


def _layers(design: Design) -> list[Layer]:
    names = _width_names(design)
    layers = []
    for operator, before, after in zip(design.operators, names[:-1], names[1:], strict=True):
        if not isinstance(operator, GroupedConvolution):
            raise DesignError(f"{operator} in {design} has no stand-alone form yet")
        groups: str | None = "1"
        if isinstance(operator, Depthwise):
            groups = before
        elif isinstance(operator, NumberedGroups):
            groups = f"{before} // {operator.q}" if operator.q else str(operator.g)
            groups = None if operator.is_open else groups
        layers.append(Layer(operator, before, after, groups))
    return layers


def _width_names(design: Design) -> list[str]:
    """The widths of the design by name, told apart where C, F and K all differ."""
    if not any(operator.resizes for operator in design.operators):
        return ["in_channels"] * (len(design.operators) + 1)
    ratio = design.inner or Fraction(1)
    features, channels = ratio.denominator, ratio.denominator + ratio.numerator
    names = {channels: "in_channels", features: "out_channels"}
    return [names.get(width, "inner") for width in design.widths(channels, features)]


def _block(design: Design, layers: Sequence[Layer], inner: Sequence[int]) -> str:
    statements = [
        *_inner_width(design, layers),
        *_group_numbers(design, layers),
        _call("self.body = nn.Sequential", list(_body(design, layers, inner)), 8),
        "self.features = out_channels",
        "self.stride = stride",
    ]
    return f'''\
class Block(nn.Module):
    """{design}: relu(body(x) + x), each operator normalised.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride).
    Raises ValueError for widths that the design does not admit, naming near ones.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check(fits, in_channels, out_channels, stride)
{indent(chr(10).join(statements), " " * 8)}

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + identity(x, self.features, self.stride))'''


def _inner_width(design: Design, layers: Sequence[Layer]) -> list[str]:
    """K = r F, where some layer has this width."""
    if design.inner is None or not any(layer.after == "inner" for layer in layers):
        return []
    times = f"{design.inner.numerator} * " if design.inner.numerator > 1 else ""
    over = f" // {design.inner.denominator}" if design.inner.denominator > 1 else ""
    return [f"inner = {times}out_channels{over}"]


def _group_numbers(design: Design, layers: Sequence[Layer]) -> list[str]:
    """The statement that finds the open group numbers: that of operator i is g{i}."""
    if not design.is_family:
        return []
    found = [f"g{i}" if layer.groups is None else "_" for i, layer in enumerate(layers, start=1)]
    names = ", ".join(found) if len(found) > 1 else f"({found[0]},)"
    given = [f"{a.before}, {a.after}, {a.operator.kernel}, {a.groups}" for a in layers]
    if not design.unshuffled:
        return [_call(f"{names} = best_groups", [f"({words})" for words in given], 8)]
    behind = [_shuffled(design, i) for i in range(len(layers))]
    mixed = [f"({words}, {shuffle})" for words, shuffle in zip(given, behind, strict=True)]
    return [_call(f"{names} = best_groups_unshuffled", mixed, 8)]


def _shuffled(design: Design, position: int) -> bool:
    """Whether a shuffle may follow this operator."""
    last = position == len(design.operators) - 1
    return design.operators[position].grouped and position not in design.unshuffled and not last


def _body(design: Design, layers: Sequence[Layer], inner: Sequence[int]) -> Iterator[str]:
    """The entries of the block's body, in the order of `spaces.network.block`."""
    striding = next((i for i, op in enumerate(design.operators) if op.strides), None)
    if striding is None:
        yield "*pool(stride)"
    for i, (operator, before, after, given) in enumerate(layers):
        groups = given or f"g{i + 1}"
        words = [before, after, str(operator.kernel)]
        words += ["stride=stride"] if i == striding else []
        words += [f"dilation={operator.dilation}"] if operator.dilation > 1 else []
        words += [f"groups={groups}"] if groups != "1" else []
        yield _call("convolution", words, 12)
        yield f"nn.BatchNorm2d({after})"
        if i in inner:
            yield "nn.ReLU()"
        if _shuffled(design, i):
            yield f"*shuffle({after}, {groups})"


# ---- the widths that the block admits ------------------------------------------------------------


def _fits(design: Design, layers: Sequence[Layer]) -> str:
    conditions = ["min(in_channels, out_channels) > 0", *_divisions(design, layers)]
    if not any(operator.resizes for operator in design.operators):
        conditions.append("in_channels == out_channels")
    line = f"    return {' and '.join(conditions)}"
    if len(line) > COLUMNS:
        line = "    return (\n        " + "\n        and ".join(conditions) + "\n    )"
    return f'''\
def fits(in_channels: int, out_channels: int) -> bool:
    """Whether the group numbers divide these widths of a Block."""
{line}'''


def _divisions(design: Design, layers: Sequence[Layer]) -> list[str]:
    """The conditions of `why_invalid`, each of the two widths a multiple of one number.

    n divides K = p F / s exactly if s n / gcd(p, n) divides F. A group number C / q that has to
    divide another width is a condition of its own.
    """
    p, s = design.inner.as_integer_ratio() if design.inner else (1, 1)
    steps = {"in_channels": 1, "out_channels": s}
    own = []
    for operator, before, after, _ in layers:
        if not isinstance(operator, NumberedGroups) or operator.is_open:
            continue
        number = operator.q if operator.q else int(operator.g or 1)
        for width in {before} if operator.q else {before, after}:
            step = s * (number // gcd(p, number)) if width == "inner" else number
            name = "in_channels" if width == "in_channels" else "out_channels"
            steps[name] = lcm(steps[name], step)
        if operator.q and before == "in_channels" and after != before:
            target = "".join(_inner_width(design, layers)).removeprefix("inner = ")
            divided = f"({target})" if after == "inner" else after
            own.append(f"{divided} % (in_channels // {operator.q}) == 0")
        if operator.q and before == "inner" and after != before and s * operator.q % p:
            raise DesignError(f"{operator} in {design} divides no output width")
    return [f"{name} % {step} == 0" for name, step in steps.items() if step > 1] + own


# ---- the network ---------------------------------------------------------------------------------


def _network(sized: Sized) -> str:
    (channels, height, width), classes = sized.task.input, sized.task.classes
    entries = [_entry(part) for part in sized.network.parts]
    return f'''\
class Network(nn.Sequential):
    """(N, in_channels, H, W) -> (N, num_classes), searched for {height} x {width} images."""

    def __init__(self, in_channels: int = {channels}, num_classes: int = {classes}) -> None:
{indent(_call("super().__init__", entries, 8), " " * 8)}'''


def _entry(part: Part) -> str:
    item, place, _ = part.body[0]
    if isinstance(item, Classifier):
        return f"Head({place.channels}, num_classes)"
    if isinstance(item, MaxPool):
        return f"nn.MaxPool2d(3, stride={place.stride}, padding=1)"
    if part.design is None:
        return f"Stem(in_channels, {place.features}, stride={place.stride})"
    whole = part.whole
    stride = f", stride={whole.stride}" if whole.stride > 1 else ""
    return f"Block({whole.channels}, {whole.features}{stride})"


def _main(sized: Sized) -> str:
    shape = ", ".join(map(str, sized.task.input))
    return f"""\
if __name__ == "__main__":
    network = Network().eval()
    scores = network(torch.randn(2, {shape}))
    print("params:", sum(p.numel() for p in network.parameters()))
    print("scores of two random images:", tuple(scores.shape))"""
