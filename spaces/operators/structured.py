"""STRUCT(c, n): a k x k convolution whose kernels are superpositions of cuboids of ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from spaces.grouped import GroupedWindow, GroupNumber
from spaces.operator import DesignError, Operator, argument
from spaces.operators.group import Group
from spaces.place import Place
from spaces.summed import SummedConvolution

if TYPE_CHECKING:
    from torch import nn


def share(text: str) -> Fraction:
    """A share of the channels: 1/2, 9/16, 0.5 or 1."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise DesignError(f"{text!r} is not a fraction such as 1/2") from None


@dataclass(frozen=True)
class Structured(SummedConvolution, GroupNumber, GroupedWindow):
    """The k x k convolution in g groups with kernels of c n^2 degrees of freedom: sums over
    (C/g-c+1) x (k-n+1)^2 cuboids, then a c x n x n convolution.

    With c standing for max(1, floor(c C/g)) channels and H1 = H + d (n-1),

        params = c n^2 F,   mults = params H' W',
        adds = ((C/g-c+1)(k-n+1)^2 - 1) c g H1 W1 + (c n^2 - 1) F H' W'.

    It reads what the dense kernel reads: the cuboids cover all of it. q=1 is depthwise, k=1
    pointwise. The sums have stride 1 on the padded map, the stride goes to the convolution.

    Source: Structured Convolutions, section 4, definition 3.

    >>> Structured(c=Fraction(1, 2), n=2).params(Place(64, 64, 32, 32))
    8192
    """

    g: int | None = argument("g", None)
    c: Fraction = argument("c", None, share)
    n: int = argument("n", None)

    symbol = "STRUCT"
    spellings = ("Structured Convolution", "Structured")
    grouped = True

    def __post_init__(self) -> None:
        """c and n stand in every string: left out, they are 1/2 and (k+1)/2."""
        super().__post_init__()
        for name, usual in (("c", Fraction(1, 2)), ("n", (self.kernel + 1) // 2)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        if not 0 < self.c <= 1:
            raise DesignError(
                f"STRUCT: c={self.c} is no share of the channels of a group; valid are fractions "
                "above 0 and up to 1"
            )
        if not 1 <= self.n <= self.kernel:
            raise DesignError(f"STRUCT: n={self.n} is outside 1 to k={self.kernel}")

    @property
    def is_open(self) -> bool:
        return False

    def groups(self, place: Place) -> int:
        return 1 if self.g is None and self.q is None else self.number(place)

    def why_invalid(self, place: Place) -> str | None:
        return self.why_no_number(place) or super().why_invalid(place)

    def kept(self, place: Place) -> int:
        """c as a number of channels of a group."""
        return max(1, int(self.c * (place.channels // self.groups(place))))

    def canonical(self, place: Place | None = None) -> Operator:
        if place is None:
            g, c = self.g, self.c
        else:
            g = self.groups(place)
            c = Fraction(self.kept(place), place.channels // g)
        q = self.q if place is None else None
        if c == 1 and self.n == self.kernel:
            one = 1 if g is None and q is None else g
            return Group(self.kernel, self.dilation, one, q).canonical(place)
        return Structured(self.kernel, self.dilation, None if g == 1 else g, q, c, self.n)

    # ---- costs -------------------------------------------------------------------------------

    def params(self, place: Place) -> int:
        return self.kept(place) * self.n**2 * place.features

    def sums(self, place: Place) -> int:
        g, c = self.groups(place), self.kept(place)
        border = self.dilation * (self.n - 1)
        cuboids = g * c * (place.height + border) * (place.width + border)
        return (self._cuboid(place) - 1) * cuboids

    def _cuboid(self, place: Place) -> int:
        """Inputs that one sum adds up."""
        depth = place.channels // self.groups(place) - self.kept(place) + 1
        return depth * (self.kernel - self.n + 1) ** 2

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """Each weight spread over its cuboid of ones."""
        g, c, n, d = self.groups(place), self.kept(place), self.n, self.dilation
        depth, side = place.channels // g - c + 1, self.kernel - n + 1
        weight = random.standard_normal((g, place.features // g, c, n, n))
        own = np.zeros((*weight.shape[:2], place.channels // g, *self.window))
        for at in np.ndindex(depth, side, side):
            channel, row, column = at
            rows, columns = (slice(d * x, d * (x + n - 1) + 1, d) for x in (row, column))
            own[:, :, channel : channel + c, rows, columns] += weight
        kernel = np.zeros((g, place.features // g, g, place.channels // g, *self.window))
        kernel[np.arange(g), :, np.arange(g)] = own
        return kernel.reshape(place.features, place.channels, *self.window)

    # ---- module ------------------------------------------------------------------------------

    def module(self, place: Place) -> nn.Module:
        from kernels.structured.operation import structured
        from spaces.modules import Weighted

        c = self.kept(place)
        options = {
            "kernel": self.kernel,
            "groups": self.groups(place),
            "stride": place.stride,
            "dilation": self.dilation,
        }
        fan_in = c * self.n**2 * self._cuboid(place)
        shape = (place.features, c, self.n, self.n)
        return Weighted(structured, {"weight": shape}, {"weight": fan_in}, options)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        half, whole = Fraction(1, 2), Fraction(1)
        return (
            cls(c=half, n=2),
            cls(c=whole, n=2),
            cls(c=Fraction(9, 16), n=1),
            cls(c=half, n=1, kernel=1),
            cls(c=half, n=2, g=2),
            cls(c=whole, n=2, q=1),
            cls(c=half, n=4, kernel=5),
            cls(c=half, n=2, dilation=2),
            cls(c=half, n=3),
        )
