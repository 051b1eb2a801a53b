"""RD: the explicit reaction-diffusion step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from spaces.diffusion import TimeStep
from spaces.grouped import shifted
from spaces.operator import Box, Line, Mask, Operator, Permutation
from spaces.place import Place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReactionDiffusion(TimeStep):
    """y + h (-K'K y + relu(N(M y))), zero padding: field (2k - 1, 2k - 1) of its own channel and
    (1, 1) of the others.

    Stable as far as the diffusion goes iff h max |K^|^2 <= 2; K starts below 1 and is scaled back
    where training would take it beyond (`kernels.diffusion.stability`).
    Source: Low-cost parameterizations, equation 9.

    >>> ReactionDiffusion().params(Place(32, 32, 8, 8))  # 9 C + C^2, and 2 C of N
    1376
    """

    symbol = "RD"
    spellings = ("ExpRD", "Exp. RD", "Explicit RD")

    @property
    def window(self) -> tuple[int, int]:
        return (2 * self.kernel - 1, 2 * self.kernel - 1)

    def reads(self, needed: Mask, place: Place) -> Mask:
        offsets = range(1 - self.kernel, self.kernel)
        spread = shifted(shifted(needed, offsets, -2), offsets, -1)
        return spread | needed.any(axis=-3, keepdims=True)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return permutation

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, 1), Box(1, 1, place.channels))

    def diffusion(self, place: Place, itemsize: int) -> Line:
        """K, and its adjoint with the same weights."""
        weights, n = self.kernel**2 * place.channels, place.out_pixels
        adds = 2 * (weights - place.channels) * n
        return Line("conv", weights, 2 * weights * n, adds, weights * itemsize)

    def sums(self) -> int:
        return 2

    def advance(self) -> Callable[..., Tensor]:
        from kernels.diffusion.operation import stable_explicit

        return stable_explicit

    def stencils(self, place: Place) -> tuple[int, ...]:
        return (place.channels, 1, self.kernel, self.kernel)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=5), cls(step=Fraction(1, 2)))
