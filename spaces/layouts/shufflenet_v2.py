"""ShuffleNetV2: half of the channels pass, the other half is filtered, then they are shuffled.

    unit:         shuffle([x1 ; N(...) of x2]),  branch: 1 x 1, depthwise 3 x 3, 1 x 1
    first unit:   both halves are made from all of x, and the map may be halved

Sources: Ma et al. 2018, "ShuffleNet V2", Table 5; LeanConvNets, Tables II, III and VI.
"""

from __future__ import annotations

from typing import NamedTuple

from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.fixed import MaxPool, Shuffle
from spaces.layout import Layout
from spaces.mobile import Slice
from spaces.network import Network
from spaces.slots import Slots

STEM = 24


class Configuration(NamedTuple):
    """Widths of the three stages and of the last 1 x 1; strides of the stem, of the pool (1:
    there is none) and of the stages; units of the stages."""

    widths: tuple[int, int, int]
    last: int
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)
    units: tuple[int, ...] = (4, 8, 4)


WIDE = {
    "0.5x": Configuration((48, 96, 192), 1024),
    "1.0x": Configuration((116, 232, 464), 1024),
    "1.5x": Configuration((176, 352, 704), 1024),
    "2.0x": Configuration((244, 488, 976), 2048),
}
CONFIGURATIONS = {
    **WIDE,
    **{f"{name}-small": wide._replace(strides=(1, 1, 1, 2, 2)) for name, wide in WIDE.items()},
    "2.0x-tiny": Configuration((224, 488, 976), 2048, (1, 1, 2, 2, 2)),
}
"""`-small`: "we removed the strides from the first steps" (LeanConvNets, Table II); `-tiny`: the
reading that comes nearest to its TinyImageNet row."""


def shuffle_stages(drawing: Drawing, configuration: Configuration) -> tuple[Map, ...]:
    """Stem and stages; the map at the end of each stage.

    Convolutions: `stem`, and `stage2.1.expand`, `.spatial`, `.project` of the branch, in the first
    unit of a stage also `.pass.spatial` and `.pass.project`. Raises DesignError where a design
    cannot stand.
    """
    stem, pool, *rest = configuration.strides
    x = drawing.convolution("stem", drawing.input, STEM, stride=stem)
    if pool > 1:
        x = drawing.item("pool", x, Step(MaxPool(), x.place(stride=pool), None))
    ends = []
    for stage, (width, units, stride) in enumerate(
        zip(configuration.widths, configuration.units, rest, strict=True), start=2
    ):
        x = first_unit(drawing, f"stage{stage}.1", x, width, stride)
        for index in range(2, units + 1):
            x = unit(drawing, f"stage{stage}.{index}", x)
        ends.append(x)
    return tuple(ends)


def unit(drawing: Drawing, name: str, x: Map) -> Map:
    """The first half passes, the second is filtered."""
    half = x.channels // 2
    passed = drawing.item(f"{name}.pass", x, Step(Slice(0), x.place(half), None))
    taken = drawing.item(f"{name}.take", x, Step(Slice(half), x.place(half), None))
    return _shuffled(drawing, name, passed, _branch(drawing, name, taken, half))


def first_unit(drawing: Drawing, name: str, x: Map, features: int, stride: int) -> Map:
    """Both halves from the whole map."""
    half = features // 2
    passed = drawing.convolution(
        f"{name}.pass.spatial", x, x.channels, "DW", stride, activation=None
    )
    passed = drawing.convolution(f"{name}.pass.project", passed, half, "PW")
    return _shuffled(drawing, name, passed, _branch(drawing, name, x, half, stride))


def _branch(drawing: Drawing, name: str, x: Map, features: int, stride: int = 1) -> Map:
    y = drawing.convolution(f"{name}.expand", x, features, "PW")
    y = drawing.convolution(f"{name}.spatial", y, features, "DW", stride, activation=None)
    return drawing.convolution(f"{name}.project", y, features, "PW")


def _shuffled(drawing: Drawing, name: str, passed: Map, made: Map) -> Map:
    both = drawing.concatenation(f"{name}.both", passed, made)
    return drawing.item(name, both, Shuffle(2))


def _build(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    drawing = Drawing(input, Slots(arguments, "*.spatial"))
    given = CONFIGURATIONS[configuration]
    x = shuffle_stages(drawing, given)[-1]
    drawing.head(drawing.convolution("last", x, given.last, "PW"), classes)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "ShuffleNetV2",
        tuple(CONFIGURATIONS),
        "ShuffleNetV2(1.0x) or ShuffleNetV2(1.0x, *.project=PWG(2))",
        "Ma et al. 2018; LeanConvNets, Tables II and III",
        _build,
    ),
)
