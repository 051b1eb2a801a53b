"""The networks A, B and C of Low-cost parameterizations: blocks of four steps, each block
followed by a connector that doubles the channels.

- `LowCost`: y + K2 relu(N(K1 y)), equations 1 and 3; a time step (RD, IRD, CRD) stands in place
  of all of it, equations 9 and 11.
- `LowCostPlain`: N and relu after each operator of one design, no residual, equation 13
  (MobileNet is DW+PW).

Source: Low-cost parameterizations of deep CNNs, section 4, Table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from spaces.chain import Chain
from spaces.drawing import Drawing, Map
from spaces.layout import Layout
from spaces.layouts.lean import connect
from spaces.network import Network, block
from spaces.slots import Slots

WIDTHS = {
    "A": (32, 64, 128),
    "B": (48, 96, 192),
    "C": (32, 64, 128, 256),
}
STEPS = 4

TakeStep = Callable[[Drawing, str, Map], Map]


def low_cost(
    slots: Slots, input: tuple[int, int, int], classes: int, widths: tuple[int, ...], step: TakeStep
) -> Network:
    """5 x 5 stem, blocks of four steps, a connector after each block (the last one too), head.

    Raises DesignError that names the part where a design cannot stand.
    """
    drawing = Drawing(input, slots)
    x = drawing.convolution("stem", drawing.input, widths[0], "STD(k=5)")
    for number in range(1, len(widths) + 1):
        for index in range(1, STEPS + 1):
            x = step(drawing, f"block{number}.{index}", x)
        x = connect(drawing, f"connect{number}", x)
    drawing.head(x, classes)
    return drawing.network(classes)


def residual_step(drawing: Drawing, name: str, x: Map) -> Map:
    """y + K2 relu(N(K1 y)); a time step stands in place of all of it."""
    first = drawing.slots.design(f"{name}.K1", "STD")
    second = drawing.slots.design(f"{name}.K2", "STD")
    if all(operator.kind == "step" for operator in first.operators):
        return drawing.add(Chain(name, x).design(first).part(first))
    chain = Chain(name, x).design(first).norm().relu().design(second)
    return drawing.add(chain.part(first, shortcut=True))


def plain_step(drawing: Drawing, name: str, x: Map) -> Map:
    """relu(N(...)) of each operator in turn."""
    design = drawing.slots.design(name, "DW+PW")
    inner = tuple(range(len(design.operators) - 1))
    part = block(
        name, design, x.channels, x.channels, x.height, x.width, inner=inner, shortcut=False
    )
    return drawing.add(replace(part, sources=(x.source,)))


def _layout(name: str, step: TakeStep, main: str, usage: str, source: str) -> Layout:
    def build(
        configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
    ) -> Network:
        return low_cost(Slots(arguments, main), input, classes, WIDTHS[configuration], step)

    return Layout(name, tuple(WIDTHS), usage, source, build)


LAYOUTS = (
    _layout(
        "LowCost",
        residual_step,
        "block*.K?",
        "LowCost(A, LINEARMIX) or LowCost(A, RD)",
        "Low-cost parameterizations, Table 2",
    ),
    _layout(
        "LowCostPlain",
        plain_step,
        "block*",
        "LowCostPlain(A, DW+PW)",
        "Low-cost parameterizations, equation 13",
    ),
)
