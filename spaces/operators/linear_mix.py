"""LINEARMIX: the sum of a depthwise and a 1 x 1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.grouped import shifted
from spaces.keeping import ShapeKeeping, check_odd
from spaces.operator import Box, Mask, Operator, Permutation, argument
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LinearMix(ShapeKeeping):
    """(K_dw + M) x: field (k, k) of its own channel and (1, 1) of the others.

    The centre tap and the diagonal of M are one coefficient; both are kept, as the published
    counts show: k^2 C + C^2 weights, as many mults a pixel, and one addition less per output.
    Source: Low-cost parameterizations, equation 7.

    >>> LinearMix().params(Place(64, 64, 32, 32))
    4672
    """

    symbol = "LINEARMIX"
    spellings = ("Linear Mix",)

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
        own = shifted(shifted(needed, offsets, -2), offsets, -1)
        return own | needed.any(axis=-3, keepdims=True)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return permutation

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, 1), Box(1, 1, place.channels))

    def params(self, place: Place) -> int:
        return place.channels * (self.kernel**2 + place.channels)

    def mults(self, place: Place) -> int:
        return self.params(place) * place.out_pixels

    def adds(self, place: Place) -> int:
        return (self.params(place) - place.channels) * place.out_pixels

    def module(self, place: Place) -> nn.Module:
        from kernels.linear_mix.operation import linear_mix
        from spaces.modules import Weighted

        c, k = place.channels, self.kernel
        shapes = {"spatial": (c, 1, k, k), "mixing": (c, c, 1, 1)}
        return Weighted(linear_mix, shapes, dict.fromkeys(shapes, k * k + c))

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=5), cls(kernel=1))
