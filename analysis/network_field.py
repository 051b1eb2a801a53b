"""Which inputs of a whole network one activation reads, through all its branches.

    needed(part) = union over its readers of what they read from it

The parts are walked once from the last to the first; each item pulls back what is needed of it
(`Operator.reads`), so that the result is exact on the map at hand, borders included.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from spaces.merge import Merge
from spaces.network import Network, Part
from spaces.operator import Mask


class Seen(NamedTuple):
    """Distinct columns, rows and channels of the input that are read, and the number of inputs."""

    size: tuple[int, int, int]
    volume: int


def network_reads(
    network: Network,
    part: str | None = None,
    *,
    output: int = 0,
    pixel: tuple[int, int] | None = None,
) -> Mask:
    """The inputs (C, H, W) that one output channel of a part reads at a pixel.

    part: the last that makes a map, unless given. pixel: (row, column) of the part's map, its
    centre unless given. Raises ValueError for a part, channel or pixel that does not exist.
    """
    names = [one.name for one in network.parts]
    if part is None:
        part = last_map(network).name
    if part not in names:
        raise ValueError(f"there is no part {part!r}; the parts are {', '.join(names)}")
    start = names.index(part)
    place = network.parts[start].exit
    rows, columns = place.out_height, place.out_width
    row, column = pixel or (rows // 2, columns // 2)
    if not (0 <= output < place.features and 0 <= row < rows and 0 <= column < columns):
        raise ValueError(
            f"{part} makes {place.features} channels of {rows} x {columns}; there is no channel "
            f"{output} at ({row}, {column})"
        )
    needed = np.zeros((place.features, rows, columns), bool)
    needed[output, row, column] = True
    wanted: dict[int, Mask] = {start: needed}
    wiring = network.wiring
    for index in range(start, -1, -1):
        if index in wanted:
            pulled = _pulled(network.parts[index], wanted.pop(index))
            for source, mask in zip(wiring[index], pulled, strict=True):
                wanted[source] = wanted[source] | mask if source in wanted else mask
    return wanted.get(-1, np.zeros(network.input, bool))


def seen(network: Network, part: str | None = None) -> Seen:
    """What the first output channel of a part reads at the centre of its map."""
    mask = network_reads(network, part)
    x, y = int(mask.any(axis=(0, 1)).sum()), int(mask.any(axis=(0, 2)).sum())
    return Seen((x, y, int(mask.any(axis=(1, 2)).sum())), int(mask.sum()))


def last_map(network: Network) -> Part:
    """The last part whose output has more than one pixel, or the last of all."""
    found = [part for part in network.parts if part.exit.out_pixels > 1 and not _scores(part)]
    return (found or list(network.parts))[-1]


def _scores(part: Part) -> bool:
    return any(step.item.ledger == "linear" for step in part.body)


def _pulled(part: Part, needed: Mask) -> tuple[Mask, ...]:
    """What each source of a part must provide."""
    for item, place, _ in reversed(part.after):
        needed = item.reads(needed, place)
    inputs = needed
    for item, place, _ in reversed(part.body):
        inputs = item.reads(inputs, place)
    if part.shortcut is not None:
        inputs = inputs | part.shortcut.item.reads(needed, part.shortcut.place)
    if part.merge is None:
        return (inputs,)
    return cast(Merge, part.merge.item).pull(inputs, part.merge.place)
