"""The convolution in g groups, of which five operators of the vocabulary are cases.

Source: Penetrating the Fog, sections 2.1 to 2.5. With C/g inputs and F/g outputs a group,

    params = F (C/g) k^2,   mults = params H' W',   adds = F ((C/g) k^2 - 1) H' W'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.operator import Box, DesignError, Mask, Operator, Permutation, argument, integer
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn

STAR = "*"
"""The group number that the integer optimum fills in for each layer."""


def group_number(text: str) -> int | str:
    """A number of groups: a whole number, or `*` for the optimum of the layer."""
    return STAR if text == STAR else integer(text)


def divisors(*numbers: int) -> list[int]:
    """The common divisors, ascending.

    >>> divisors(12, 18)
    [1, 2, 3, 6]
    """
    common = math.gcd(*numbers)
    small = [d for d in range(1, math.isqrt(common) + 1) if common % d == 0]
    return small + [common // d for d in reversed(small) if d * d != common]


def shifted(needed: Mask, offsets: Iterable[int], axis: int) -> Mask:
    """Union of the mask moved by each offset along one axis; what leaves the map is dropped."""
    union = np.zeros_like(needed)
    source, target = np.moveaxis(needed, axis, -1), np.moveaxis(union, axis, -1)
    size = needed.shape[axis]
    for offset in offsets:
        low, high = max(0, -offset), min(size, size - offset)
        if low < high:
            target[..., low + offset : high + offset] |= source[..., low:high]
    return union


def spread(needed: Mask, place: Place) -> Mask:
    """The needed outputs (..., H', W') at the input pixels (..., H, W) of their centre taps."""
    if place.stride == 1:
        return needed
    centres = np.zeros((*needed.shape[:-2], place.height, place.width), bool)
    centres[..., :: place.stride, :: place.stride] = needed
    return centres


def joined(needed: Mask, groups: int, place: Place) -> Mask:
    """The needed outputs as groups (..., g, H, W) at the input pixels of their centre taps."""
    *batch, _, height, width = needed.shape
    return spread(np.any(needed.reshape(*batch, groups, -1, height, width), axis=-3), place)


def carried_by_groups(permutation: Permutation, groups: int, place: Place) -> Permutation | None:
    """The permutation of input groups, if the outputs' one moves whole groups; else None."""
    group = permutation.reshape(groups, -1) // (place.features // groups)
    if (group != group[:, :1]).any():
        return None
    return np.arange(place.channels).reshape(groups, -1)[group[:, 0]].ravel()


def why_not_grouped(operator: Operator, groups: int, place: Place) -> str | None:
    """None, or why so many groups cannot stand here."""
    if place.channels % groups or place.features % groups:
        valid = ", ".join(map(str, divisors(place.channels, place.features)))
        return (
            f"{operator}: {groups} groups do not divide {place.channels} input and "
            f"{place.features} output channels; valid group numbers are {valid}"
        )
    return None


@dataclass(frozen=True)
class GroupedWindow(Operator):
    """What a k x k window with dilation d reads in `groups(place)` groups of channels."""

    kernel: int = argument("k", 3)
    dilation: int = argument("d", 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise DesignError(
                f"{self.symbol}: kernel size {self.kernel} is not odd; valid are 1, 3, 5, 7, ..."
            )
        if self.dilation < 1:
            raise DesignError(f"{self.symbol}: dilation {self.dilation} is below 1")

    @property
    def window(self) -> tuple[int, int]:
        side = self.dilation * (self.kernel - 1) + 1
        return (side, side)

    def why_invalid(self, place: Place) -> str | None:
        return why_not_grouped(self, self.groups(place), place)

    def connections(self, place: Place) -> int:
        fan_in = place.channels // self.groups(place) * self.kernel**2
        return place.features * fan_in

    def reads(self, needed: Mask, place: Place) -> Mask:
        g = self.groups(place)
        pixels = joined(needed, g, place)
        half = self.kernel // 2
        offsets = [self.dilation * step for step in range(-half, half + 1)]
        for axis in (-2, -1):
            if half:
                pixels = shifted(pixels, offsets, axis)
        return np.repeat(pixels, place.channels // g, axis=-3)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return carried_by_groups(permutation, self.groups(place), place)

    def reach(self, place: Place) -> tuple[Box, ...]:
        rows, columns = self.window
        return (Box(rows, columns, place.channels // self.groups(place)),)


@dataclass(frozen=True)
class GroupedConvolution(GroupedWindow):
    """C -> F channels in `groups(place)` groups, a k x k window with dilation d."""

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Conv2d(
            place.channels,
            place.features,
            self.kernel,
            stride=place.stride,
            padding=self.dilation * (self.kernel // 2),
            dilation=self.dilation,
            groups=self.groups(place),
            bias=False,
        )


@dataclass(frozen=True)
class GroupNumber(Operator):
    """A group number as a hyper-parameter: `g`, or the constant group size `q` (g = C / q).

    With neither, the operator is open: `GC` names the family of all `GC(g)`.
    """

    g: int | str | None = argument("g", None, group_number, bare=True)
    q: int | None = argument("q", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.g is not None and self.q is not None:
            raise DesignError(f"{self.symbol}: g={self.g} and q={self.q} contradict; give one")
        for key, value in (("g", self.g), ("q", self.q)):
            if isinstance(value, int) and value < 1:
                raise DesignError(f"{self.symbol}: {key}={value} is below 1")

    @property
    def is_open(self) -> bool:
        return self.q is None and not isinstance(self.g, int)

    def number(self, place: Place) -> int:
        """The group number here. Raises DesignError where it is open."""
        if self.q is not None:
            return max(1, place.channels // self.q)
        if not isinstance(self.g, int):
            raise DesignError(f"{self} has no group number yet")
        return self.g

    def why_no_number(self, place: Place) -> str | None:
        """None, or why the group number cannot be told here."""
        if self.is_open:
            return f"{self} has no group number yet: it names a family, not a design"
        if self.q is not None and place.channels % self.q:
            valid = ", ".join(map(str, divisors(place.channels)))
            return (
                f"{self}: groups of {self.q} do not divide {place.channels} input channels; "
                f"valid sizes are {valid}"
            )
        return None


@dataclass(frozen=True)
class NumberedGroups(GroupNumber, GroupedConvolution):
    """A grouped convolution whose group number is a hyper-parameter."""

    grouped = True

    def groups(self, place: Place) -> int:
        return self.number(place)

    def why_invalid(self, place: Place) -> str | None:
        return self.why_no_number(place) or super().why_invalid(place)
