"""HRNet: branches of several resolutions that exchange their maps, for one label a pixel.

A stage has one branch more than the stage before, half as large and twice as wide; each of its
modules runs two residual blocks on every branch and then adds to each what the others say: finer
ones through 3 x 3 convolutions of stride 2, coarser ones through a 1 x 1 convolution and
interpolation. The scores come from all branches at the finest size, and are interpolated to the
image's.

Source: Wang et al. 2020, "Deep high-resolution representation learning for visual recognition",
sections 3 and 4 (HRNetV2-W18, in the small version 2 of its code: modules 1, 3, 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.items import Resized, Upsample
from spaces.layout import Layout
from spaces.layouts.resnet import basic, bottleneck
from spaces.network import Network
from spaces.slots import Slots
from spaces.structured_versions import HRNETS

MODULES: Mapping[str, tuple[int, ...]] = {"W18-Small-v2": (1, 3, 2)}
"""Modules in stages 2, 3, 4."""

WIDTH = 18
BLOCKS = 2


def hrnet(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """(C, H, W) -> (classes, H, W); a design alone replaces the 3 x 3 ones of every branch."""
    version, rules = HRNETS.get(configuration, (configuration, ()))
    drawing = Drawing(input, Slots((*rules, *arguments), "stage*.branch*"))
    x = drawing.convolution("stem1", drawing.input, 64, stride=2)
    x = drawing.convolution("stem2", x, 64, stride=2)
    for index in range(1, BLOCKS + 1):
        x = bottleneck(drawing, f"stage1.{index}", x, 64, 1)
    branches = [drawing.convolution("transition2.1", x, WIDTH)]
    coarsest = x
    for stage, modules in enumerate(MODULES[version], start=2):
        width = WIDTH << (stage - 1)
        new = drawing.convolution(f"transition{stage}.{stage}", coarsest, width, stride=2)
        branches.append(new)
        for index in range(1, modules + 1):
            branches = _module(drawing, f"stage{stage}.{index}", branches)
        coarsest = branches[-1]
    _scores(drawing, branches, classes)
    return drawing.network(classes)


def _module(drawing: Drawing, name: str, branches: Sequence[Map]) -> list[Map]:
    """Residual blocks on every branch, then the exchange."""
    maps = []
    for number, x in enumerate(branches, start=1):
        for index in range(1, BLOCKS + 1):
            x = basic(drawing, f"{name}.branch{number}.{index}", x, x.channels, 1)
        maps.append(x)
    every = range(len(maps))
    return [
        drawing.sum(f"{name}.sum{to + 1}", *(_sent(drawing, name, maps, i, to) for i in every))
        for to in every
    ]


def _sent(drawing: Drawing, name: str, maps: Sequence[Map], source: int, to: int) -> Map:
    """What a branch says to another, in the shape of the other."""
    x, target = maps[source], maps[to]
    way = f"{source + 1}to{to + 1}"
    if source > to:
        x = drawing.convolution(f"{name}.up{way}", x, target.channels, "PW", activation=None)
        return _resized(drawing, f"{name}.resize{way}", x, target)
    for step in range(source + 1, to + 1):
        down = f"{name}.down{way}.{step - source}"
        if step == to:
            x = drawing.convolution(down, x, target.channels, stride=2, activation=None)
        else:
            x = drawing.convolution(down, x, x.channels, stride=2)
    return x


def _resized(drawing: Drawing, name: str, x: Map, like: Map) -> Map:
    """Interpolated to the size of another map."""
    place = Resized(x.channels, x.channels, x.height, x.width, 1, like.height, like.width)
    return drawing.item(name, x, Step(Upsample(), place, None))


def _scores(drawing: Drawing, branches: Sequence[Map], classes: int) -> None:
    """All branches at the finest size, a 1 x 1 convolution, one to the classes."""
    finest, *others = branches
    same = [
        _resized(drawing, f"head.resize{number}", x, finest)
        for number, x in enumerate(others, start=2)
    ]
    x = drawing.concatenation("head.maps", finest, *same)
    x = drawing.convolution("head.mix", x, x.channels, "PW", bias=True)
    x = drawing.convolution("head.scores", x, classes, "PW", norm=False, bias=True, activation=None)
    _resized(drawing, "head.labels", x, drawing.input)


LAYOUTS = (
    Layout(
        "HRNetV2",
        (*MODULES, *HRNETS),
        "HRNetV2(W18-Small-v2) or HRNetV2(W18-Small-v2, DW+PW)",
        "Wang et al. 2020; Structured Convolutions, Table 5",
        hrnet,
    ),
)
