"""One time step of a reaction-diffusion equation as an operator.

    dy/dt = -K'K y + relu(N(M y))

K: a k x k stencil a channel, the diffusion. M: a 1 x 1 convolution, N: batch normalisation; with
the activation they are the reaction. h: the step size, fixed. A step owns its normalisation, its
activation and its residual, so a block adds nothing to it.

Source: Low-cost parameterizations of deep CNNs, section 3.2. Weights: k^2 C + C^2, and 2 C of N.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from spaces.fixed import BatchNorm, ReLU
from spaces.itemised import Itemised
from spaces.keeping import ShapeKeeping, check_odd
from spaces.operator import DesignError, Line, argument
from spaces.place import Place

if TYPE_CHECKING:
    from torch import Tensor, nn


def fraction(text: str) -> Fraction:
    """A positive number, written 1/2 or 0.5."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise DesignError(f"{text!r} is not a number; write e.g. 1/2") from None


@dataclass(frozen=True)
class TimeStep(Itemised, ShapeKeeping):
    """A step of size h. Each scheme declares how it advances and what its diffusion costs.

    `sums`: additions of whole maps that the scheme makes.
    """

    kind = "step"

    kernel: int = argument("k", 3)
    step: Fraction = argument("h", Fraction(1), fraction)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, self.kernel)
        if self.step <= 0:
            raise DesignError(f"{self.symbol}: the step size h={self.step} must be positive")

    @abstractmethod
    def diffusion(self, place: Place, itemsize: int) -> Line:
        """The ledger line of K, whose weights are read once."""

    @abstractmethod
    def sums(self) -> int:
        """Additions of one whole map to another."""

    @abstractmethod
    def advance(self) -> Callable[..., Tensor]:
        """(y, reaction, kernel, step) -> the next y."""

    @abstractmethod
    def stencils(self, place: Place) -> tuple[int, ...]:
        """The shape of K's weights."""

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        c, n = place.channels, place.out_pixels
        moved = (place.in_elements + c * c + place.out_elements) * itemsize
        scaled = 0 if self.step == 1 else c * n
        return (
            Line("conv", c * c, c * c * n, (c - 1) * c * n, moved),
            *BatchNorm().lines(place, itemsize),
            *ReLU().lines(place, itemsize),
            self.diffusion(place, itemsize),
            Line("shortcut", 0, scaled, self.sums() * c * n, 0),
        )

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        from kernels.diffusion.stability import bound
        from spaces.modules import TimeStep, Weighted

        c = place.channels
        reaction = nn.Sequential(nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
        shape = self.stencils(place)
        fan_in = self.kernel**2 * (c if len(shape) == 3 else 1)
        advance = Weighted(
            self.advance(),
            {"kernel": shape},
            {"kernel": fan_in},
            {"step": float(self.step)},
            bound=bound,
        )
        return TimeStep(reaction, advance)
