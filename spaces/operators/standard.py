"""STD: the dense convolution that every design replaces."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.grouped import GroupedConvolution
from spaces.operator import Operator
from spaces.operators.pointwise import Pointwise
from spaces.place import Place


@dataclass(frozen=True)
class Standard(GroupedConvolution):
    """T[f] = sum over c and taps of I[c] W[c, f]: field (k, k, C).

    Source: Penetrating the Fog, section 2.1.

    >>> Standard().params(Place(64, 64, 32, 32))
    36864
    """

    symbol = "STD"
    spellings = ("Standard Convolution", "Standard", "Conv", "ResNet")

    def canonical(self, place: Place | None = None) -> Operator:
        return Pointwise() if self.kernel == 1 else self

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=5), cls(dilation=2))
