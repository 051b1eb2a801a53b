"""Models A to O of Factorized CNN, and VGG."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spaces.layout import network
from spaces.layouts.factorized import MODELS
from spaces.network import Network
from spaces.operator import DesignError
from spaces.vocabulary import vocabulary

KEEPING = [
    str(kind.examples()[0])
    for name, kind in vocabulary().items()
    if name not in {"STRUCT", "COMPOSITE"}
]


def scores(net: Network) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.module().eval()(torch.randn(1, *net.input))
    return found


def sizes(net: Network) -> dict[str, tuple[int, int]]:
    return {part.name: (part.exit.features, part.exit.out_height) for part in net.parts}


def test_table_1_of_the_paper() -> None:
    found = sizes(network("Factorized(A)", (3, 221, 221), 1000))
    assert found == {
        "stem": (64, 108),
        "pool1": (64, 36),
        "widen2": (128, 36),
        "stage2.1": (128, 36),
        "stage2.2": (128, 36),
        "pool3": (128, 18),
        "widen3": (256, 18),
        "stage3.1": (256, 18),
        "stage3.2": (256, 18),
        "pool4": (256, 6),
        "widen4": (512, 6),
        "stage4.1": (512, 6),
        "stage4.2": (512, 6),
        "widen": (1024, 6),
        "dense": (2048, 1),
        "head": (1000, 1),
    }


def test_the_deep_models_have_a_stage_more() -> None:
    found = sizes(network("Factorized(N)", (3, 224, 224), 1000))
    ends = ("stem", "pool1", "stage2.10", "stage3.12", "stage4.12", "stage5.16", "widen")
    assert [found[name] for name in ends] == [
        (64, 112),
        (64, 56),
        (64, 56),
        (128, 28),
        (256, 14),
        (512, 7),
        (1024, 7),
    ]
    assert "widen2" not in found


@pytest.mark.parametrize("model", MODELS)
def test_other_sizes_and_classes(model: str) -> None:
    net = network(f"Factorized({model})", (1, 23, 30), 5)
    assert scores(net).shape == (1, 5)


def test_dropout_stands_before_the_classifier() -> None:
    (module,) = (
        layer
        for layer in network("Factorized(C)", (3, 32, 32), 10).module().modules()
        if isinstance(layer, nn.Dropout)
    )
    assert module.p == 0.2


def test_layers_have_an_identity_and_operators_of_one_own_theirs() -> None:
    def symbols(text: str) -> list[str]:
        parts = {part.name: part for part in network(text, (3, 32, 32), 10).parts}
        return [step.item.symbol for step in parts["stage2.1"].steps()]

    assert symbols("Factorized(A)") == ["STD", "BN", "SHORTCUT", "RELU"]
    assert symbols("Factorized(C)") == ["SIC", "BN", "RELU"]
    assert symbols("Factorized(L)") == ["SIC", "BN", "RELU", "SIC", "BN", "SHORTCUT", "RELU"]


def test_grids_differ_by_stage() -> None:
    net = network("Factorized(H)", (3, 64, 64), 10)
    designs = {part.name: str(part.design) for part in net.parts if part.design}
    assert designs["stage2.1"] == "TPS(d=4x8x4,t=2x5x3)"
    assert designs["stage3.1"] == "TPS(d=8x8x4,t=4x5x3)"
    assert designs["stage4.1"] == "TPS(d=8x8x8,t=4x5x6)"


@pytest.mark.parametrize("text", [*KEEPING, "STRUCT(c=1/2,n=2)", "DW+PW", "PW+DW+PW@1/4"])
def test_any_operator_in_place_of_the_layers(text: str) -> None:
    try:
        net = network(f"Factorized(A, {text})", (3, 20, 24), 4)
    except DesignError as error:
        assert str(error).startswith("stage2.1: ")
        assert text in str(error)
        return
    assert scores(net).isfinite().all()


@pytest.mark.parametrize(
    ("text", "input", "message"),
    [
        ("Factorized(A)", (3, 6, 40), "7 x 7 window does not fit a 6 x 40 image; valid are 7 x 7"),
        ("Factorized(K)", (3, 64, 64), "no configuration 'K'; valid are A, B"),
        ("Factorized(A, GC(3))", (3, 64, 64), r"stage2\.1: GC\(3\): 3 groups do not divide 128"),
        ("Factorized(A, TPS(d=8x8))", (3, 64, 64), r"stage2\.1: .*grid 8x8 holds 64 channels"),
        ("Factorized(A, stem=DW)", (3, 64, 64), "stem=DW replaces nothing"),
        ("VGG(15)", (3, 64, 64), "no configuration '15'; valid are 11, 13, 16, 19"),
    ],
)
def test_errors(text: str, input: tuple[int, int, int], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        network(text, input, 10)


def test_vgg_16() -> None:
    net = network("VGG(16)", (3, 224, 224), 1000)
    found = sizes(net)
    assert [found[f"pool{n}"] for n in range(1, 6)] == [
        (64, 112),
        (128, 56),
        (256, 28),
        (512, 14),
        (512, 7),
    ]
    with torch.device("meta"):
        module = net.module()
    assert sum(p.numel() for p in module.parameters()) == 138_357_544
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize("text", ["VGG(11)", "VGG(13, DW+PW)", "VGG(11, GC(4))"])
def test_vgg_at_odd_sizes(text: str) -> None:
    assert scores(network(text, (3, 21, 13), 6)).shape == (1, 6)
