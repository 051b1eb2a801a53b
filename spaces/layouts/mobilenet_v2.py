"""MobileNetV2: inverted residuals, and LeanMobileNetV2, whose projecting 1 x 1 is lean.

    x + project(relu6(N(spatial(relu6(N(expand(x)))))))    expand: C -> 6 C, without activation at
                                                           the end; the sum where C = F, stride 1

Sources: Sandler et al. 2018, "MobileNetV2", Table 2; LeanConvNets, section IV, Tables II and III.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from spaces.drawing import Drawing, Map
from spaces.layout import Layout
from spaces.mobile import ReLU6
from spaces.network import Network
from spaces.slots import Slots
from spaces.structured_versions import MOBILENETS, Version


class Stage(NamedTuple):
    """`blocks` inverted residuals of width `width`; the first strides."""

    expansion: int
    width: int
    blocks: int
    stride: int


class Configuration(NamedTuple):
    """Width and stride of the stem, the stages, the width of the last 1 x 1 (0: there is none)."""

    stem: int
    stride: int
    stages: tuple[Stage, ...]
    last: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


def multiple_of_8(width: float) -> int:
    """The nearest multiple of 8, at least 8 and not below 90 %.

    >>> [multiple_of_8(1.4 * width) for width in (16, 24, 32)]
    [24, 32, 48]
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def scaled(multiplier: float, *, small: bool = False) -> Configuration:
    """All widths times the multiplier, the last one never narrower than 1280.

    small: stem and first striding stage keep the map, as LeanConvNets, Table II, has it.
    """
    stages = tuple(
        stage._replace(
            width=multiple_of_8(multiplier * stage.width),
            stride=1 if small and stage is STAGES[1] else stage.stride,
        )
        for stage in STAGES
    )
    last = multiple_of_8(1280 * max(1.0, multiplier))
    return Configuration(multiple_of_8(32 * multiplier), 1 if small else 2, stages, last)


def matched(widths: tuple[int, ...], blocks: tuple[int, ...]) -> Configuration:
    """Widths w, at most 6 w^2 = c^2, for the widths c of a LeanResNet, as Table II's caption says;
    stem, expansion of the first block and the end are our reading."""
    stages = tuple(
        Stage(6, int(width / 6**0.5), count, 1 if index == 0 else 2)
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True))
    )
    return Configuration(stages[0].width, 1, stages, 0)


CONFIGURATIONS = {
    **{f"{m}": scaled(m) for m in (0.5, 0.75, 1.0, 1.4)},
    **{f"{m}-small": scaled(m, small=True) for m in (0.5, 0.75, 1.0, 1.4)},
    "Res24*": matched((32, 64, 128, 256), (2, 3, 3, 3)),
    "Res40*": matched((64, 128, 256, 512), (3, 5, 7, 4)),
}


def mobile_stages(drawing: Drawing, configuration: Configuration) -> tuple[Map, ...]:
    """Stem and stages; the map at the end of each stage.

    Convolutions: `stem`, and `block3.expand`, `block3.spatial`, `block3.project`. Raises
    DesignError where a design cannot stand.
    """
    x = drawing.convolution(
        "stem", drawing.input, configuration.stem, stride=configuration.stride, activation=ReLU6()
    )
    ends = []
    number = 0
    for stage in configuration.stages:
        for index in range(stage.blocks):
            number += 1
            stride = stage.stride if index == 0 else 1
            name = f"block{number}"
            x = inverted_residual(drawing, name, x, stage.width, stride, stage.expansion)
        ends.append(x)
    return tuple(ends)


def inverted_residual(
    drawing: Drawing, name: str, x: Map, features: int, stride: int, expansion: int
) -> Map:
    """Expand, filter, project; no 1 x 1 in front where the expansion is 1."""
    inner = expansion * x.channels
    y, layers = x, [f"{name}.spatial", f"{name}.project"]
    if expansion > 1:
        layers.insert(0, f"{name}.expand")
        y = drawing.convolution(f"{name}.expand", x, inner, "PW", activation=ReLU6())
    y = drawing.convolution(f"{name}.spatial", y, inner, "DW", stride, activation=ReLU6())
    y = drawing.convolution(f"{name}.project", y, features, "PW", activation=None)
    if stride > 1 or x.channels != features:
        return y
    return drawing.residual(name, x, y, layers, activation=None)


def _layout(
    name: str, main: str, usage: str, source: str, versions: Mapping[str, Version]
) -> Layout:
    def build(
        configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
    ) -> Network:
        plain, rules = versions.get(configuration, (configuration, ()))
        drawing = Drawing(input, Slots((*rules, *arguments), main))
        given = CONFIGURATIONS[plain]
        x = mobile_stages(drawing, given)[-1]
        if given.last:
            x = drawing.convolution("last", x, given.last, "PW", activation=ReLU6())
        drawing.head(x, classes)
        return drawing.network(classes)

    return Layout(name, (*CONFIGURATIONS, *versions), usage, source, build)


LAYOUTS = (
    _layout(
        "MobileNetV2",
        "block*.spatial",
        "MobileNetV2(1.0) or MobileNetV2(1.0, *.project=PWG(4))",
        "Sandler et al. 2018; LeanConvNets, Tables II and III; Structured Convolutions, Table 2",
        MOBILENETS,
    ),
    _layout(
        "LeanMobileNetV2",
        "block*.project",
        "LeanMobileNetV2(1.0, LEAN(q=1,s=5))",
        "LeanConvNets, Table III",
        {},
    ),
)
