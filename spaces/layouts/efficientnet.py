"""EfficientNet: inverted bottlenecks with squeeze-and-excitation.

A block widens by 1 x 1, filters each channel, scales each by what the means of all say, and
narrows by 1 x 1; the input is added where the shape stays. B1 has more blocks than B0.

Source: Tan and Le 2019, EfficientNet, Table 1; Hu et al. 2018, "Squeeze-and-excitation networks".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from spaces.activations import Dropout, Sigmoid, SiLU
from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.items import GlobalPool, pooled
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots

SILU = SiLU()


class Stage(NamedTuple):
    """Blocks of B0, their width relative to the input's, channels, kernel size, first stride."""

    blocks: int
    widen: int
    channels: int
    kernel: int
    stride: int


STAGES = (
    Stage(1, 1, 16, 3, 1),
    Stage(2, 6, 24, 3, 2),
    Stage(2, 6, 40, 5, 2),
    Stage(3, 6, 80, 3, 2),
    Stage(3, 6, 112, 5, 1),
    Stage(4, 6, 192, 5, 2),
    Stage(1, 6, 320, 3, 1),
)
DEPTHS: Mapping[str, float] = {"B0": 1.0, "B1": 1.1}
"""How many times B0's blocks, rounded up."""


def efficientnet(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """B0 or B1; a design alone replaces the depthwise filters of every block."""
    drawing = Drawing(input, Slots(arguments, "stage*.filter"))
    x = drawing.convolution("stem", drawing.input, 32, stride=2, activation=SILU)
    for number, stage in enumerate(STAGES, start=1):
        for index in range(1, math.ceil(stage.blocks * DEPTHS[configuration]) + 1):
            stride = stage.stride if index == 1 else 1
            x = block(drawing, f"stage{number}.{index}", x, stage, stride)
    x = drawing.convolution("last", x, 1280, "PW", activation=SILU)
    drawing.head(x, classes, Dropout(0.2))
    return drawing.network(classes)


def block(drawing: Drawing, name: str, x: Map, stage: Stage, stride: int) -> Map:
    """Widen, filter, scale, narrow, and add the input where the shape stays."""
    wide = stage.widen * x.channels
    y = x
    if stage.widen > 1:
        y = drawing.convolution(f"{name}.widen", x, wide, "PW", activation=SILU)
    kernel = "DW" if stage.kernel == 3 else f"DW(k={stage.kernel})"
    y = drawing.convolution(f"{name}.filter", y, wide, kernel, stride, activation=SILU)
    y = excited(drawing, name, y, x.channels // 4)
    y = drawing.convolution(f"{name}.narrow", y, stage.channels, "PW", activation=None)
    if x.place() != y.place():
        return y
    return drawing.sum(name, y, x, activation=None)


def excited(drawing: Drawing, name: str, x: Map, inner: int) -> Map:
    """Each channel times a number in 0 to 1 that two dense layers make of the means of all."""
    pool = Step(GlobalPool(), pooled(x.channels, x.height, x.width), None)
    scale = drawing.item(f"{name}.means", x, pool)
    scale = drawing.convolution(
        f"{name}.squeeze", scale, inner, "PW", norm=False, bias=True, activation=SILU
    )
    scale = drawing.convolution(
        f"{name}.excite", scale, x.channels, "PW", norm=False, bias=True, activation=Sigmoid()
    )
    return drawing.scaled(f"{name}.scaled", x, scale)


LAYOUTS = (
    Layout(
        "EfficientNet",
        tuple(DEPTHS),
        "EfficientNet(B0) or EfficientNet(B0, SHIFT)",
        "Tan and Le 2019, Table 1",
        efficientnet,
    ),
)
