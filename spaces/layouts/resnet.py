"""Residual networks for small and for large images, ResNeXt, and their structured versions.

A basic block is two 3 x 3 convolutions; a bottleneck is a 1 x 1, a 3 x 3 and a 1 x 1. Batch
normalisation follows each, and the block's input is added before the last ReLU. Where a later
stage begins, the map is halved and the width doubles.

- Small images (depths 20, 32, 44, 56, 110): a 3 x 3 stem of 16 channels, three stages; a shortcut
  that changes the shape leaves pixels out and adds zero channels (option A).
- Large images (18, 34, 50, 101, 152): a 7 x 7 stem of 64 channels at stride 2 and a pool, four
  stages; such a shortcut is a 1 x 1 convolution. In a bottleneck the 3 x 3 convolution strides,
  in the configurations `-v1` the first 1 x 1.

Sources: He et al. 2016, "Deep residual learning for image recognition", sections 3.3 and 4.2;
Xie et al. 2017, "Aggregated residual transformations", Table 1; Structured Convolutions (Bhalgat
et al. 2020), Tables 1 and 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.fixed import MaxPool, Shortcut
from spaces.items import Subsample
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots
from spaces.structured_versions import RESNETS

Block = Callable[[Drawing, str, Map, int, int], Map]
"""(drawing, name, input, channels of the stage, stride) -> output."""

SMALL = {str(6 * blocks + 2): (blocks,) * 3 for blocks in (3, 5, 7, 9, 18)}
LARGE = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
LARGE |= {"152": (3, 8, 36, 3), "50-v1": LARGE["50"], "101-v1": LARGE["101"]}
BASIC = ("18", "34", *SMALL)


def small(drawing: Drawing, blocks: tuple[int, ...]) -> Map:
    """The network for small images up to its last map."""
    x = drawing.convolution("stem", drawing.input, 16)
    return _stages(drawing, x, 16, blocks, partial(basic, widen=padded))


def large(drawing: Drawing, blocks: tuple[int, ...], block: Block) -> Map:
    """The network for large images up to its last map."""
    x = drawing.convolution("stem", drawing.input, 64, "STD(k=7)", stride=2)
    x = drawing.item("pool", x, Step(MaxPool(), x.place(stride=2), None))
    return _stages(drawing, x, 64, blocks, block)


def _stages(drawing: Drawing, x: Map, channels: int, blocks: tuple[int, ...], block: Block) -> Map:
    for stage, count in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = block(drawing, f"stage{stage}.{index}", x, channels << (stage - 1), stride)
    return x


def basic(
    drawing: Drawing, name: str, x: Map, channels: int, stride: int, *, widen: Block | None = None
) -> Map:
    """Two 3 x 3 convolutions; `widen` makes the shortcut where the shape changes."""
    layers = (f"{name}.conv1", f"{name}.conv2")
    y = drawing.convolution(layers[0], x, channels, stride=stride)
    y = drawing.convolution(layers[1], y, channels, activation=None, behind=layers[:1])
    return _added(drawing, name, x, y, layers, stride, widen or projected)


def bottleneck(
    drawing: Drawing,
    name: str,
    x: Map,
    channels: int,
    stride: int,
    *,
    spatial: str = "STD",
    width: int = 1,
    early: bool = False,
) -> Map:
    """A 1 x 1 convolution to `width` times the stage's channels, a `spatial` one, and a 1 x 1 one
    to 4 times the stage's channels. early: the first strides, not the spatial one."""
    strides = (stride, 1) if early else (1, stride)
    layers = (f"{name}.conv1", f"{name}.conv2", f"{name}.conv3")
    y = drawing.convolution(layers[0], x, width * channels, "PW", strides[0])
    y = drawing.convolution(layers[1], y, width * channels, spatial, strides[1], behind=layers[:1])
    y = drawing.convolution(layers[2], y, 4 * channels, "PW", activation=None, behind=layers[:2])
    return _added(drawing, name, x, y, layers, stride, projected)


def _added(
    drawing: Drawing, name: str, x: Map, y: Map, layers: tuple[str, ...], stride: int, widen: Block
) -> Map:
    """y plus x, or what `widen` makes of x where their shapes differ."""
    same = x.place() == y.place()
    shortcut = None if same else widen(drawing, f"{name}.shortcut", x, y.channels, stride)
    return drawing.residual(name, x, y, layers, shortcut)


def projected(drawing: Drawing, name: str, x: Map, channels: int, stride: int) -> Map:
    """A 1 x 1 convolution with batch normalisation."""
    return drawing.convolution(name, x, channels, "PW", stride, activation=None)


def padded(drawing: Drawing, name: str, x: Map, channels: int, stride: int) -> Map:
    """Every stride-th pixel, new channels zero: no parameters."""
    kept = Step(Subsample(), x.place(stride=stride), None)
    place = kept.place
    wider = Map(x.source, x.channels, place.out_height, place.out_width).place(channels)
    return drawing.item(name, x, kept, Step(Shortcut(), wider, None))


def resnet(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """A depth, or a structured version: a depth and what replaces its convolutions.

    A design alone replaces every 3 x 3 convolution behind the stem.
    """
    depth, rules = RESNETS.get(configuration, (configuration, ()))
    slots = Slots((*rules, *arguments), "stage*.conv?" if depth in BASIC else "stage*.conv2")
    drawing = Drawing(input, slots)
    if depth in SMALL:
        x = small(drawing, SMALL[depth])
    else:
        block = basic if depth in BASIC else partial(bottleneck, early=depth.endswith("-v1"))
        x = large(drawing, LARGE[depth], block)
    drawing.head(x, classes)
    return drawing.network(classes)


def resnext(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """32 groups of 4 channels in the first stage; a design alone replaces the 3 x 3 ones."""
    drawing = Drawing(input, Slots(arguments, "stage*.conv2"))
    block = partial(bottleneck, spatial="GC(32)", width=2)
    drawing.head(large(drawing, LARGE[configuration], block), classes)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "ResNet",
        (*SMALL, *LARGE, *RESNETS),
        "ResNet(18, STRUCT(c=1,n=2)) or ResNet(50, stage1.*.conv2=DW, head=STRUCT(k=1))",
        "He et al. 2016; Structured Convolutions, Tables 1 and 3",
        resnet,
    ),
    Layout(
        "ResNeXt",
        ("50", "101"),
        "ResNeXt(50, DW)",
        "Xie et al. 2017, Table 1",
        resnext,
    ),
)
