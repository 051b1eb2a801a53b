"""LeanResNeXt: bottlenecks whose 1 x 1 convolutions are lean and whose 3 x 3 one has 5 points.

    relu(x + N(project(relu(N(spatial(relu(N(reduce(x)))))))))     C -> K -> K -> F,  K = F / 2

7 x 7 stem at stride 2 and a pool; a 1 x 1 shortcut where the shape changes. The paper reduces the
widths of ResNeXt without saying how: `Res34` takes those of ResNet-34, `Res50` the original ones.

Sources: LeanConvNets, section IV, Table III; Xie et al. 2017, Table 1.
"""

from __future__ import annotations

from spaces.design import Step
from spaces.drawing import Drawing, Map
from spaces.fixed import MaxPool
from spaces.layout import Layout
from spaces.network import Network
from spaces.slots import Slots

BLOCKS = (3, 4, 6, 3)
WIDTHS = {"Res34": (64, 128, 256, 512), "Res50": (256, 512, 1024, 2048)}


def bottleneck(drawing: Drawing, name: str, x: Map, features: int, stride: int) -> Map:
    """Reduce, filter (here it strides), project."""
    inner = features // 2
    y = drawing.convolution(f"{name}.conv1", x, inner, "LEAN(g=32,s=5)")
    y = drawing.convolution(f"{name}.conv2", y, inner, "LEAN(g=1,s=5)", stride)
    y = drawing.convolution(f"{name}.conv3", y, features, "LEAN(g=32,s=5)", activation=None)
    shortcut = x
    if stride > 1 or x.channels != features:
        shortcut = drawing.convolution(
            f"{name}.shortcut", x, features, "PW", stride, activation=None
        )
    layers = [f"{name}.{layer}" for layer in ("conv1", "conv2", "conv3")]
    return drawing.residual(name, shortcut, y, layers)


def lean_resnext(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """A bare design replaces the reducing and projecting convolutions, `stage2.1.conv1` and
    `stage2.1.conv3`; `stage2.1.conv2` is the one between them."""
    drawing = Drawing(input, Slots(arguments, "stage*.conv[13]"))
    x = drawing.convolution("stem", drawing.input, 64, "STD(k=7)", stride=2)
    x = drawing.item("pool", x, Step(MaxPool(), x.place(stride=2), None))
    for stage, (width, blocks) in enumerate(zip(WIDTHS[configuration], BLOCKS, strict=True), 1):
        for index in range(1, blocks + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = bottleneck(drawing, f"stage{stage}.{index}", x, width, stride)
    drawing.head(x, classes)
    return drawing.network(classes)


LAYOUTS = (
    Layout(
        "LeanResNeXt",
        tuple(WIDTHS),
        "LeanResNeXt(Res34, LEAN(g=16,s=5))",
        "LeanConvNets, Table III",
        lean_resnext,
    ),
)
