"""The overall layout of Penetrating the Fog, Table 1, scaled to the input at hand."""

from __future__ import annotations

from dataclasses import replace

from spaces.design import Step, parse
from spaces.fixed import Classifier, MaxPool
from spaces.network import Network, Part, Slot, block
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
