"""The tables of Factorized CNN and Structured Convolutions: by the model and by the built network.

Networks are built on torch's meta device, where only shapes are computed. What torch's flop
counter lacks (additions, batch normalisation) is counted here layer by layer, from the shapes
that pass through the built modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.published.recompute import built, recompute
from analysis.published.rows import Row, rows
from spaces.layout import network
from spaces.modules import Bias, Weighted
from spaces.network import Network

FACTORIZED = rows("Factorized CNN")
STRUCTURED = rows("Structured Convolutions")


def cases(table: Iterable[Row]) -> list[object]:
    """The rows that name a network."""
    return [
        pytest.param(row, id=f"{row.table}-{row.row}") for row in table if row.network is not None
    ]


# ---- what the built modules do -------------------------------------------------------------------


@dataclass
class Counted:
    """One forward pass, from the modules."""

    params: int = 0
    weights: int = 0
    mults: int = 0
    adds: int = 0
    norm: int = 0


def structured_sums(layer: Weighted, x: Tensor) -> int:
    """Additions of the sliding sums: each is over a cuboid of the padded map."""
    (weight,) = layer.parameters()
    kernel, groups = layer.options["kernel"], layer.options["groups"]
    _, c, n, _ = weight.shape
    depth, side = x.shape[1] // groups - c + 1, kernel - n + 1
    fits = [size + 2 * (kernel // 2) - side + 1 for size in x.shape[-2:]]
    return groups * c * fits[0] * fits[1] * (depth * side**2 - 1)


def count(module: nn.Module, shape: tuple[int, ...]) -> Counted:
    """Parameters, multiplications, additions and normalised elements of one image."""
    found = Counted()

    def observe(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            found.norm += output.numel()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            found.adds += output.numel() * (layer.weight[0].numel() - 1)
        elif isinstance(layer, Weighted) and layer.function.__name__ == "structured":
            (weight,) = layer.parameters()
            found.adds += output.numel() * (weight[0].numel() - 1)
            found.adds += structured_sums(layer, inputs[0])

    for layer in module.modules():
        layer.register_forward_hook(observe)
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        found.params += own
        if isinstance(layer, nn.Linear):
            found.weights += layer.weight.numel()
        elif not isinstance(layer, nn.BatchNorm2d | Bias):
            found.weights += own
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.empty(1, *shape))
    found.mults = counter.get_total_flops() // 2
    return found


def counted(net: Network) -> Counted:
    with torch.device("meta"), torch.no_grad():
        return count(net.module(), net.input)


def counted_parts(net: Network, pattern: str) -> int:
    """Multiplications of the parts whose name matches, each built by itself."""
    mults = 0
    with torch.device("meta"), torch.no_grad():
        for part in net.parts:
            if fnmatchcase(part.name, pattern):
                at = part.entry
                mults += count(part.module(), (at.channels, at.height, at.width)).mults
    return mults


# ---- the rows ------------------------------------------------------------------------------------


def test_how_many_rows_are_reproduced() -> None:
    for table, total, reproduced in ((FACTORIZED, 34, 29), (STRUCTURED, 26, 14)):
        assert len(table) == total
        assert sum(row.status == "reproduced" for row in table) == reproduced


@pytest.mark.parametrize("row", cases(FACTORIZED + STRUCTURED))
def test_a_row_says_what_it_is(row: Row) -> None:
    computed = recompute(row)
    if row.status == "not reproduced":
        assert row.note
        assert not row.holds(computed)
    else:
        assert row.holds(computed)
        assert row.status == "reproduced" or row.note


@pytest.mark.parametrize(
    "row", cases(row for row in FACTORIZED + STRUCTURED if row.quantity == "counts")
)
def test_the_built_network_agrees_to_the_unit(row: Row) -> None:
    computed, found = recompute(row), counted(built(row))
    if row.convention == "multiplications":
        assert (computed["params"], computed["flops"]) == (found.weights, found.mults)
    elif row.convention == "torch":
        assert (computed["params"], computed["mults"]) == (found.params, found.mults)
    else:
        assert row.convention == "per-output-norm"
        assert computed["params"] == found.params
        assert computed["mults"] == found.mults + found.norm
        assert computed["adds"] == found.adds + found.norm


@pytest.mark.parametrize("row", cases(row for row in FACTORIZED if row.quantity != "counts"))
def test_ratios_are_those_of_the_built_layers(row: Row) -> None:
    assert row.network is not None and row.input is not None and row.classes is not None
    texts = (row.network, row.options["reference"])
    own, reference = (
        counted_parts(network(text, row.input, row.classes), row.options["parts"]) for text in texts
    )
    ratio = own / reference if row.quantity == "share" else reference / own
    assert recompute(row)["flops"] == ratio


def test_no_computed_figure_looks_at_the_published_ones() -> None:
    for row in (FACTORIZED[0], FACTORIZED[7], STRUCTURED[3]):
        assert recompute(replace(row, published={}, tolerance=None)) == recompute(row)


# ---- figures counted independently ---------------------------------------------------------------

MODELS = {
    "A": (11044032, 1092987904),
    "B": (7667904, 593185792),
    "C": (5555136, 267326464),
    "D": (6259392, 375946240),
    "E": (6963648, 484566016),
    "F": (6316736, 393051136),
    "Model L": (6275520, 380756992),
    "Model M": (6987840, 491782144),
    "Model N": (10250624, 866269184),
    "Model O": (14655616, 1297632256),
}
"""Weights and multiplications, from the formulas a pixel of Factorized CNN, equations 2 to 7."""

VERSIONS = {
    "ResNet20": (269722, 40551030, 40739456),
    "ResNet32": (464154, 68862582, 69165696),
    "ResNet56": (853018, 125485686, 126018176),
    "Struct-20-A": (128922, 20764982, 20423296),
    "Struct-32-A": (223514, 35591702, 35086976),
    "ResNet18": (11689512, 1814072344, 1816557056),
    "ResNet34": (21797672, 3663760408, 3667499520),
    "ResNet50": (25557032, 4089183256, 4100298240),
    "Struct-18-A": (5586472, 888202712, 885290496),
    "Struct-34-A": (9823016, 1711805784, 1705161216),
    "Struct-50-A": (13338664, 2749803608, 2199229952),
    "MobileNetV2": (3504872, 300773272, 307452384),
}
"""Parameters, additions and multiplications, one of each per normalised element included."""


@pytest.mark.parametrize(
    "row", cases(r for r in FACTORIZED if r.row in MODELS and r.quantity == "counts")
)
def test_factorized_models(row: Row) -> None:
    computed = recompute(row)
    assert (computed["params"], computed["flops"]) == MODELS[str(row.row)]


@pytest.mark.parametrize("row", cases(row for row in STRUCTURED if row.row in VERSIONS))
def test_structured_versions(row: Row) -> None:
    computed = recompute(row)
    found = tuple(computed[figure] for figure in ("params", "adds", "mults"))
    assert found == VERSIONS[str(row.row)]


def test_model_c_stands_at_its_computed_count() -> None:
    (row,) = (row for row in FACTORIZED if (row.table, row.row) == ("1", "C"))
    assert recompute(row)["flops"] == 267_326_464
    assert row.published["flops"] == 268_000_000


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("ResNet(18, STRUCT(c=1,n=2))", "ResNet(Struct-18-A)"),
        (
            "ResNet(34, STRUCT(c=1,n=2), head=STRUCT(k=1), stage2.1.shortcut=STRUCT(k=1))",
            "ResNet(Struct-34-A)",
        ),
        ("Factorized(A, SIC)", "Factorized(C)"),
        ("Factorized(I, TPS(2))", "Factorized(G)"),
    ],
)
def test_configurations_can_be_written_out(text: str, row: str) -> None:
    input = (3, 221, 221)
    assert network(text, input, 1000).parts == network(row, input, 1000).parts
