"""Models A to O of Factorized Convolutional Neural Networks.

Stages of one width and map size: A to M have 128, 256, 512 channels at 36 x 36, 18 x 18, 6 x 6
(from 221 x 221), N and O 64 to 512 at 56 x 56 down to 7 x 7 (from 224 x 224). Between them a max
pool and a 1 x 1 convolution to the next width; behind them one to 1024, the mean, a dense layer of
2048 with dropout 0.2, and the classifier. Each layer of a stage has an identity of its own. From L
on a layer is a channel bottleneck: two operators, the inner width half. The paper leaves open the
widths of N and O; these give its counts. There is no model K.

Source: Wang, Liu, Foroosh, Factorized CNN, Tables 1, 4 to 7 and section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from spaces.activations import Dropout
from spaces.design import Step
from spaces.drawing import RELU, Drawing, Map
from spaces.fixed import BatchNorm, MaxPool
from spaces.items import (
    Dense,
    GlobalPool,
    TiledMaxPool,
    ValidConvolution,
    dense,
    pooled,
)
from spaces.layout import Layout
from spaces.network import Network
from spaces.operator import DesignError
from spaces.slots import Slots

PAIR = "SIC+SIC@1/2"
STEM = 7


class Model(NamedTuple):
    """What a layer is, layers a stage, and which stages have another."""

    layer: str
    layers: tuple[int, ...]
    rules: tuple[str, ...] = ()


MODELS: Mapping[str, Model] = {
    "A": Model("STD", (2, 2, 2)),
    "B": Model("UNR(b=4)", (2, 2, 2)),
    "C": Model("SIC", (2, 2, 2)),
    "D": Model("SIC", (4, 4, 4)),
    "E": Model("SIC", (6, 6, 6)),
    "F": Model("SIC(k=5)", (4, 4, 4)),
    "G": Model("TPS(2)", (4, 4, 4)),
    "H": Model(
        "TPS(d=4x8x4,t=2x5x3)",
        (4, 4, 4),
        ("stage3.*=TPS(d=8x8x4,t=4x5x3)", "stage4.*=TPS(d=8x8x8,t=4x5x6)"),
    ),
    "I": Model("GC(4)", (4, 4, 4)),
    "J": Model("SIC(s=2)", (8, 8, 8)),
    "L": Model(PAIR, (4, 4, 4)),
    "M": Model(PAIR, (6, 6, 6)),
    "N": Model(PAIR, (10, 12, 12, 16)),
    "O": Model(PAIR, (10, 16, 28, 28)),
}


def factorized(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """A model by its letter; a design alone replaces the layers of every stage.

    Raises DesignError for images that a 7 x 7 window without padding does not fit (A to M).
    """
    model = MODELS[configuration]
    drawing = Drawing(input, Slots((*model.rules, *arguments), "stage*"))
    deep = len(model.layers) == 4
    x = _padded_stem(drawing) if deep else _valid_stem(drawing)
    channels = 64
    for stage, count in enumerate(model.layers, start=2):
        if stage > 2:
            pool = 3 if stage == 4 and not deep else 2
            x = drawing.item(f"pool{stage}", x, Step(TiledMaxPool(), x.place(stride=pool), None))
        if stage > 2 or not deep:
            channels *= 2
            x = drawing.convolution(f"widen{stage}", x, channels, "PW")
        for index in range(1, count + 1):
            inner = model.layer == PAIR
            x = drawing.block(f"stage{stage}.{index}", x, channels, model.layer, inner=inner)
    x = drawing.convolution("widen", x, 1024, "PW")
    _classifier(drawing, x, classes)
    return drawing.network(classes)


def _valid_stem(drawing: Drawing) -> Map:
    """7 x 7 at stride 2 without padding, 3 x 3 max pool at stride 3."""
    x, convolution = drawing.input, ValidConvolution(STEM)
    if min(x.height, x.width) < STEM:
        raise DesignError(
            f"stem: a {STEM} x {STEM} window does not fit a {x.height} x {x.width} image; valid "
            f"are {STEM} x {STEM} and larger ones"
        )
    first = Step(convolution, convolution.place(x.channels, 64, x.height, x.width, 2), None)
    x = drawing.item("stem", x, first, BatchNorm(), RELU)
    return drawing.item("pool1", x, Step(TiledMaxPool(), x.place(stride=3), None))


def _padded_stem(drawing: Drawing) -> Map:
    """7 x 7 at stride 2, 3 x 3 max pool at stride 2, as in ResNet."""
    x = drawing.convolution("stem", drawing.input, 64, "STD(k=7)", stride=2)
    return drawing.item("pool1", x, Step(MaxPool(), x.place(stride=2), None))


def _classifier(drawing: Drawing, x: Map, classes: int) -> None:
    mean = Step(GlobalPool(), pooled(x.channels, x.height, x.width), None)
    hidden = Step(Dense(), dense(x.channels, 2048), None)
    x = drawing.item("dense", x, mean, hidden, RELU, Dropout(0.2))
    drawing.item("head", x, Step(Dense(), dense(x.channels, classes), None))


LAYOUTS = (
    Layout(
        "Factorized",
        tuple(MODELS),
        "Factorized(C) or Factorized(A, DW+PW)",
        "Wang, Liu, Foroosh, Factorized CNN, Tables 1 to 7",
        factorized,
    ),
)
