"""The layout of Penetrating the Fog, Table 1, and the block around a design."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from spaces.design import Design, parse
from spaces.fixed import BatchNorm, ReLU, Shortcut, Shuffle
from spaces.layouts.fog import fog, stages_for
from spaces.network import Network, Part, block
from spaces.operator import DesignError
from spaces.operators.depthwise import Depthwise
from spaces.operators.pointwise_group import PointwiseGroup

torch.set_num_threads(1)


def network(text: str = "DW+PW", **given: object) -> Network:
    asked = {"input": (3, 32, 32), "classes": 10, "width": 8, "blocks": (1, 1, 1)} | given
    return fog(lambda *_: parse(text), **asked)  # type: ignore[arg-type]


def sizes(net: Network) -> list[tuple[str, int, int]]:
    """Name, channels and side of the map that leaves each part before the classifier."""
    return [(p.name, p.exit.features, p.exit.out_height) for p in net.parts[:-1]]


# ---- the layout ----------------------------------------------------------------------------------


def test_the_layout_of_table_1_at_224() -> None:
    net = network(input=(3, 224, 224), classes=1000, width=64, blocks=(2, 1, 1, 2))
    assert sizes(net) == [
        ("stem", 64, 112),
        ("pool", 64, 56),
        ("stage1.1", 64, 56),
        ("stage1.2", 64, 56),
        ("stage2.1", 128, 28),
        ("stage3.1", 256, 14),
        ("stage4.1", 512, 7),
        ("stage4.2", 512, 7),
    ]
    head = net.parts[-1]
    assert (head.name, head.entry.channels, head.exit.features) == ("head", 512, 1000)


def test_a_small_input_keeps_its_size_in_the_stem() -> None:
    net = network(input=(1, 63, 13), width=6)
    assert sizes(net) == [
        ("stem", 6, 63),
        ("stage1.1", 6, 63),
        ("stage2.1", 12, 32),
        ("stage3.1", 24, 16),
    ]
    assert [p.exit.out_width for p in net.parts[:-1]] == [13, 13, 7, 4]


@pytest.mark.parametrize(
    ("side", "stages"),
    [(1, 1), (4, 1), (7, 1), (8, 2), (16, 3), (28, 3), (32, 4), (63, 4), (64, 3), (224, 4)],
)
def test_stage_counts(side: int, stages: int) -> None:
    assert stages_for(side, side) == stages


@pytest.mark.parametrize("blocks", [(1,), (3, 2), (1, 1, 1, 1, 1), (2, 4, 1)])
def test_any_number_of_stages_and_blocks(blocks: tuple[int, ...]) -> None:
    net = network(blocks=blocks)
    names = [f"stage{s}.{i}" for s, count in enumerate(blocks, 1) for i in range(1, count + 1)]
    assert [part.name for part in net.blocks()] == names
    assert net.parts[-1].entry.channels == 8 * 2 ** (len(blocks) - 1)
    assert net.module().eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_only_the_first_block_of_a_later_stage_strides_and_widens() -> None:
    for part in network(blocks=(2, 2, 2)).blocks():
        assert part.shortcut is not None
        place = part.shortcut.place
        first = part.name in {"stage2.1", "stage3.1"}
        assert (place.stride, place.features) == (1 + first, place.channels * (1 + first))


def test_each_slot_is_asked_once_with_where_it_stands() -> None:
    asked: list[tuple[object, ...]] = []

    def slot(*where: object) -> Design:
        asked.append(where)
        return parse("PW" if where[0] == "stage1.1" else "DW+PW")

    net = fog(slot, input=(1, 9, 8), classes=2, width=4, blocks=(1, 2))
    assert asked == [
        ("stage1.1", 4, 4, 9, 8, 1),
        ("stage2.1", 4, 8, 9, 8, 2),
        ("stage2.2", 8, 8, 5, 4, 1),
    ]
    assert [str(part.design) for part in net.blocks()] == ["PW", "DW+PW", "DW+PW"]


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (15, 16), (65, 64), (70, 9)])
@pytest.mark.parametrize("text", ["DW+PW", "PW+PW@2", "GC(2,k=5,d=2)+PWG(2)"])
def test_the_shapes_foretold_are_those_of_torch(size: tuple[int, int], text: str) -> None:
    net = network(text, input=(2, *size), width=4, blocks=(1, 1, 1))
    shapes = []
    module = net.module().eval()
    for part in module:
        part.register_forward_hook(lambda _, given, out: shapes.append(tuple(out.shape[1:])))
    module(torch.zeros(1, 2, *size))
    foretold = [(p.exit.features, p.exit.out_height, p.exit.out_width) for p in net.parts[:-1]]
    assert shapes == [*foretold, (10,)]


# ---- the block -----------------------------------------------------------------------------------


def test_normalisation_follows_each_operator_and_relu_only_the_sum() -> None:
    part = block("b", parse("PWG(4)+DW+PWG(4)@1/4"), 32, 64, 8, 8, 2)
    assert [type(step.item) for step in part.body] == [
        PointwiseGroup,
        BatchNorm,
        Shuffle,
        Depthwise,
        BatchNorm,
        PointwiseGroup,
        BatchNorm,
    ]
    assert [type(step.item) for step in part.after] == [ReLU]
    assert part.shortcut is not None
    assert type(part.shortcut.item) is Shortcut


def test_inner_activations_follow_the_operators_asked_for() -> None:
    part = block("b", parse("PW+DW+PW@6"), 4, 4, 8, 8, inner=(0, 1))
    kinds = [type(step.item).__name__ for step in part.body]
    assert (
        " ".join(kinds) == "Pointwise BatchNorm ReLU Depthwise BatchNorm ReLU Pointwise BatchNorm"
    )


def test_a_block_that_cannot_stand_is_named() -> None:
    with pytest.raises(DesignError, match=r"^stage1\.1: GC\(3\): 3 groups do not divide 8"):
        network("GC(3)+PW")
    with pytest.raises(DesignError, match=r"^stage2\.1: DW has no operator that can map 8 to 16"):
        network("DW")
    with pytest.raises(DesignError, match=r"^stage1\.1: .* names a family"):
        network("GC+PWG")


def built(text: str, channels: int, features: int, stride: int) -> tuple[Part, nn.Module]:
    part = block("b", parse(text), channels, features, 7, 5, stride)
    return part, part.module().eval()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("channels", "features"), [(6, 6), (4, 8), (8, 4), (4, 5)])
def test_the_shortcut_is_mean_and_zero_channels_and_nothing_else(
    channels: int, features: int, stride: int
) -> None:
    _, module = built("DW+PW", channels, features, stride)
    x = torch.randn(2, channels, 7, 5)
    mean = functional.avg_pool2d(x, stride, ceil_mode=True)
    expected = torch.zeros(2, features, *mean.shape[2:])
    kept = min(channels, features)
    expected[:, :kept] = mean[:, :kept]
    assert torch.equal(module.get_submodule("shortcut")(x), expected)
    assert not list(module.get_submodule("shortcut").parameters())
    body = module.get_submodule("body")
    assert torch.equal(module(x), torch.relu(body(x) + expected))


def test_the_mean_of_a_cut_window_is_over_what_is_there() -> None:
    _, module = built("DW+PW", 2, 2, 2)
    x = torch.randn(1, 2, 7, 5)
    last = module.get_submodule("shortcut")(x)[0, :, -1, -1]
    assert torch.equal(last, x[0, :, 6, 4])


def test_a_design_that_cannot_stride_is_pooled_first() -> None:
    part, module = built("PW+PW@2", 4, 8, 2)
    assert [type(step.item).__name__ for step in part.body[:2]] == ["AveragePool", "Pointwise"]
    assert part.body[1].place.out_pixels == 4 * 3
    assert module(torch.zeros(1, 4, 7, 5)).shape == (1, 8, 4, 3)


# ---- the weights ---------------------------------------------------------------------------------


def test_initialisation_is_decided_by_the_seed() -> None:
    net = network("GC(4)+PW")

    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [p.detach() for p in net.module().parameters()]

    one, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_initialisation_is_he_normal_by_fan_in_of_the_group() -> None:
    torch.manual_seed(0)
    module = network("GC(4)+PW", width=64, blocks=(2,)).module()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            count = layer.weight.numel()
            assert layer.weight.var().item() == pytest.approx(
                2 / fan_in, rel=5 * (2 / count) ** 0.5
            )
        elif isinstance(layer, nn.Linear):
            assert not layer.bias.any()
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.2)
