"""ResNet, ResNeXt, and what may stand in their convolutions."""

from __future__ import annotations

import pytest
import torch

from spaces.design import Design
from spaces.layout import network
from spaces.network import Network
from spaces.operator import DesignError
from spaces.structured_versions import MOBILENETS, RESNETS
from spaces.vocabulary import vocabulary

EVERY = [str(operator) for kind in vocabulary().values() for operator in kind.examples()]


def scores(net: Network) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = net.module().eval()(torch.randn(2, *net.input))
    return found


def params(net: Network) -> int:
    return sum(step.item.params(step.place) for part in net.parts for step in part.steps())


def sizes(net: Network, *names: str) -> list[tuple[int, int, int]]:
    found = {part.name: part.exit for part in net.parts}
    return [(found[n].features, found[n].out_height, found[n].out_width) for n in names]


# ---- shapes --------------------------------------------------------------------------------------


def test_small_images_three_stages() -> None:
    net = network("ResNet(20)", (3, 32, 32), 10)
    assert sizes(net, "stem", "stage1.3", "stage2.3", "stage3.3") == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]


def test_large_images_four_stages() -> None:
    names = ("stem", "pool", "stage1.3", "stage2.4", "stage3.6", "stage4.3")
    for text, last in (("ResNet(34)", 512), ("ResNet(50)", 2048), ("ResNeXt(50)", 2048)):
        *_, end = found = sizes(network(text, (3, 224, 224), 1000), *names)
        assert found[:2] == [(64, 112, 112), (64, 56, 56)]
        assert end == (last, 7, 7)


@pytest.mark.parametrize(
    "text",
    ["ResNet(20)", "ResNet(18)", "ResNet(50)", "ResNet(50-v1)", "ResNeXt(50)"]
    + [f"ResNet({name})" for name in RESNETS if "50" not in name],
)
@pytest.mark.parametrize("shape", [(3, 33, 17), (1, 5, 64)])
def test_odd_sizes(text: str, shape: tuple[int, int, int]) -> None:
    net = network(text, shape, 7)
    assert scores(net).shape == (2, 7)


def test_the_first_version_strides_in_the_first_1x1() -> None:
    new, old = (network(text, (3, 64, 64), 10) for text in ("ResNet(50)", "ResNet(50-v1)"))
    names = ("stage2.1.conv1", "stage2.1.conv2")
    assert sizes(new, *names) == [(128, 16, 16), (128, 8, 8)]
    assert sizes(old, *names) == [(128, 8, 8), (128, 8, 8)]
    assert params(new) == params(old)


def test_a_1x1_convolution_with_a_stride_leaves_pixels_out() -> None:
    (part,) = (
        p for p in network("ResNet(18)", (3, 30, 30), 10).parts if p.name == "stage2.1.shortcut"
    )
    module = part.module().eval()
    image = torch.randn(1, 64, 8, 7)
    weight = module.body[1].weight
    expected = torch.nn.functional.conv2d(image, weight, stride=2)
    assert torch.allclose(module(image), expected / (1 + 1e-5) ** 0.5, atol=1e-5)


def test_the_parameter_free_shortcut_leaves_pixels_out_and_adds_zeros() -> None:
    (part,) = (
        p for p in network("ResNet(20)", (3, 9, 9), 10).parts if p.name == "stage2.1.shortcut"
    )
    image = torch.randn(1, 16, 9, 9)
    found = part.module()(image)
    assert found.shape == (1, 32, 5, 5)
    assert torch.equal(found[:, :16], image[..., ::2, ::2])
    assert not found[:, 16:].any()


def test_a_block_adds_its_input_before_the_last_activation() -> None:
    net = network("ResNet(20)", (3, 6, 6), 10)
    parts = {part.name: part for part in net.parts}
    assert parts["stage1.2"].sources == ("stage1.2.conv2", "stage1.1")
    assert [step.item.symbol for step in parts["stage1.2"].steps()] == ["SUM", "RELU"]
    assert [s.item.symbol for s in parts["stage1.2.conv1"].steps()] == ["STD", "BN", "RELU"]
    assert [s.item.symbol for s in parts["stage1.2.conv2"].steps()] == ["STD", "BN"]


# ---- any operator in place of the convolutions ---------------------------------------------------


def widened(design: str) -> str:
    """ResNet-20 with the design in the blocks that keep width and map."""
    return f"ResNet(20, stage?.[23].conv?={design})"


@pytest.mark.parametrize("text", EVERY)
def test_any_operator_stands_where_shape_and_width_stay(text: str) -> None:
    """Or says why not, and in which convolution."""
    try:
        net = network(widened(text), (3, 9, 7), 10)
    except DesignError as error:
        assert str(error).startswith(("stage1.2.conv1: ", "stage2.2.conv1: "))
        return
    module = net.module().eval()
    assert params(net) == sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        found = module(torch.randn(2, 3, 9, 7))
    assert found.shape == (2, 10)
    assert found.isfinite().all()


def test_most_operators_stand_there() -> None:
    def stands(text: str) -> bool:
        try:
            network(widened(text), (3, 9, 7), 10)
        except DesignError:
            return False
        return True

    kinds = {name: [str(o) for o in kind.examples()] for name, kind in vocabulary().items()}
    assert all(any(map(stands, texts)) for texts in kinds.values())


@pytest.mark.parametrize("text", ["DW+PW", "PWG(4)+DW+PWG(4)@1/4", "GC(8)+PWG(2)", "SHIFT+PW"])
def test_designs_take_stride_and_width(text: str) -> None:
    net = network(f"ResNet(20, {text})", (3, 16, 16), 10)
    assert scores(net).shape == (2, 10)
    replaced = {part.name: part.design for part in net.parts if part.design}
    assert isinstance(replaced["stage2.1.conv1"], Design)
    assert {str(d) for n, d in replaced.items() if n.startswith("stage")} == {text}


def test_operators_that_add_their_input_leave_no_second_sum() -> None:
    net = network(widened("SIC"), (3, 9, 7), 10)
    symbols = {part.name: [step.item.symbol for step in part.steps()] for part in net.parts}
    assert symbols["stage1.2"] == ["RELU"]
    assert symbols["stage1.1"] == ["SUM", "RELU"]
    assert symbols["stage1.2.conv1"] == ["SIC", "BN", "RELU"]


def test_time_steps_own_their_norm_and_activation() -> None:
    net = network(widened("RD"), (3, 9, 7), 10)
    symbols = {part.name: [step.item.symbol for step in part.steps()] for part in net.parts}
    assert symbols["stage1.2.conv1"] == ["RD"]
    assert "stage1.2" not in symbols
    assert scores(net).shape == (2, 10)


def test_operators_that_alternate_do_so_along_a_block() -> None:
    net = network("ResNet(20, LEAN(q=4,s=3))", (3, 9, 7), 10)
    designs = {part.name: str(part.design) for part in net.parts if part.design}
    for block in ("stage1.1", "stage1.2", "stage3.1"):
        assert designs[f"{block}.conv1"] == "LEAN(q=4,s=1x3)"
        assert designs[f"{block}.conv2"] == "LEAN(q=4,s=3x1)"


def test_the_classifier_may_be_structured() -> None:
    dense, half = (
        network(text, (3, 8, 8), 10) for text in ("ResNet(20)", "ResNet(20, head=STRUCT(k=1))")
    )
    assert params(dense) - params(half) == 32 * 10
    assert scores(half).shape == (2, 10)


@pytest.mark.parametrize("name", MOBILENETS)
def test_structured_mobile_networks(name: str) -> None:
    assert scores(network(f"MobileNetV2({name})", (3, 33, 35), 5)).shape == (2, 5)


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ResNet(19)", r"no configuration '19'.*18.*Struct-18-A"),
        ("ResNet(20, RD)", r"stage2\.1\.conv1: RD"),
        ("ResNet(20, GC(5))", r"stage1\.1\.conv1: GC\(5\): 5 groups do not divide 16"),
        ("ResNet(20, GC)", r"stage1\.1\.conv1: GC has no group number"),
        ("ResNet(20, head=SIC(s=2))", r"head: "),
        ("ResNet(20, layer9=DW)", r"layer9=DW replaces nothing.*stage1\.1\.conv1"),
        ("ResNet(20, DWW)", r"unknown operator 'DWW'"),
        ("ResNeXt(18)", r"no configuration '18'"),
    ],
)
def test_what_cannot_be_names_the_place_and_the_reason(text: str, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        network(text, (3, 32, 32), 10)
