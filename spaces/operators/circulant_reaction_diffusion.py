"""CRD: the explicit reaction-diffusion step whose diffusion is block-circulant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from spaces.diffusion import TimeStep
from spaces.operator import Box, Line, Mask, Operator, Permutation
from spaces.periodic import filter_cost, wrapped
from spaces.place import Place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CirculantReactionDiffusion(TimeStep):
    """y + h (-K_circ' K_circ y + relu(N(M y))), periodic: field (2k - 1, 2k - 1, C).

    K_circ is scaled back where training would make the step unstable, as that of RD.
    Source: Low-cost parameterizations, equation 9 with the operator of equation 12.

    >>> CirculantReactionDiffusion().params(Place(32, 32, 8, 8))  # as RD: C stencils
    1376
    """

    symbol = "CRD"
    spellings = ("CircRD", "Circ. RD", "Circular RD", "Circulant RD")

    @property
    def window(self) -> tuple[int, int]:
        return (2 * self.kernel - 1, 2 * self.kernel - 1)

    def reads(self, needed: Mask, place: Place) -> Mask:
        offsets = range(1 - self.kernel, self.kernel)
        pixels = np.any(needed, axis=-3, keepdims=True)
        return np.broadcast_to(wrapped(wrapped(pixels, offsets, -2), offsets, -1), needed.shape)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, place.channels),)

    def diffusion(self, place: Place, itemsize: int) -> Line:
        """K_circ' K_circ at once: its symbol |K^|^2 is real."""
        mults, adds = filter_cost(place, across_channels=True, real_symbol=True)
        weights = self.kernel**2 * place.channels
        return Line("fft", weights, mults, adds, weights * itemsize)

    def sums(self) -> int:
        return 2

    def advance(self) -> Callable[..., Tensor]:
        from kernels.diffusion.operation import stable_circulant_explicit

        return stable_circulant_explicit

    def stencils(self, place: Place) -> tuple[int, ...]:
        return (place.channels, self.kernel, self.kernel)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=5), cls(step=Fraction(1, 2)))
