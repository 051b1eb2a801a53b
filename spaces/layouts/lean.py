"""LeanResNet: residual steps of two convolutions each; channels double by concatenation.

    y + K2 relu(N(K1 relu(N(y))))

Where the channels double, N(pool([y ; K y])) takes a depthwise K, or another, and concatenates.

Source: LeanConvNets, equations 1 and 2, section IV, Tables I, II and IV.
"""

from __future__ import annotations

from typing import NamedTuple

from spaces.chain import Chain
from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.fixed import AveragePool, BatchNorm
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots


class Configuration(NamedTuple):
    """Widths and residual steps of the stages. widens: K1 of a later stage's first step doubles
    the channels, before the pool (Table IV); else a connector does between stages (Table II)."""

    widths: tuple[int, ...]
    steps: tuple[int, ...]
    widens: bool = False


CONFIGURATIONS = {
    "Res18": Configuration((32, 64, 128, 256), (2, 2, 2, 2), widens=True),
    "Res24-narrow": Configuration((12, 24, 48, 96), (2, 3, 3, 3)),
    "Res24": Configuration((32, 64, 128, 256), (2, 3, 3, 3)),
    "Res34": Configuration((64, 128, 256, 512), (3, 4, 6, 3), widens=True),
    "Res38-narrow": Configuration((24, 48, 96, 192, 384), (4, 5, 5, 3, 1)),
    "Res38": Configuration((64, 128, 256, 512, 1024), (4, 5, 5, 3, 1)),
    "Res40-narrow": Configuration((24, 48, 96, 192), (3, 5, 7, 4)),
    "Res40": Configuration((64, 128, 256, 512), (3, 5, 7, 4)),
}
"""Table I."""


def lean_stages(drawing: Drawing, configuration: Configuration) -> tuple[Map, ...]:
    """Stem and stages; the map at the end of each stage.

    Convolutions: `stem`, `stage2.1.K1`, `stage2.1.K2`, `connect1` (whose result is concatenated
    with its input). Raises DesignError that names the part where a design cannot stand.
    """
    x = drawing.convolution("stem", drawing.input, configuration.widths[0])
    ends = []
    stages = zip(configuration.widths, configuration.steps, strict=True)
    for stage, (width, steps) in enumerate(stages, start=1):
        for index in range(1, steps + 1):
            name = f"stage{stage}.{index}"
            if index == 1 and stage > 1 and configuration.widens:
                x = widening_step(drawing, name, x, width)
                continue
            if index == 1 and stage > 1:
                x = connect(drawing, f"connect{stage - 1}", x)
            x = residual_step(drawing, name, x)
        ends.append(x)
    return tuple(ends)


def residual_step(drawing: Drawing, name: str, x: Map) -> Map:
    """y + K2 relu(N(K1 relu(N(y)))), equation 2; a time step stands in place of all of it."""
    first = drawing.slots.design(f"{name}.K1", "STD")
    second = drawing.slots.design(f"{name}.K2", "STD")
    if all(operator.kind == "step" for operator in first.operators):
        return drawing.add(Chain(name, x).design(first).part(first))
    chain = Chain(name, x).norm().relu().design(first).norm().relu().design(second)
    return drawing.add(chain.part(first, shortcut=True))


def connect(drawing: Drawing, name: str, x: Map) -> Map:
    """N(pool([y ; K y])): twice the channels on half the map. Section IV."""
    own = drawing.convolution(name, x, x.channels, "DW", norm=False, activation=None)
    both = drawing.concatenation(f"{name}.both", x, own)
    pool = Step(AveragePool(), both.place(stride=2), None)
    return drawing.item(f"{name}.pool", both, pool, BatchNorm())


def widening_step(drawing: Drawing, name: str, x: Map, features: int) -> Map:
    """K1 doubles the channels on the large map, a pool halves it; the connector is the shortcut."""
    first = drawing.slots.design(f"{name}.K1", "STD")
    second = drawing.slots.design(f"{name}.K2", "STD")
    chain = Chain(f"{name}.path", x).norm().relu().design(first, features)
    chain.add(AveragePool(), stride=2).norm().relu().design(second)
    path = drawing.add(chain.part(first))
    shortcut = connect(drawing, f"{name}.connect", x)
    return drawing.sum(name, path, shortcut, activation=None)


def _build(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    drawing = Drawing(input, Slots(arguments, "*.K?"))
    drawing.head(lean_stages(drawing, CONFIGURATIONS[configuration])[-1], classes)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "LeanResNet",
        tuple(CONFIGURATIONS),
        "LeanResNet(Res24, LEAN(g=16,s=5)) or LeanResNet(Res24, STD, connect*=PW)",
        "LeanConvNets, Tables I, II and IV",
        _build,
    ),
)
