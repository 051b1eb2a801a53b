"""ShiftResNet: residual blocks of two 1 x 1 convolutions with a shift between them.

    relu(x + N(project(shift(relu(N(expand(x)))))))     expand: C -> 6 F; the shift strides; a 1 x 1
                                                         shortcut where the width changes

Sources: Wu et al. 2018, "Shift: a zero FLOP, zero parameter alternative", section 3; LeanConvNets,
Table II, for the widths.
"""

from __future__ import annotations

from typing import NamedTuple

from spaces.drawing import Drawing, Map
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots

EXPANSION = 6


class Configuration(NamedTuple):
    """Widths and blocks of the stages."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]


def matched(widths: tuple[int, ...], blocks: tuple[int, ...]) -> Configuration:
    """Widths w, at most 6 w^2 = c^2, for the widths c of a LeanResNet (Table II, caption)."""
    return Configuration(tuple(int(width / EXPANSION**0.5) for width in widths), blocks)


CONFIGURATIONS = {
    "20": Configuration((16, 32, 64), (3, 3, 3)),
    "56": Configuration((16, 32, 64), (9, 9, 9)),
    "Res24*": matched((32, 64, 128, 256), (2, 3, 3, 3)),
    "Res38*": matched((64, 128, 256, 512, 1024), (4, 5, 5, 3, 1)),
    "Res40*": matched((64, 128, 256, 512), (3, 5, 7, 4)),
}


def shift_stages(drawing: Drawing, configuration: Configuration) -> tuple[Map, ...]:
    """Stem and stages; the map at the end of each stage.

    Convolutions: `stem`, and `stage2.1.expand`, `.spatial`, `.project`, `.shortcut`.
    Raises DesignError where a design cannot stand.
    """
    x = drawing.convolution("stem", drawing.input, configuration.widths[0])
    ends = []
    stages = zip(configuration.widths, configuration.blocks, strict=True)
    for stage, (width, blocks) in enumerate(stages, start=1):
        for index in range(1, blocks + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = shift_block(drawing, f"stage{stage}.{index}", x, width, stride)
        ends.append(x)
    return tuple(ends)


def shift_block(drawing: Drawing, name: str, x: Map, features: int, stride: int) -> Map:
    """Expand, shift, project; the shift has no normalisation of its own."""
    inner = EXPANSION * features
    y = drawing.convolution(f"{name}.expand", x, inner, "PW")
    y = drawing.convolution(
        f"{name}.spatial", y, inner, "SHIFT", stride, norm=False, activation=None
    )
    y = drawing.convolution(f"{name}.project", y, features, "PW", activation=None)
    shortcut = x
    if stride > 1 or x.channels != features:
        shortcut = drawing.convolution(
            f"{name}.shortcut", x, features, "PW", stride, activation=None
        )
    layers = [f"{name}.{layer}" for layer in ("expand", "spatial", "project")]
    return drawing.residual(name, shortcut, y, layers)


def _build(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    drawing = Drawing(input, Slots(arguments, "stage*.spatial"))
    drawing.head(shift_stages(drawing, CONFIGURATIONS[configuration])[-1], classes)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "ShiftResNet",
        tuple(CONFIGURATIONS),
        "ShiftResNet(20) or ShiftResNet(20, DW)",
        "Wu et al. 2018; LeanConvNets, Table II",
        _build,
    ),
)
