"""UNR(b): several filters a channel, then a projection from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.grouped import shifted, spread
from spaces.keeping import check_odd
from spaces.operator import Box, DesignError, Mask, Operator, Permutation, argument
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Unraveled(Operator):
    """b depthwise filters a channel, then b C -> F: field (k, k, C), b (k^2 C + C F) weights, as
    many mults a pixel. b = k^2 filters can represent every convolution.

    Source: Factorized CNN, section 2.2.1, equations 4 to 6.

    >>> Unraveled(bases=4).params(Place(64, 64, 32, 32))
    18688
    """

    symbol = "UNR"
    spellings = ("Unraveled Convolution", "Unravelled Convolution", "Unraveled")

    bases: int = argument("b", 4)
    kernel: int = argument("k", 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, self.kernel)
        if not 1 <= self.bases <= self.kernel**2:
            raise DesignError(
                f"{self.symbol}: {self.bases} bases; a {self.kernel} x {self.kernel} window has at "
                f"most {self.kernel**2} independent ones: valid are 1 to {self.kernel**2}"
            )

    @property
    def window(self) -> tuple[int, int]:
        return (self.kernel, self.kernel)

    def why_invalid(self, place: Place) -> str | None:
        return None

    def reads(self, needed: Mask, place: Place) -> Mask:
        half = self.kernel // 2
        offsets = range(-half, half + 1)
        pixels = spread(np.any(needed, axis=-3, keepdims=True), place)
        pixels = shifted(shifted(pixels, offsets, -2), offsets, -1)
        return np.broadcast_to(
            pixels, (*needed.shape[:-3], place.channels, place.height, place.width)
        )

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, place.channels),)

    def params(self, place: Place) -> int:
        return self.bases * place.channels * (self.kernel**2 + place.features)

    def mults(self, place: Place) -> int:
        return self.params(place) * place.out_pixels

    def adds(self, place: Place) -> int:
        sums = self.bases * place.channels + place.features
        return (self.params(place) - sums) * place.out_pixels

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        c, k = place.channels, self.kernel
        spatial = random.standard_normal((c, self.bases, k, k))
        projection = random.standard_normal((place.features, c, self.bases))
        return np.einsum("fcb,cbyx->fcyx", projection, spatial)

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        c, k, inner = place.channels, self.kernel, self.bases * place.channels
        return nn.Sequential(
            nn.Conv2d(c, inner, k, place.stride, k // 2, groups=c, bias=False),
            nn.Conv2d(inner, place.features, 1, bias=False),
        )

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(bases=1), cls(bases=2, kernel=5))
