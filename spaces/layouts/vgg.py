"""VGG: 3 x 3 convolutions with biases and without normalisation, in five stages of one width.

A 2 x 2 max pool ends each stage; two dense layers of 4096 with dropout 0.5 and the classifier read
the last map whole.

Source: Simonyan and Zisserman 2015, "Very deep convolutional networks", Table 1 (A, B, D, E).
"""

from __future__ import annotations

from collections.abc import Mapping

from spaces.activations import Dropout
from spaces.design import Step
from spaces.drawing import RELU, Drawing
from spaces.items import Dense, TiledMaxPool, dense
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096
DEPTHS: Mapping[str, tuple[int, ...]] = {
    "11": (1, 1, 2, 2, 2),
    "13": (2, 2, 2, 2, 2),
    "16": (2, 2, 3, 3, 3),
    "19": (2, 2, 4, 4, 4),
}


def vgg(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """A depth; a design alone replaces every convolution but the first, `stem`."""
    drawing = Drawing(input, Slots(arguments, "stage*"))
    x = drawing.input
    for stage, (count, width) in enumerate(zip(DEPTHS[configuration], WIDTHS, strict=True), 1):
        for index in range(1, count + 1):
            name = "stem" if (stage, index) == (1, 1) else f"stage{stage}.{index}"
            x = drawing.convolution(name, x, width, norm=False, bias=True)
        x = drawing.item(f"pool{stage}", x, Step(TiledMaxPool(), x.place(stride=2), None))
    for index in (1, 2):
        layer = Step(Dense(), dense(x.channels, HIDDEN, x.height, x.width), None)
        x = drawing.item(f"dense{index}", x, layer, RELU, Dropout(0.5))
    drawing.item("head", x, Step(Dense(), dense(x.channels, classes), None))
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "VGG",
        tuple(DEPTHS),
        "VGG(16) or VGG(16, DW+PW)",
        "Simonyan and Zisserman 2015, Table 1",
        vgg,
    ),
)
