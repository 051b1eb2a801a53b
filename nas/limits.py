"""What a network may cost at most, and how a user writes it: 50k, 10M, 2MB, 2ms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple, Protocol

FASTEST = 10**12
"""Multiplications a second that no device exceeds on one image at a time. Each parameter takes
part in at least one, so a latency alone bounds the parameters and with them the widths to time."""

USUAL = 10**10
"""Multiplications a second of a usual device: a guess that measuring corrects."""

LARGEST = 10**18
"""No limit is above it: a longer number is a slip of the hand."""


class Unit(NamedTuple):
    """A kind of quantity: its suffixes with their factors, whether it is whole, and examples."""

    name: str
    suffixes: Mapping[str, Fraction]
    whole: bool
    examples: str


def _unit(name: str, suffixes: Mapping[str, str], whole: bool, examples: str) -> Unit:
    factors = {suffix: Fraction(factor) for suffix, factor in suffixes.items()}
    return Unit(name, MappingProxyType(factors), whole, examples)


_THOUSANDS = {"": "1", "k": "1e3", "K": "1e3", "M": "1e6", "G": "1e9"}
COUNT = _unit("a count", _THOUSANDS, True, "800, 50k, 1.5M, 2G or 1e6")
BYTES = _unit(
    "a number of bytes",
    {**_THOUSANDS, "B": "1", "kB": "1e3", "KB": "1e3", "MB": "1e6", "GB": "1e9"},
    True,
    "4096, 800B, 500kB, 2MB or 1.5M",
)
SECONDS = _unit("a time", {"us": "1e-6", "ms": "1e-3", "s": "1"}, False, "800us, 2ms or 0.5s")


def quantity(text: str, unit: Unit = COUNT) -> Fraction:
    """The number that a text with a suffix stands for, exactly. Thousands are 1,000, never 1,024.

    Raises ValueError, which names valid forms, for what is not positive, not whole where it must
    be, or does not read.

    >>> int(quantity("50k")), int(quantity("2MB", BYTES)), float(quantity("2ms", SECONDS))
    (50000, 2000000, 0.002)
    """
    match = re.fullmatch(
        r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,3}))?\s*([A-Za-z]*)\s*", text
    )
    if match is None:
        raise ValueError(f"{text!r} is not {unit.name}; write {unit.examples}")
    digits, exponent, suffix = match.groups()
    if suffix not in unit.suffixes:
        has = f"has the unknown unit {suffix!r}" if suffix else "has no unit"
        raise ValueError(f"{text!r} {has}, so it is not {unit.name}; write {unit.examples}")
    value = Fraction(f"{digits}e{exponent or 0}") * unit.suffixes[suffix]
    if not 0 < value <= LARGEST:
        found = "must be above zero" if value <= 0 else f"is above {LARGEST:.0e}"
        raise ValueError(f"{text!r} {found}; write {unit.name} such as {unit.examples}")
    if unit.whole and value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number; write {unit.name}, {unit.examples}")
    return value


class Costs(Protocol):
    """What a limit is compared with: `analysis.cost.Cost` or a lower bound of it."""

    @property
    def params(self) -> float: ...
    @property
    def mults(self) -> float: ...
    @property
    def traffic_bytes(self) -> float: ...


@dataclass(frozen=True)
class Limits:
    """At most so many parameters, multiplications, bytes of traffic and seconds for one image.

    Parameters and multiplications count as `analysis.cost.TORCH` does, traffic as
    `Cost.traffic_bytes` in float32. Raises ValueError for no limit and for one that is not
    positive.
    """

    params: int | None = None
    mults: int | None = None
    traffic: int | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise ValueError(
                "a search needs at least one limit: --max-params, --max-mults, --max-traffic or "
                "--max-latency"
            )
        for name, value in given.items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"the limit of {name} is {value}; it must be above zero")

    @classmethod
    def read(
        cls,
        params: str | None = None,
        mults: str | None = None,
        traffic: str | None = None,
        latency: str | None = None,
    ) -> Limits:
        """From the texts of the options. Raises ValueError that names the option."""
        asked = {
            "params": (params, COUNT),
            "mults": (mults, COUNT),
            "traffic": (traffic, BYTES),
            "latency": (latency, SECONDS),
        }
        values: dict[str, Fraction | None] = {}
        for name, (text, unit) in asked.items():
            try:
                values[name] = None if text is None else quantity(text, unit)
            except ValueError as error:
                raise ValueError(f"--max-{name}: {error}") from None
        whole = {n: int(v) for n, v in values.items() if n != "latency" and v is not None}
        seconds = values["latency"]
        return cls(**whole, latency=None if seconds is None else float(seconds))

    def __str__(self) -> str:
        parts = [f"{limit:,} {what}" for _, limit, what in self._analytic(None)]
        return ", ".join(parts + ([show_seconds(self.latency)] if self.latency else []))

    @property
    def analytic(self) -> Limits:
        """Limits that need no measuring; for a latency alone, what no device could do in it."""
        if (self.params, self.mults, self.traffic) == (None, None, None):
            return Limits(params=math.ceil((self.latency or 0) * FASTEST))
        return Limits(self.params, self.mults, self.traffic)

    @property
    def expected(self) -> Limits:
        """Analytic limits about as tight as these are on a usual device."""
        if self.latency is None:
            return self
        usual = math.ceil(self.latency * USUAL)
        return Limits(self.params, min(usual, self.mults or usual), self.traffic)

    def part(self, share: Fraction) -> Limits:
        """This share of every limit, rounded up."""
        if share == 1:
            return self
        whole = {
            name: None if limit is None else math.ceil(limit * share)
            for name, limit in vars(self).items()
            if name != "latency"
        }
        seconds = None if self.latency is None else self.latency * float(share)
        return Limits(**whole, latency=seconds)

    def allow(self, cost: Costs) -> bool:
        """Whether the cost is within every analytic limit."""
        return all(value <= limit for value, limit, _ in self._analytic(cost))

    def excess(self, cost: Costs) -> float:
        """The largest of cost / limit over the analytic limits; 0 where there is none."""
        return max((value / limit for value, limit, _ in self._analytic(cost)), default=0.0)

    def why_not(self, cost: Costs) -> str | None:
        """None, or each broken analytic limit: `52,110 parameters, of at most 50,000`."""
        broken = [
            f"{math.ceil(value):,} {what}, of at most {limit:,}"
            for value, limit, what in self._analytic(cost)
            if value > limit
        ]
        return " and ".join(broken) or None

    def _analytic(self, cost: Costs | None) -> Iterator[tuple[float, int, str]]:
        """(value, limit, what it counts) of each analytic limit that is set."""
        if self.params is not None:
            yield cost.params if cost else 0, self.params, "parameters"
        if self.mults is not None:
            yield cost.mults if cost else 0, self.mults, "multiplications"
        if self.traffic is not None:
            yield cost.traffic_bytes if cost else 0, self.traffic, "bytes of traffic"


def show_seconds(seconds: float) -> str:
    """
    >>> show_seconds(0.00213), show_seconds(2.5), show_seconds(3e-5)
    ('2.13 ms', '2.5 s', '30 us')
    """
    for factor, unit in ((1, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
