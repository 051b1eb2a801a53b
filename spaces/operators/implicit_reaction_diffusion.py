"""IRD: the implicit reaction-diffusion step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from spaces.diffusion import TimeStep
from spaces.operator import Box, Line, Mask, Operator, Permutation
from spaces.periodic import filter_cost
from spaces.place import Place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImplicitReactionDiffusion(TimeStep):
    """(I + h K'K)^-1 (y + h relu(N(M y))), periodic: every output reads every input.

    The inverse couples all pixels of a channel, M all channels of a pixel; with k = 1 the inverse
    is a number a channel. Stable for every h: the diffusion's radius max 1 / (1 + h |K^|^2) is at
    most 1, and 1 only at a zero of K^ (`kernels.diffusion.stability`).
    Source: Low-cost parameterizations, equation 11.

    >>> ImplicitReactionDiffusion().params(Place(32, 32, 8, 8))  # as RD
    1376
    """

    symbol = "IRD"
    spellings = ("ImpRD", "Imp. RD", "Implicit RD")

    @property
    def window(self) -> tuple[int, int] | None:
        return (1, 1) if self.kernel == 1 else None

    def reads(self, needed: Mask, place: Place) -> Mask:
        axes = (-3,) if self.kernel == 1 else (-3, -2, -1)
        return np.broadcast_to(needed.any(axis=axes, keepdims=True), needed.shape)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        rows, columns = self.window or (place.height, place.width)
        return (Box(rows, columns, place.channels),)

    def diffusion(self, place: Place, itemsize: int) -> Line:
        mults, adds = filter_cost(place, across_channels=False, real_symbol=True)
        weights = self.kernel**2 * place.channels
        return Line("fft", weights, mults, adds, weights * itemsize)

    def sums(self) -> int:
        return 1

    def advance(self) -> Callable[..., Tensor]:
        from kernels.diffusion.operation import implicit

        return implicit

    def stencils(self, place: Place) -> tuple[int, ...]:
        return (place.channels, 1, self.kernel, self.kernel)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=1), cls(kernel=5), cls(step=Fraction(1, 2)))
