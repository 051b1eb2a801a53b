"""CIRC: the convolution that is block-circulant over the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.itemised import Itemised
from spaces.keeping import ShapeKeeping, check_odd
from spaces.operator import Box, Line, Mask, Operator, Permutation, argument
from spaces.periodic import filter_cost, wrapped
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Circulant(Itemised, ShapeKeeping):
    """Block (i, j) convolves with stencil (j - i) mod C, periodic: field (k, k, C), k^2 C weights.

    By a transform over channels, rows and columns.
    Source: Low-cost parameterizations, equation 12.

    >>> Circulant().params(Place(32, 32, 8, 8))
    288
    """

    symbol = "CIRC"
    spellings = ("Circulant", "Block Circulant")
    ledger = "fft"

    kernel: int = argument("k", 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, self.kernel)

    @property
    def window(self) -> tuple[int, int]:
        return (self.kernel, self.kernel)

    def reads(self, needed: Mask, place: Place) -> Mask:
        half = self.kernel // 2
        offsets = range(-half, half + 1)
        pixels = np.any(needed, axis=-3, keepdims=True)
        return np.broadcast_to(wrapped(wrapped(pixels, offsets, -2), offsets, -1), needed.shape)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, place.channels),)

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        mults, adds = filter_cost(place, across_channels=True, real_symbol=False)
        weights = self.kernel**2 * place.channels
        moved = (place.in_elements + weights + place.out_elements) * itemsize
        return (Line("fft", weights, mults, adds, moved),)

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """Block (i, j) is stencil (j - i) mod C."""
        stencils = random.standard_normal((place.channels, *self.window))
        channels = np.arange(place.channels)
        return stencils[(channels - channels[:, None]) % place.channels]

    def module(self, place: Place) -> nn.Module:
        from kernels.diffusion.operation import circulant
        from spaces.modules import Weighted

        shape = (place.channels, self.kernel, self.kernel)
        fan_in = self.kernel**2 * place.channels
        return Weighted(circulant, {"kernel": shape}, {"kernel": fan_in})

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=1), cls(kernel=5))
