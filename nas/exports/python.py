"""One Python file that needs torch only: the block for any width, the network, the weights.

The layers of the block are written out, not interpreted. Helpers come from
`nas.exports.standalone` as they stand, and only those that this network calls.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from textwrap import indent
from typing import Any

from nas.candidates import Sized
from nas.exports.block import BlockText, call
from nas.exports.docstring import docstring
from spaces.fixed import Classifier, MaxPool
from spaces.network import Part

NAME = "python"
ABOUT = "one file that needs torch only: Block for any width, Network, and load for the weights"
SUFFIX = ".py"

OWN = ("Block", "Network", "fits", "load")
"""Names of every exported file besides the helpers."""

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
    block = BlockText(candidate.design, candidate.inner, (*HELPERS, *OWN, *_bound(IMPORTS)))
    *operators, fits, own_block = block.texts()
    own = [fits, own_block, _network(sized), LOAD, _main(sized)]
    texts = [*_helpers(own), *_unformatted(operators), *own]
    imports = _imports(block.written.imports if block.written else {})
    return f"{docstring(sized, weights, facts)}\n\n{imports}\n\n\n" + "\n\n\n".join(texts) + "\n"


def _unformatted(operators: Sequence[str]) -> list[str]:
    """Sources of the vocabulary as they stand, in lines of up to 100 columns."""
    if not operators:
        return []
    return ["# fmt: off\n" + "\n\n\n".join(operators) + "\n# fmt: on"]


def _bound(imports: str) -> dict[str, tuple[str, str]]:
    """The names that import statements bind: name -> (module, name there or nothing)."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.parse(imports).body:
        if isinstance(node, ast.Import):
            found |= {alias.name: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.name: (node.module, alias.name) for alias in node.names}
    return found


def _imports(more: Mapping[str, tuple[str, str]]) -> str:
    """The imports of every file and of the operators in it, in the usual order."""
    named: dict[str, set[str]] = {}
    for name, (module, there) in (_bound(IMPORTS) | dict(more)).items():
        if module != "__future__":
            alias = f" as {name}" if name != (there or module) else ""
            named.setdefault(module, set()).add((there or "") + alias)
    plain = sorted(f"import {m}{n}" for m, names in named.items() for n in names if n[:1] in " ")
    listed = {m: sorted(filter(str.strip, names)) for m, names in named.items()}
    froms = [f"from {m} import {', '.join(names)}" for m, names in sorted(listed.items()) if names]
    standard = sys.stdlib_module_names
    sections = [
        [line for line in plain + froms if (line.split()[1].split(".")[0] in standard) == own]
        for own in (True, False)
    ]
    return "from __future__ import annotations\n\n" + "\n\n".join(map("\n".join, sections))


def _helpers(texts: Sequence[str]) -> list[str]:
    """The sources of the helpers that the texts call, and of those that these call in turn."""
    called: list[str] = []
    while True:
        text = "\n".join([*texts, *map(_source, called)])
        more = [name for name in HELPERS if re.search(rf"(?<!def )(?<![\w.]){name}\(", text)]
        if more == called:
            return [_source(name) for name in called]
        called = more


@cache
def _source(helper: str) -> str:
    from nas.exports import standalone

    return inspect.getsource(getattr(standalone, helper)).rstrip()


# ---- the network ---------------------------------------------------------------------------------


def _network(sized: Sized) -> str:
    (channels, height, width), classes = sized.task.input, sized.task.classes
    entries = [_entry(part) for part in sized.network.parts]
    return f'''\
class Network(nn.Sequential):
    """(N, in_channels, H, W) -> (N, num_classes), searched for {height} x {width} images."""

    def __init__(self, in_channels: int = {channels}, num_classes: int = {classes}) -> None:
{indent(call("super().__init__", entries, 8), " " * 8)}'''


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
