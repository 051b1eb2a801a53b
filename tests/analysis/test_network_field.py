"""What whole networks and rows of items see, against the gradients of the built modules."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from analysis.field import field, field_of_steps
from analysis.network_field import last_map, network_reads, seen
from spaces.chain import Chain
from spaces.design import Step, parse
from spaces.drawing import Drawing, Map
from spaces.fixed import AveragePool
from spaces.items import GlobalPool, pooled
from spaces.layout import network
from spaces.network import Network
from spaces.operator import DesignError
from spaces.slots import Slots

Dependency = Callable[[nn.Module, tuple[int, int, int]], np.ndarray]


def upto(net: Network, name: str) -> Network:
    """The network that ends with this part."""
    names = [part.name for part in net.parts]
    return Network(net.input, net.classes, net.parts[: names.index(name) + 1])


def branching() -> Network:
    """Two branches of different reach, a product with a pooled one, a concatenation."""
    drawing = Drawing((2, 6, 5), Slots((), "*"))
    x = drawing.convolution("stem", drawing.input, 4, "GC(2)")
    a = drawing.convolution("a", x, 4, "DW")
    b = drawing.convolution("b", x, 4, "PWG(2)")
    c = drawing.sum("sum", a, b)
    pool = Step(GlobalPool(), pooled(4, c.height, c.width), None)
    gate = drawing.convolution("gate", drawing.item("pool", c, pool), 4, "PWG(2)")
    d = drawing.scaled("scaled", a, gate)
    drawing.head(drawing.concatenation("both", d, b), 3)
    return drawing.network(3)


@pytest.mark.parametrize("name", ["stem", "sum", "gate", "scaled", "both"])
def test_every_output_of_a_branching_network(name: str, dependency: Dependency) -> None:
    net = branching()
    cut = upto(net, name)
    pattern = dependency(cut.module(), net.input)
    features, rows, columns = pattern.shape[:3]
    for output in range(features):
        for row in range(rows):
            for column in range(columns):
                read = network_reads(net, name, output=output, pixel=(row, column))
                assert np.array_equal(read, pattern[output, row, column])


@pytest.mark.parametrize(
    "text",
    [
        "LeanResNet(Res24-narrow, LEAN(g=4,s=5))",
        "LeanResNet(Res18, LEAN(q=16,s=3))",
        "LowCost(A, LINEARMIX)",
        "ShuffleNetV2(0.5x-small)",
        "UNet(small, LEAN(g=8,s=5))",
    ],
)
def test_the_last_map_of_a_layout(text: str) -> None:
    """One output of it: the gradient of the whole, and the union over branches."""
    net = network(text, (2, 16, 16), 3)
    last = last_map(net)
    cut = upto(net, last.name)
    generator = torch.Generator().manual_seed(0)
    module = cut.module().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.5, 1.5, generator=generator)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, inputs, output: output / output.mean().detach())
    x = torch.empty(1, *net.input, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
    x.requires_grad_()
    out = module(x)
    row, column = out.shape[-2] // 2, out.shape[-1] // 2
    (gradient,) = torch.autograd.grad(out[0, 1, row, column], x)
    assert np.array_equal(network_reads(net, output=1), (gradient[0] != 0).numpy())


def test_figures_of_a_network() -> None:
    net = network("LeanResNet(Res24, LEAN(g=16,s=5))", (3, 32, 32), 10)
    assert last_map(net).name == "stage4.3"
    assert seen(net, "stem") == ((3, 3, 3), 27)
    assert seen(net, "stage1.1").size == (7, 7, 3)


def test_a_part_channel_or_pixel_that_is_not_there_is_refused() -> None:
    net = branching()
    with pytest.raises(ValueError, match="no part 'c'; the parts are stem, a, b"):
        network_reads(net, "c")
    with pytest.raises(ValueError, match=r"4 channels of 6 x 5; there is no channel 4"):
        network_reads(net, "a", output=4)
    with pytest.raises(ValueError, match=r"at \(6, 0\)"):
        network_reads(net, "a", pixel=(6, 0))


# ---- rows of items -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["GC(4)+PWG(2)", "LEAN(g=4,s=3)+LEAN(g=4,s=3)", "DW(d=2)+PW", "IRD"]
)
def test_the_steps_of_a_design_have_its_field(text: str) -> None:
    design = parse(text)
    assert field_of_steps(design.places(16, 16, 3, 3)) == field(design, 16)


def test_two_lean_operators_complete_a_step() -> None:
    """One nine-point lean operator sees its window in its own group alone; K2 after K1 sees all."""
    lean = parse("LEAN(g=4)")
    assert not field(lean, 16).complete
    step = Chain("step", Map("input", 16, 8, 8)).norm().relu().design(lean).norm().design(lean)
    seen_twice = field_of_steps(step.steps)
    assert seen_twice.complete
    assert seen_twice.size == (5, 5, 16)


def test_a_row_that_strides_has_its_window_around_the_right_pixel(dependency: Dependency) -> None:
    chain = Chain("step", Map("input", 4, 12, 12)).design(parse("STD"), 8)
    chain.add(AveragePool(), stride=2).design(parse("STD"))
    described = field_of_steps(chain.steps)
    assert described.size == (8, 8, 4)
    assert described.complete
    pattern = dependency(chain.part().module(), (4, 12, 12))[0, 3, 3]
    assert pattern.sum() == described.volume == 8 * 8 * 4
    assert math.prod(described.extent) == 64


def test_a_pool_over_the_whole_map_has_no_unbounded_field() -> None:
    with pytest.raises(DesignError, match="makes a map of fixed size"):
        field_of_steps([Step(GlobalPool(), pooled(4, 3, 3), None)])
