"""Every layout of `spaces/layouts/`: it builds for any input, takes any operator, and says what
is valid where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.cost import network_cost
from spaces.chain import Chain
from spaces.design import parse
from spaces.drawing import Drawing, Map
from spaces.fixed import AveragePool, BatchNorm, ReLU
from spaces.layout import known_layouts, network
from spaces.layouts.lean import CONFIGURATIONS as LEAN
from spaces.layouts.mobilenet_v2 import CONFIGURATIONS as MOBILE
from spaces.layouts.mobilenet_v2 import multiple_of_8
from spaces.layouts.shufflenet_v2 import CONFIGURATIONS as SHUFFLE
from spaces.mobile import ReLU6, Slice
from spaces.network import Network
from spaces.operator import DesignError
from spaces.operators.lean import Lean
from spaces.place import Place
from spaces.slots import Slots
from spaces.vocabulary import vocabulary

SEGMENTATION = ("UNet", "DeepLabV3", "HRNetV2")
INPUTS = [
    (1, 33, 47),
    pytest.param((3, 32, 32), marks=pytest.mark.slow),
    pytest.param((3, 64, 49), marks=pytest.mark.slow),
]


def meta(net: Network) -> nn.Module:
    with torch.device("meta"):
        return net.module().eval()


@torch.no_grad()
def scores(net: Network) -> tuple[int, ...]:
    """The shape of the scores of two images."""
    return tuple(meta(net)(torch.empty(2, *net.input, device="meta")).shape)


def expected(name: str, net: Network) -> tuple[int, ...]:
    plane = net.input[1:] if name in SEGMENTATION else ()
    return (2, net.classes, *plane)


# ---- all layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(known_layouts()))
def test_a_layout_names_its_source_and_shows_how_it_is_written(name: str) -> None:
    layout = known_layouts()[name]
    assert layout.source
    for usage in layout.usage.split(" or "):
        net = network(usage, (3, 64, 64), 7)
        assert scores(net) == expected(name, net)


@pytest.mark.parametrize("name", sorted(set(known_layouts()) - {"Factorized", "VGG"}))
@pytest.mark.parametrize("shape", INPUTS)
def test_a_layout_builds_for_any_input_and_costs_what_torch_counts(
    name: str, shape: tuple[int, int, int]
) -> None:
    net = network(f"{name}({known_layouts()[name].configurations[0]})", shape, 5)
    assert scores(net) == expected(name, net)
    module, found = meta(net), network_cost(net)
    assert found.params == sum(p.numel() for p in module.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, *shape, device="meta"))
    assert found.mults == counter.get_total_flops() // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(known_layouts()))
def test_every_configuration_builds(name: str) -> None:
    for configuration in known_layouts()[name].configurations:
        net = network(f"{name}({configuration})", (3, 224, 224), 10)
        found = network_cost(net)
        assert found.params == sum(p.numel() for p in meta(net).parameters())


@pytest.mark.parametrize("name", sorted(known_layouts()))
def test_an_unknown_configuration_is_refused_with_the_valid_ones(name: str) -> None:
    layout = known_layouts()[name]
    with pytest.raises(DesignError, match=r"no configuration 'Nought'; valid are ") as error:
        network(f"{name}(Nought)", (3, 32, 32), 10)
    assert all(configuration in str(error.value) for configuration in layout.configurations)


# ---- any operator --------------------------------------------------------------------------------

HOSTS = ["LeanResNet(Res24, {})", "LowCost(A, {})", "LowCostPlain(A, {})", "UNet(small, {})"]
OPERATORS = [
    str(op) for cls in vocabulary().values() for op in cls.examples()[:2] if not op.is_open
]


@pytest.mark.parametrize(
    "host",
    [HOSTS[0], HOSTS[-1], *(pytest.param(host, marks=pytest.mark.slow) for host in HOSTS[1:3])],
)
def test_any_operator_stands_in_place_of_the_convolutions(host: str) -> None:
    """One that needs more or other channels than there are says so, naming the part."""
    stood = set()
    for text in OPERATORS:
        try:
            net = network(host.format(text), (3, 16, 12), 3)
        except DesignError as error:
            assert str(error).startswith(("stage", "block", "up")), text
            continue
        assert scores(net) == expected(host.partition("(")[0], net), text
        assert network_cost(net).params == sum(p.numel() for p in meta(net).parameters()), text
        stood |= {type(op) for op in parse(text).operators}
    wanted = {cls for cls in vocabulary().values() if cls.resizes or host != HOSTS[-1]}
    assert stood >= wanted


@pytest.mark.parametrize("text", ["GC(4)+PWG(2)", "DW+PW", "PWG(4)+DW+PWG(4)@1/4", "LEAN(q=4,s=5)"])
@pytest.mark.parametrize(
    "host",
    [*HOSTS, "LeanResNet(Res18, {})", "DeepLabV3(Res18, {})", "LeanResNeXt(Res34, {})"],
)
def test_any_design_stands_in_place_of_the_convolutions(host: str, text: str) -> None:
    net = network(host.format(text), (3, 32, 32), 3)
    assert scores(net) == expected(host.partition("(")[0], net)
    assert any(str(part.design) == text for part in net.blocks())


@pytest.mark.parametrize(
    "text", ["LeanResNet(Res24-narrow, LEAN(g=4,s=3))", "LowCost(A, IRD)", "UNet(small, stage*=RD)"]
)
def test_a_network_trains(text: str) -> None:
    torch.manual_seed(0)
    net = network(text, (3, 16, 16), 4)
    module = net.module().train()
    module(torch.randn(2, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


# ---- LeanResNet ----------------------------------------------------------------------------------


def test_the_three_point_stencil_alternates_within_a_step() -> None:
    """K1 goes along the rows, K2 along the columns. LeanConvNets, section III-C."""
    net = network("LeanResNet(Res24, LEAN(g=8,s=3))", (3, 32, 32), 10)
    for part in net.parts:
        stencils = [s.item.stencil for s in part.body if isinstance(s.item, Lean)]
        assert stencils in ([], ["1x3", "3x1"])


def test_the_channels_double_between_stages_or_within_the_first_step() -> None:
    between = network("LeanResNet(Res24)", (3, 32, 32), 10)
    names = [part.name for part in between.parts]
    assert names[3:7] == ["connect1", "connect1.both", "connect1.pool", "stage2.1"]
    within = network("LeanResNet(Res18)", (3, 32, 32), 10)
    path = next(part for part in within.parts if part.name == "stage2.1.path")
    kinds = [type(step.item) for step in path.body]
    convolution = type(parse("STD").operators[0])
    step = [BatchNorm, ReLU, convolution]
    assert kinds == [*step, AveragePool, *step]
    assert [s.place.height for s in path.body if isinstance(s.item, convolution)] == [32, 16]


def test_a_time_step_stands_in_place_of_the_whole_step() -> None:
    net = network("LowCost(A, RD)", (3, 32, 32), 10)
    step = next(part for part in net.parts if part.name == "block1.1")
    assert len(step.body) == 1
    assert step.shortcut is None


def test_an_operator_that_keeps_the_width_cannot_widen_and_says_where() -> None:
    with pytest.raises(DesignError, match=r"stage2\.1\.path: DW has no operator that can map"):
        network("LeanResNet(Res18, DW)", (3, 32, 32), 10)


def test_groups_that_do_not_divide_name_part_and_valid_numbers() -> None:
    with pytest.raises(DesignError, match=r"stage1\.1: LEAN\(g=5\).*valid group numbers are 1, 2"):
        network("LeanResNet(Res24, LEAN(g=5))", (3, 32, 32), 10)


def test_the_connector_is_a_slot_too() -> None:
    depthwise = network_cost(network("LeanResNet(Res24)", (3, 32, 32), 10))
    dense = network_cost(network("LeanResNet(Res24, connect*=PW)", (3, 32, 32), 10))
    widths = LEAN["Res24"].widths[:-1]
    assert dense.params - depthwise.params == sum(w * w - 9 * w for w in widths)


# ---- the compact rivals --------------------------------------------------------------------------


def test_small_images_keep_their_map_longer() -> None:
    def sides(text: str) -> list[int]:
        parts = network(text, (3, 64, 64), 10).parts
        return sorted({p.exit.out_height for p in parts if p.exit.out_pixels > 1}, reverse=True)

    assert sides("MobileNetV2(1.0)") == [32, 16, 8, 4, 2]
    assert sides("MobileNetV2(1.0-small)") == [64, 32, 16, 8]
    assert sides("ShuffleNetV2(1.0x-small)") == [64, 32, 16]
    assert set(MOBILE) > {"1.4", "Res24*"}
    assert set(SHUFFLE) > {"0.5x", "2.0x-tiny"}


def test_widths_of_mobilenet_are_multiples_of_8() -> None:
    assert [multiple_of_8(w) for w in (3.9, 12, 33.6, 22.4, 10.9)] == [8, 16, 32, 24, 16]


def test_a_shuffle_unit_passes_half_of_the_channels() -> None:
    net = network("ShuffleNetV2(0.5x-small)", (3, 16, 16), 10)
    torch.manual_seed(0)
    x = torch.randn(1, 48, 16, 16)
    parts = {part.name: part for part in net.parts}
    passed = parts["stage2.2.pass"].module()(x)
    assert torch.equal(passed, x[:, :24])
    assert torch.equal(parts["stage2.2.take"].module()(x), x[:, 24:])


# ---- what they are made of -----------------------------------------------------------------------


def test_a_slice_reads_the_channels_that_it_takes(dependency: object) -> None:
    place = Place(5, 2, 3, 2)
    needed = torch.eye(12).bool().numpy().reshape(12, 2, 3, 2)
    read = Slice(1).reads(needed, place).reshape(2, 3, 2, 5, 3, 2)
    assert (read == dependency(Slice(1).module(place), (5, 3, 2))).all()  # type: ignore[operator]
    assert Slice(4).why_invalid(place) == "SLICE: channels 4 to 5 of 5 do not exist"


def test_relu6_is_bounded() -> None:
    module = ReLU6().module(Place(1, 1, 1, 3))
    assert module(torch.tensor([-1.0, 3.0, 9.0])).tolist() == [0, 3, 6]


def test_a_chain_names_its_part_where_an_item_cannot_stand() -> None:
    x = Map("input", 6, 8, 8)
    with pytest.raises(DesignError, match="here: RELU cannot map 6 to 7 channels"):
        Chain("here", x).add(ReLU(), 7)
    with pytest.raises(DesignError, match=r"here: GC\(4\).*valid group numbers are 1, 2, 3, 6"):
        Chain("here", x).design(parse("GC(4)+PW"))


def test_a_chain_normalises_between_the_operators_of_a_design() -> None:
    chain = Chain("here", Map("input", 8, 4, 4)).design(parse("GC(4)+PWG(2)"), 16)
    symbols = [step.item.symbol for step in chain.steps]
    assert symbols == ["GC", "BN", "SHUFFLE", "PWG"]
    assert chain.end == Map("input", 16, 4, 4)


def test_a_drawing_takes_a_part_of_ones_own() -> None:
    drawing = Drawing((3, 8, 8), Slots((), "*"))
    x = drawing.convolution("stem", drawing.input, 8)
    y = drawing.add(Chain("own", x).norm().design(parse("DW")).part(parse("DW"), shortcut=True))
    drawing.head(y, 2)
    assert scores(drawing.network(2)) == (2, 2)
