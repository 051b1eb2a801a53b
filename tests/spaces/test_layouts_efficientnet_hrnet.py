"""EfficientNet and HRNet: layouts that branch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spaces.layout import network
from spaces.network import Network
from spaces.operator import DesignError

HRNET = "HRNetV2(W18-Small-v2)"


def outputs(net: Network, images: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        given = torch.randn(1, *net.input) if images is None else images
        found: torch.Tensor = net.module().eval()(given)
    return found


def sizes(net: Network, *names: str) -> list[tuple[int, int]]:
    found = {part.name: part.exit for part in net.parts}
    return [(found[name].features, found[name].out_height) for name in names]


# ---- EfficientNet --------------------------------------------------------------------------------


def test_the_stages_of_b0() -> None:
    net = network("EfficientNet(B0)", (3, 224, 224), 1000)
    ends = ("stem", "stage1.1.narrow", "stage2.2", "stage3.2", "stage4.3", "stage5.3", "stage6.4")
    assert sizes(net, *ends, "stage7.1.narrow", "last") == [
        (32, 112),
        (16, 112),
        (24, 56),
        (40, 28),
        (80, 14),
        (112, 14),
        (192, 7),
        (320, 7),
        (1280, 7),
    ]


def test_b1_is_deeper() -> None:
    blocks = {part.name for part in network("EfficientNet(B1)", (3, 32, 32), 10).parts}
    for number, count in enumerate((2, 3, 3, 4, 4, 5, 2), start=1):
        assert f"stage{number}.{count}.narrow" in blocks
        assert f"stage{number}.{count + 1}.narrow" not in blocks


def test_excitation_scales_each_channel_by_the_means_of_all() -> None:
    parts = {part.name: part for part in network("EfficientNet(B0)", (3, 32, 32), 10).parts}
    assert parts["stage2.1.scaled"].sources == ("stage2.1.filter", "stage2.1.excite")
    assert [s.item.symbol for s in parts["stage2.1.squeeze"].steps()] == ["PW", "BIAS", "SILU"]
    assert [s.item.symbol for s in parts["stage2.1.excite"].steps()] == ["PW", "BIAS", "SIGMOID"]
    assert parts["stage2.1.squeeze"].exit.features == 4  # a quarter of the block's 16 inputs
    assert parts["stage2.2"].sources == ("stage2.2.narrow", "stage2.1.narrow")


@pytest.mark.parametrize("text", ["EfficientNet(B0)", "EfficientNet(B0, SHIFT)"])
@pytest.mark.parametrize("shape", [(3, 33, 47), (1, 5, 9)])
def test_efficientnet_at_odd_sizes(text: str, shape: tuple[int, int, int]) -> None:
    found = outputs(network(text, shape, 6))
    assert found.shape == (1, 6)
    assert found.isfinite().all()


def test_efficientnet_with_other_operators() -> None:
    text = "EfficientNet(B0, STRUCT(q=1,c=1,n=2), *.widen=PWG(2), *.squeeze=STRUCT(k=1))"
    assert outputs(network(text, (3, 32, 32), 10)).shape == (1, 10)


# ---- HRNet ---------------------------------------------------------------------------------------


def test_four_branches_at_the_cityscapes_size() -> None:
    net = network(HRNET, (3, 1024, 2048), 19)
    last = [f"stage4.2.sum{number}" for number in (1, 2, 3, 4)]
    assert sizes(net, *last) == [(18, 256), (36, 128), (72, 64), (144, 32)]
    assert sizes(net, "head.maps", "head.mix", "head.scores", "head.labels") == [
        (270, 256),
        (270, 256),
        (19, 256),
        (19, 1024),
    ]


def test_each_branch_hears_every_other() -> None:
    parts = {part.name: part for part in network(HRNET, (3, 64, 64), 4).parts}
    assert parts["stage3.1.sum2"].sources == (
        "stage3.1.down1to2.1",
        "stage3.1.branch2.2",
        "stage3.1.resize3to2",
    )
    assert parts["stage4.2.down1to4.3"].sources == ("stage4.2.down1to4.2",)
    assert "stage3.3.sum1" in parts
    assert "stage3.4.sum1" not in parts


@pytest.mark.parametrize("text", [HRNET, "HRNetV2(Struct-HR-A)", "HRNetV2(W18-Small-v2, DW+PW)"])
@pytest.mark.parametrize("shape", [(3, 64, 96), (3, 37, 51)])
def test_one_label_a_pixel(text: str, shape: tuple[int, int, int]) -> None:
    found = outputs(network(text, shape, 5))
    assert found.shape == (1, 5, *shape[1:])
    assert found.isfinite().all()


def test_every_weight_is_trained() -> None:
    for text, shape in ((HRNET, (3, 64, 64)), ("EfficientNet(B0)", (3, 64, 64))):
        module = network(text, shape, 3).module().train()
        module(torch.randn(4, *shape)).square().mean().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_layers_are_those_of_torch() -> None:
    module = network("EfficientNet(B0)", (3, 32, 32), 10).module()
    kinds = {type(layer) for layer in module.modules()}
    assert {nn.SiLU, nn.Sigmoid, nn.Dropout, nn.AdaptiveAvgPool2d} <= kinds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HRNetV2(W48)", "no configuration 'W48'; valid are W18-Small-v2, Struct-HR-A"),
        ("HRNetV2(W18-Small-v2, GC(4))", r"branch1\.1\.conv1: GC\(4\): 4 groups do not divide 18"),
        ("EfficientNet(B9)", "no configuration 'B9'; valid are B0, B1"),
        ("EfficientNet(B0, PWG(64))", r"stage1\.1\.filter: PWG\(64\)"),
        ("EfficientNet(B0, *.filters=DW)", "replaces nothing"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        network(text, (3, 64, 64), 10)
