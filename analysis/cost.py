"""What a design or a network costs, without building it.

Every item declares its ledger lines once (`Operator.lines`); this module only adds them up. A
convention says which kinds of line count: the papers and the tools differ, so it is named and
printed with every figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from spaces.design import Design, Step
from spaces.network import Network, Part
from spaces.operator import Line

ITEMSIZE: Mapping[str, int] = MappingProxyType(
    {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
)
"""Bytes a number."""


@dataclass(frozen=True)
class Convention:
    """Which kinds of line count as operations. Parameters are counted whatever their kind."""

    name: str
    statement: str
    counted: frozenset[str]


TORCH = Convention(
    "torch",
    "params: everything trained (numel); mults: convolutions and linear layers, half of what "
    "torch's flop counter says; adds: those of the same layers, with the "
    "sum-pooling of structured ones, and one per output for a bias",
    frozenset({"conv", "sum-pool", "linear", "fft", "bias"}),
)


@dataclass(frozen=True)
class Cost:
    """Counts of one forward pass over one image.

    traffic_bytes: every operator reads its input and weights once and writes its output once
    (normalisation, activation and shuffle ride along). traffic_bytes_fused: each block or design
    reads its input and weights and writes its output. peak_activation_bytes: the largest sum of
    maps alive at once, normalisation and activation in place.
    """

    params: int
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


def part_cost(part: Part, *, dtype: str = "float32", convention: Convention = TORCH) -> Cost:
    """One block of a network, with its normalisation, activation and shortcut."""
    lines = ledger(part.steps(), dtype)
    counted = [line for line in lines if line.kind in convention.counted]
    bytes_each = itemsize(dtype)
    params = sum(line.params for line in lines)
    weights = sum(line.params for line in lines if line.bytes or line.kind == "bias")
    return Cost(
        params=params,
        mults=sum(line.mults for line in counted),
        adds=sum(line.adds for line in counted),
        traffic_bytes=sum(line.bytes for line in lines),
        traffic_bytes_fused=bytes_each
        * (part.entry.in_elements + weights + _output_elements(part.body[-1])),
        peak_activation_bytes=bytes_each * _peak_elements(part),
        dtype=dtype,
        convention=convention.name,
    )


def network_cost(
    network: Network, *, dtype: str = "float32", convention: Convention = TORCH
) -> Cost:
    """The whole network: sums over its parts, the largest of their peaks."""
    return total(part_cost(part, dtype=dtype, convention=convention) for part in network.parts)


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


def _peak_elements(part: Part) -> int:
    """Largest number of activations alive at once.

    With a shortcut the block's input stays until the sum, which needs the body's output and, where
    the shortcut changes the shape, its own result as well.
    """
    held = part.entry.in_elements if part.shortcut else 0
    peak = 0
    for i, step in enumerate(part.body):
        alive = step.place.in_elements
        if step.item.ledger in {"conv", "fft", "pool", "linear"}:
            alive += _output_elements(step)
        peak = max(peak, alive + (held if i else 0))
    if part.shortcut:
        place = part.shortcut.place
        same = place.stride == 1 and place.channels == place.features
        peak = max(peak, held + place.out_elements * (1 if same else 2))
    return peak
