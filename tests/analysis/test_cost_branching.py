"""Memory and traffic of networks that branch, against what hooks on the modules see."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from analysis.cost import network_cost
from spaces import modules
from spaces.design import Step, parse
from spaces.drawing import Drawing
from spaces.items import GlobalPool, pooled
from spaces.layout import network
from spaces.network import Network
from spaces.slots import Slots

IN_PLACE = (
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Sigmoid,
    nn.ChannelShuffle,
    nn.Flatten,
    modules.Slice,
    modules.Bias,
)
"""Modules that write over their input, if nobody else reads it."""


class Event(NamedTuple):
    """One module at work: what it reads, what it makes."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    in_place: bool


class Watch:
    """The modules of a network in the order in which they work, on the meta device."""

    def __init__(self, net: Network) -> None:
        self.events: list[Event] = []
        self.moved = 0
        with torch.device("meta"), torch.no_grad():
            parts = [part.module().eval() for part in net.parts]
            for part in parts:
                self.watch(part)
            self.input = torch.empty(1, *net.input)
            modules.Graph(parts, [*net.wiring])(self.input)

    def watch(self, part: Any) -> None:
        for item in (part.merge, *part.body, part.shortcut, *part.after):
            if item is not None:
                item.register_forward_hook(self.note)
        if part.shortcut is not None:
            ends: dict[str, Tensor] = {}
            part.body.register_forward_hook(lambda _, __, y: ends.update(body=y))
            part.shortcut.register_forward_hook(lambda _, __, s: ends.update(shortcut=s))
            part.after.register_forward_pre_hook(
                lambda _, given: self.events.append(
                    Event((ends["body"], ends["shortcut"]), given[0], True)
                )
            )
        part.register_forward_hook(self.leave)

    def note(self, item: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if all(output is not one for one in inputs):
            self.events.append(Event(inputs, output, isinstance(item, IN_PLACE)))

    def leave(self, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.moved += sum(one.numel() for one in inputs) + output.numel()
        layers = [item for item in part.modules() if not isinstance(item, nn.BatchNorm2d)]
        self.moved += sum(p.numel() for item in layers for p in item.parameters(recurse=False))

    def peak(self) -> int:
        """The most numbers that are waiting for a reader, or being made, at one event."""
        last = {id(one): t for t, event in enumerate(self.events) for one in event.inputs}
        last[id(self.events[-1].output)] = len(self.events)
        buffer = {id(self.input): 0}
        size, born, dies = [self.input.numel()], [0], [last[id(self.input)]]
        for t, event in enumerate(self.events):
            source = event.inputs[0]
            if event.in_place and last[id(source)] == t:
                own = buffer[id(source)]
            else:
                own = len(size)
                size.append(0)
                born.append(t)
                dies.append(t)
            buffer[id(event.output)] = own
            size[own] = max(size[own], event.output.numel())
            dies[own] = max(dies[own], last.get(id(event.output), t))
        lives = list(zip(size, born, dies, strict=True))
        return max(
            sum(n for n, first, end in lives if first <= t <= end) for t in range(len(self.events))
        )


def branching() -> Network:
    """A long branch that waits for a short one, a gate, a concatenation of three."""
    drawing = Drawing((3, 12, 10), Slots((), "*"))
    x = drawing.convolution("stem", drawing.input, 8)
    short = drawing.convolution("short", x, 6, "PW")
    long = drawing.convolution("long1", x, 24, "PW")
    long = drawing.convolution("long2", long, 6, "DW+PW")
    total = drawing.sum("sum", long, short)
    pool = Step(GlobalPool(), pooled(6, total.height, total.width), None)
    gate = drawing.convolution("gate", drawing.item("pool", total, pool), 6, "PW")
    scaled = drawing.scaled("scaled", total, gate)
    both = drawing.concatenation("both", scaled, x, short)
    drawing.head(drawing.convolution("end", both, 4, "PW"), 3)
    return drawing.network(3)


def test_by_hand() -> None:
    """While `long2` filters its 24 channels, the stem's 8 and the 6 of `short` wait."""
    assert network_cost(branching()).peak_activation_bytes == 4 * 12 * 10 * (8 + 6 + 24 + 24)


def test_a_map_stays_until_its_last_reader() -> None:
    drawing = Drawing((2, 4, 4), Slots((), "*"))
    x = drawing.convolution("stem", drawing.input, 2, "PW")
    y = drawing.convolution("wide", x, 10, "PW")
    y = drawing.convolution("narrow", y, 2, "PW")
    chain = drawing.network(2)
    drawing.sum("sum", x, y)
    pixels = 4 * 16
    assert network_cost(chain).peak_activation_bytes == pixels * (2 + 10)
    assert network_cost(drawing.network(2)).peak_activation_bytes == pixels * (2 + 2 + 10)


NETWORKS = {
    "branching": branching,
    **{
        text: (lambda text=text: network(text, (3, 32, 40), 5))
        for text in (
            "LeanResNet(Res24, LEAN(g=16,s=5))",
            "LeanResNet(Res18, STD)",
            "LowCost(A, LINEARMIX)",
            "LowCostPlain(A, DW+PW)",
            "MobileNetV2(1.0)",
            "ShuffleNetV2(0.5x-small)",
            "ShiftResNet(20)",
            "UNet(small, LEAN(g=8,s=5))",
            "DeepLabV3(MobileNetV2)",
            "ResNet(18)",
        )
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_peak_and_traffic_are_what_hooks_see(name: str) -> None:
    net = NETWORKS[name]()
    watch, found = Watch(net), network_cost(net)
    assert found.peak_activation_bytes == 4 * watch.peak()
    assert found.traffic_bytes_fused == 4 * watch.moved


def test_the_part_after_a_merge_is_fused_from_all_its_sources() -> None:
    design = parse("PW")
    drawing = Drawing((4, 3, 3), Slots((), "*"))
    x = drawing.convolution("a", drawing.input, 4, str(design))
    drawing.sum("sum", drawing.input, x)
    cost = network_cost(drawing.network(4))
    assert cost.traffic_bytes_fused == 4 * ((4 + 4) * 9 + 16 + (4 + 4 + 4) * 9)
