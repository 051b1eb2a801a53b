"""What a design or a network costs, without building it.

Every item declares its ledger lines once (`Operator.lines`); this module only adds them up, by a
named convention (`analysis.conventions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, cast

from analysis.conventions import TORCH as TORCH
from analysis.conventions import Convention
from spaces.design import Design, Step
from spaces.merge import Merge
from spaces.network import Network, Part
from spaces.operator import Line

ITEMSIZE: Mapping[str, int] = MappingProxyType(
    {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
)
"""Bytes a number."""


@dataclass(frozen=True)
class Cost:
    """Counts of one forward pass over one image; what counts is up to the convention.

    traffic_bytes: every operator reads its input and weights once and writes its output once
    (normalisation, activation and shuffle ride along). traffic_bytes_fused: each block or design
    reads its input and weights and writes its output. peak_activation_bytes: the largest sum of
    maps alive at once, normalisation and activation in place.
    """

    params: int
    flops: int
    mults: int
    adds: int
    traffic_bytes: int
    traffic_bytes_fused: int
    peak_activation_bytes: int
    dtype: str
    convention: str

    @property
    def intensity(self) -> float:
        """(mults + adds) per byte of unfused traffic."""
        return (self.mults + self.adds) / self.traffic_bytes

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"intensity": self.intensity}


def itemsize(dtype: str) -> int:
    """Bytes a number of this type takes. Raises ValueError that lists the known types."""
    if dtype not in ITEMSIZE:
        raise ValueError(f"unknown dtype {dtype!r}; known are {', '.join(ITEMSIZE)}")
    return ITEMSIZE[dtype]


def ledger(steps: Iterable[Step], dtype: str = "float32") -> tuple[Line, ...]:
    """The lines of every item, in order."""
    size = itemsize(dtype)
    return tuple(line for step in steps for line in step.item.lines(step.place, size))


def cost(
    design: Design,
    channels: int,
    out_channels: int | None = None,
    *,
    size: tuple[int, int] = (32, 32),
    stride: int = 1,
    dtype: str = "float32",
    convention: Convention = TORCH,
) -> Cost:
    """The bare design, C -> F channels on an H x W map, without normalisation or shortcut.

    Raises DesignError where the design cannot stand.

    >>> from spaces.design import parse
    >>> c = cost(parse("DW+PW"), 64)
    >>> c.params, c.mults, c.adds
    (4672, 4784128, 4653056)
    """
    steps = design.places(channels, out_channels, *size, stride)
    return part_cost(Part(str(design), steps), dtype=dtype, convention=convention)


def part_cost(
    part: Part,
    *,
    dtype: str = "float32",
    convention: Convention = TORCH,
    others: int = 0,
    kept: int = 0,
) -> Cost:
    """One block of a network, with its normalisation, activation and shortcut.

    others: numbers in maps that it does not read and that wait for a later part meanwhile.
    kept: those in its inputs that wait too. Both bear on the peak alone.
    """
    lines = ledger(part.steps(), dtype)
    counts = convention.count(lines)
    bytes_each = itemsize(dtype)
    weights = sum(line.params for line in lines if line.bytes or line.kind == "bias")
    return Cost(
        params=counts.params,
        flops=counts.flops,
        mults=counts.mults,
        adds=counts.adds,
        traffic_bytes=sum(line.bytes for line in lines),
        traffic_bytes_fused=bytes_each * (_input_elements(part) + weights + _result_elements(part)),
        peak_activation_bytes=bytes_each * (others + _peak_elements(part, kept)),
        dtype=dtype,
        convention=convention.name,
    )


def network_cost(
    network: Network, *, dtype: str = "float32", convention: Convention = TORCH
) -> Cost:
    """The whole network: sums over its parts, the largest of their peaks.

    Where it branches, a map stays until its last reader has it.
    """
    wiring = network.wiring
    last = {source: reader for reader, sources in enumerate(wiring) for source in sources}
    sizes = {-1: math.prod(network.input)} | {
        index: _result_elements(part) for index, part in enumerate(network.parts)
    }
    costs = []
    for index, (part, read) in enumerate(zip(network.parts, wiring, strict=True)):
        waiting = {source for source, reader in last.items() if source < index < reader}
        others = sum(sizes[source] for source in waiting.difference(read))
        kept = sum(sizes[source] for source in waiting.intersection(read))
        found = part_cost(part, dtype=dtype, convention=convention, others=others, kept=kept)
        costs.append(found)
    return total(costs)


def total(costs: Iterable[Cost]) -> Cost:
    """What items that follow one another cost together: sums, and the largest of their peaks.

    Raises ValueError for costs of different types or conventions, and for none.
    """
    parts = list(costs)
    kinds = {(c.dtype, c.convention) for c in parts}
    if len(kinds) != 1:
        raise ValueError(f"costs add up only in one dtype and convention; found {sorted(kinds)}")
    ((dtype, convention),) = kinds
    return Cost(
        params=sum(c.params for c in parts),
        flops=sum(c.flops for c in parts),
        mults=sum(c.mults for c in parts),
        adds=sum(c.adds for c in parts),
        traffic_bytes=sum(c.traffic_bytes for c in parts),
        traffic_bytes_fused=sum(c.traffic_bytes_fused for c in parts),
        peak_activation_bytes=max(c.peak_activation_bytes for c in parts),
        dtype=dtype,
        convention=convention,
    )


def _output_elements(step: Step) -> int:
    """A classifier ends on one score a class, every other item on a map."""
    pooled = step.item.ledger == "linear"
    return step.place.features if pooled else step.place.out_elements


def _input_elements(part: Part) -> int:
    """Numbers in all maps that enter."""
    if part.merge is None:
        return part.entry.in_elements
    return cast(Merge, part.merge.item).inputs(part.merge.place)


def _result_elements(part: Part) -> int:
    """Numbers in the map, or the scores, that leave."""
    *_, last = part.steps()
    return _output_elements(last)


def _peak_elements(part: Part, kept: int = 0) -> int:
    """Largest number of activations alive at once, of them `kept` of the inputs to the end.

    With a shortcut the block's input stays until the sum, which needs the body's output and, where
    the shortcut changes the shape, its own result as well. Several maps stay until they are one.
    """
    entry = part.entry.in_elements
    if part.merge is None:
        held, beside, peak = (entry if part.shortcut or kept else 0), 0, 0
    else:
        held, beside = (entry if part.shortcut else 0), kept
        peak = _input_elements(part) + entry
    for i, step in enumerate(part.body):
        before, made = step.place.in_elements, _output_elements(step)
        if step.item.ledger in {"conv", "fft", "pool", "linear"}:
            alive = before + made
        elif i or not held:
            alive = max(before, made)
        else:
            alive = held + made
        peak = max(peak, beside + alive + (held if i else 0))
    if part.shortcut:
        place = part.shortcut.place
        same = place.stride == 1 and place.channels == place.features
        peak = max(peak, beside + held + place.out_elements * (1 if same else 2))
    return peak
