"""Convolutions that first add inputs up over binary masks, then multiply by fewer weights.

The sums are shared by all outputs and counted once a layer; they are additions alone. What
follows is a convolution that multiplies by every weight at every output pixel:

    mults = params H' W',   adds = sums + (params - F) H' W'.

torch's counter sees the multiplications; the sums are counted by the formula of each operator.
Source: Structured Convolutions (Bhalgat et al. 2020), sections 3.1 and 4.2.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from spaces.operator import Line, Operator
from spaces.place import Place


def linear_adds(inputs: int, outputs: int, kept: int) -> int:
    """Additions of a structured Q -> P linear layer with R weights a row: R (Q-R) + (R-1) P.

    The paper prints (P R - 1) P for the second term (section 4.3), which is no count of it.

    >>> linear_adds(512, 1000, 256)
    320536
    """
    return kept * (inputs - kept) + (kept - 1) * outputs


@dataclass(frozen=True)
class SummedConvolution(Operator):
    """An operator of two steps: `sums`, then the convolution by its weights."""

    @abstractmethod
    def sums(self, place: Place) -> int:
        """Additions of the sums over the masks, on the whole map."""

    def mults(self, place: Place) -> int:
        return self.params(place) * place.out_pixels

    def adds(self, place: Place) -> int:
        return self.sums(place) + (self.params(place) - place.features) * place.out_pixels

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        sums, moved = self.sums(place), self.traffic(place, itemsize)
        convolution = (self.params(place), self.mults(place), self.adds(place) - sums, moved)
        return (Line("sum-pool", 0, 0, sums, 0), Line(self.ledger, *convolution))
