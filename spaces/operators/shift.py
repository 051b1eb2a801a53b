"""SHIFT: one fixed tap a channel, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.grouped import GroupedWindow, shifted, spread
from spaces.operator import Box, Mask, Operator, Permutation
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Shift(GroupedWindow):
    """T[c](p) = I[c](p + t(c)): field one pixel of one channel. It keeps the width.

    The k^2 taps in row-major order get floor(C / k^2) neighbouring channels each, the centre tap
    also the remainder, as in ShiftNet. It neither trains nor multiplies nor adds.
    Source: Wu et al. 2018, section 3.1; rival in LeanConvNets, Table II.

    >>> Shift().params(Place(64, 64, 32, 32)), Shift().mults(Place(64, 64, 32, 32))
    (0, 0)
    """

    symbol = "SHIFT"
    spellings = ("Shift Convolution", "ShiftNet")
    resizes = False

    def groups(self, place: Place) -> int:
        return place.channels

    def why_invalid(self, place: Place) -> str | None:
        if place.channels != place.features:
            return f"{self} keeps the width: it cannot map {place.channels} to {place.features}"
        if place.channels < self.kernel**2:
            return (
                f"{self}: {place.channels} channels are fewer than its {self.kernel**2} taps, so "
                f"that none would move; valid are {self.kernel**2} and more"
            )
        return None

    def taps(self, channels: int) -> np.ndarray:
        """The offset (rows, columns) of each channel: (C, 2)."""
        half = self.kernel // 2
        share, rest = divmod(channels, self.kernel**2)
        counts = np.full(self.kernel**2, share)
        counts[self.kernel**2 // 2] += rest
        steps = np.arange(-half, half + 1) * self.dilation
        grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
        return np.repeat(grid, counts, axis=0)

    def reads(self, needed: Mask, place: Place) -> Mask:
        pixels = spread(needed, place)
        inputs = np.zeros_like(pixels)
        taps = self.taps(place.channels)
        for tap in np.unique(taps, axis=0):
            here = (taps == tap).all(axis=1)
            moved = shifted(pixels[..., here, :, :], (int(tap[0]),), -2)
            inputs[..., here, :, :] = shifted(moved, (int(tap[1]),), -1)
        return inputs

    def connections(self, place: Place) -> int:
        return place.channels

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        taps = self.taps(place.channels)
        return permutation if np.array_equal(taps[permutation], taps) else None

    def reach(self, place: Place) -> tuple[Box, ...]:
        rows, columns = self.window
        return (Box(rows, columns, 1),)

    def params(self, place: Place) -> int:
        return 0

    def mults(self, place: Place) -> int:
        return 0

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """Ones, of which none is trained."""
        kernel = super().sampled(place, random)
        return np.where(kernel != 0, 1.0, 0.0)

    def module(self, place: Place) -> nn.Module:
        from kernels.shift.reference import shift
        from spaces.modules import Weighted

        options = {"kernel": self.kernel, "dilation": self.dilation, "stride": place.stride}
        return Weighted(shift, {}, {}, options)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(dilation=2))
