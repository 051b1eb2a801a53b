"""What stands where in a network of the search, and what each block costs there.

Widths are in units of the network's width. A network repeats its blocks, and candidates differ in
one thing at a time, so what a design is and costs in a slot is worked out once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from analysis.cost import Cost, part_cost, total
from analysis.theorems import resolve
from spaces.design import Design, parse
from spaces.layouts.fog import fog
from spaces.network import block
from spaces.operator import DesignError


class Slot(NamedTuple):
    """C -> F channels in units of the network's width, an H x W map, a stride."""

    channels: int
    features: int
    height: int
    columns: int
    stride: int


@lru_cache(maxsize=1024)
def standing(input: tuple[int, int, int], blocks: tuple[int, ...]) -> tuple[tuple[str, Slot], ...]:
    """Name and slot of each block of the layout, in order.

    >>> [(name, slot.channels, slot.features) for name, slot in standing((1, 8, 8), (1, 2))]
    [('stage1.1', 1, 1), ('stage2.1', 1, 2), ('stage2.2', 2, 2)]
    """
    found: list[tuple[str, Slot]] = []

    def record(name: str, *slot: int) -> Design:
        found.append((name, Slot(*slot)))
        return parse("PW")

    fog(record, input=input, classes=1, width=1, blocks=blocks)
    return tuple(found)


@lru_cache(maxsize=16384)
def here(design: Design, channels: int, features: int) -> Design:
    """The design with its open numbers filled in and every identity resolved at these widths.

    Raises DesignError where it cannot stand.
    """
    return resolve(design, channels, features).canonical(channels, features)


@lru_cache(maxsize=16384)
def written(design: Design, channels: int, features: int) -> str:
    """The same as text, which is its identity here."""
    return str(here(design, channels, features))


@lru_cache(maxsize=16384)
def block_cost(design: Design, inner: tuple[int, ...], slot: Slot, width: int) -> Cost:
    """Of the block in a slot of a network. inner: as `spaces.network.block`.

    Raises DesignError where the design cannot stand.
    """
    c, f, *others = slot
    try:
        part = block("block", design, c * width, f * width, *others, inner=inner)
    except DesignError as error:
        raise DesignError(str(error).removeprefix("block: ")) from None
    return part_cost(part)


@lru_cache(maxsize=4096)
def ends_cost(input: tuple[int, int, int], classes: int, stages: int, width: int) -> Cost:
    """Of all that is no block: the stem and the head."""
    blocks = (1,) * stages
    network = fog(lambda *_: parse("PW"), input=input, classes=classes, width=width, blocks=blocks)
    return total(part_cost(part) for part in network.parts if part.design is None)
