"""The overall layout of Penetrating the Fog, Table 1, scaled to the input at hand."""

from __future__ import annotations

from dataclasses import replace

from spaces.design import Step, parse
from spaces.fixed import Classifier, MaxPool
from spaces.layout import Layout
from spaces.network import Network, Part, Slot, block
from spaces.operator import DesignError
from spaces.place import Place

LARGE = 64
"""From this height or width on, the stem halves the map twice, as for the paper's 224 x 224."""


def stages_for(height: int, width: int) -> int:
    """Stages that end on a map of at least 4 x 4, at least one and at most the paper's four.

    >>> [stages_for(size, size) for size in (8, 16, 32, 224)]
    [2, 3, 4, 4]
    """
    side = min(height, width)
    if max(height, width) >= LARGE:
        side = -(-side // 4)
    return min(4, max(1, (side // 4).bit_length()))


def fog(
    slot: Slot,
    *,
    input: tuple[int, int, int],
    classes: int,
    width: int,
    blocks: tuple[int, ...],
    inner: tuple[int, ...] = (),
) -> Network:
    """Stem, one stage per entry of `blocks`, global average pool, classifier.

    input: (channels, height, width). width: channels of the first stage; they double, and the
    map is halved, at the first block of each later stage. inner: as `spaces.network.block`.
    Raises DesignError where a slot's design cannot stand, naming the block.
    """
    channels, height, columns = input
    large = max(height, columns) >= LARGE
    stem = block(
        "stem", parse("STD"), channels, width, height, columns, 2 if large else 1, shortcut=False
    )
    parts = [replace(stem, design=None)]
    if large:
        pool = Place(width, width, stem.exit.height, stem.exit.width, 2)
        parts.append(Part("pool", (Step(MaxPool(), pool, None),)))
    height, columns = parts[-1].exit.out_height, parts[-1].exit.out_width
    features = width
    for stage, count in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            first = stage > 1 and index == 1
            source, stride = (features, 2) if first else (features, 1)
            features = 2 * features if first else features
            name = f"stage{stage}.{index}"
            design = slot(name, source, features, height, columns, stride)
            part = block(name, design, source, features, height, columns, stride, inner=inner)
            parts.append(part)
            height, columns = part.exit.height, part.exit.width
    head = Place(features, classes, height, columns)
    parts.append(Part("head", (Step(Classifier(), head, None),)))
    return Network(input, classes, tuple(parts))


USAGE = "Fog(4, DW+PW, width=64)"


def _build(
    configuration: str, arguments: tuple[str, ...], input: tuple[int, int, int], classes: int
) -> Network:
    """The layout at its own number of stages; the configuration is the blocks of each."""
    widths = [word.partition("=")[2].strip() for word in arguments if word.startswith("width=")]
    designs = [word for word in arguments if not word.startswith("width=")]
    if len(widths) > 1 or len(designs) > 1 or not all(width.isdecimal() for width in widths):
        raise DesignError(f"cannot read {', '.join(arguments)}; write {USAGE}")
    design = parse(designs[0] if designs else "STD")
    return fog(
        lambda *_: design,
        input=input,
        classes=classes,
        width=int(widths[0]) if widths else 64,
        blocks=(int(configuration),) * stages_for(*input[1:]),
    )


LAYOUTS = (
    Layout(
        "Fog",
        tuple(str(blocks) for blocks in range(1, 25)),
        USAGE,
        "Penetrating the Fog, Table 1",
        _build,
    ),
)
