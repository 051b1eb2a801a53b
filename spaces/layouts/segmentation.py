"""Semantic segmentation: a class score for each pixel, (N, C, H, W) -> (N, classes, H, W).

- `UNet`: from the deepest stage on, a convolution to the width of the stage before, bilinear
  upsampling, the stage's own map beside it, a convolution of both. The paper leaves its decoder
  open; this one is ours.
- `DeepLabV3`: on the last map a 1 x 1, three 3 x 3 at dilation 6, 12, 18 and the pooled image,
  each to 256 channels (ASPP); their 1 x 1, the scores, bilinear upsampling.

Sources: LeanConvNets, section IV-B, Tables V and VI; Ronneberger et al. 2015, "U-net"; Chen et
al. 2017, "Rethinking atrous convolution", section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.items import GlobalPool, Resized, Upsample, pooled
from spaces.layout import Layout
from spaces.layouts import lean, mobilenet_v2, resnet, shiftnet, shufflenet_v2
from spaces.network import Network
from spaces.slots import Slots

DEPTH = 256
"""Channels of each branch of the ASPP module."""

RATES = (6, 12, 18)


class Backbone(NamedTuple):
    """stages: draws the network without its head, and gives the map at the end of each stage.
    main: the convolutions for which a bare design stands."""

    stages: Callable[[Drawing], tuple[Map, ...]]
    main: str


def lean_backbone(configuration: lean.Configuration) -> Backbone:
    return Backbone(lambda drawing: lean.lean_stages(drawing, configuration), "*.K?")


def mobile_backbone(configuration: mobilenet_v2.Configuration) -> Backbone:
    return Backbone(lambda d: mobilenet_v2.mobile_stages(d, configuration), "block*.spatial")


def shuffle_backbone(configuration: shufflenet_v2.Configuration) -> Backbone:
    return Backbone(lambda d: shufflenet_v2.shuffle_stages(d, configuration), "*.spatial")


def shift_backbone(configuration: shiftnet.Configuration) -> Backbone:
    return Backbone(lambda d: shiftnet.shift_stages(d, configuration), "stage*.spatial")


def resnet34(drawing: Drawing) -> tuple[Map, ...]:
    """The last stage keeps the map, so that the network halves it four times."""

    def block(drawing: Drawing, name: str, x: Map, channels: int, stride: int) -> Map:
        own = 1 if name.startswith("stage4") else stride
        return resnet.basic(drawing, name, x, channels, own)

    return (resnet.large(drawing, resnet.LARGE["34"], block),)


def _narrow_mobile() -> mobilenet_v2.Configuration:
    widths, blocks, strides = (32, 64, 128, 256), (1, 2, 3, 2), (1, 2, 2, 2)
    stages = zip(widths, blocks, strides, strict=True)
    own = tuple(mobilenet_v2.Stage(6, *stage) for stage in stages)
    return mobilenet_v2.Configuration(32, 1, own, 0)


def _dense_mobile() -> mobilenet_v2.Configuration:
    """MobileNetV2 1.0 whose last stages keep the map."""
    given = mobilenet_v2.CONFIGURATIONS["1.0"]
    strides = zip(given.stages, (1, 2, 2, 2, 1, 1, 1), strict=True)
    return given._replace(stages=tuple(stage._replace(stride=s) for stage, s in strides))


LEAN = {name: lean_backbone(given) for name, given in lean.CONFIGURATIONS.items()}

UNETS: Mapping[str, Backbone] = {
    "ResNet34": lean_backbone(lean.Configuration((48, 96, 192, 384), (3, 4, 6, 4))),
    "MobileNetV2": mobile_backbone(_narrow_mobile()),
    "ShuffleNetV2": shuffle_backbone(
        shufflenet_v2.Configuration((116, 232, 464), 0, (1, 1, 2, 2, 2), (7, 10, 10))
    ),
    "ShiftResNet": shift_backbone(shiftnet.Configuration((64, 128, 256, 320), (3, 4, 6, 4))),
    "small": lean_backbone(lean.Configuration((16, 32, 64), (1, 1, 1))),
    **LEAN,
}
"""Table V, upper part; `small` for small images; any LeanResNet."""

DEEPLABS: Mapping[str, Backbone] = {
    "ResNet34": Backbone(resnet34, "stage*.conv?"),
    "MobileNetV2": mobile_backbone(_dense_mobile()),
    "ShuffleNetV2": shuffle_backbone(
        shufflenet_v2.CONFIGURATIONS["1.0x"]._replace(strides=(2, 2, 2, 2, 1))
    ),
    **LEAN,
}
"""Table V, lower part; any LeanResNet."""


def unet(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """Convolutions of the decoder: `up3.K1` reduces stage 4 to the width of stage 3, `up3.K2`
    makes one map of both."""
    backbone = UNETS[configuration]
    drawing = Drawing(input, Slots(arguments, backbone.main))
    *skips, x = backbone.stages(drawing)
    own = "STD" if backbone.main == "*.K?" else "DW+PW"
    for level in range(len(skips), 0, -1):
        skip = skips[level - 1]
        x = drawing.convolution(f"up{level}.K1", x, skip.channels, own)
        x = upsampled(drawing, f"up{level}.size", x, skip)
        x = drawing.concatenation(f"up{level}.both", skip, x)
        x = drawing.convolution(f"up{level}.K2", x, skip.channels, own)
    return scored(drawing, x, classes)


def deeplab(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """Convolutions of the decoder: `aspp.point`, `aspp.atrous1` to `3`, `aspp.image`, `project`."""
    backbone = DEEPLABS[configuration]
    drawing = Drawing(input, Slots(arguments, backbone.main))
    x = backbone.stages(drawing)[-1]
    branches = [drawing.convolution("aspp.point", x, DEPTH, "PW")]
    for number, rate in enumerate(RATES, start=1):
        branches.append(drawing.convolution(f"aspp.atrous{number}", x, DEPTH, f"STD(d={rate})"))
    image = drawing.item("aspp.pool", x, Step(GlobalPool(), pooled(*x[1:]), None))
    image = drawing.convolution("aspp.image", image, DEPTH, "PW")
    branches.append(upsampled(drawing, "aspp.size", image, x))
    both = drawing.concatenation("aspp", *branches)
    return scored(drawing, drawing.convolution("project", both, DEPTH, "PW"), classes)


def upsampled(drawing: Drawing, name: str, x: Map, like: Map) -> Map:
    """x at the size of another map, by bilinear interpolation; x itself where it has it."""
    if (x.height, x.width) == (like.height, like.width):
        return x
    place = Resized(x.channels, x.channels, x.height, x.width, 1, like.height, like.width)
    return drawing.item(name, x, Step(Upsample(), place, None))


def scored(drawing: Drawing, x: Map, classes: int) -> Network:
    """A 1 x 1 convolution with bias to the scores, at the size of the input."""
    x = drawing.convolution("score", x, classes, "PW", activation=None, norm=False, bias=True)
    upsampled(drawing, "size", x, drawing.input)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "UNet",
        tuple(UNETS),
        "UNet(Res18, LEAN(g=16,s=5))",
        "LeanConvNets, section IV-B, Table V",
        unet,
    ),
    Layout(
        "DeepLabV3",
        tuple(DEEPLABS),
        "DeepLabV3(ResNet34) or DeepLabV3(Res34, LEAN(g=16,s=5), aspp.atrous?=DW+PW)",
        "LeanConvNets, section IV-B, Tables V and VI",
        deeplab,
    ),
)
