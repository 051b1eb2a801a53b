"""PWG(N): the 1 x 1 convolution in N groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from spaces.grouped import NumberedGroups
from spaces.operator import Operator
from spaces.operators.pointwise import Pointwise
from spaces.place import Place


@dataclass(frozen=True)
class PointwiseGroup(NumberedGroups):
    """Each of N groups of C/N channels by itself, one pixel: field (1, 1, C/N).

    Source: Penetrating the Fog, section 2.5.

    >>> PointwiseGroup(g=4).params(Place(64, 64, 32, 32))
    1024
    """

    symbol = "PWG"
    spellings = ("PWGConv", "GPW", "Pointwise Group Convolution")

    kernel: int = field(default=1, init=False)
    dilation: int = field(default=1, init=False)

    def canonical(self, place: Place | None = None) -> Operator:
        g = self.g if place is None or self.is_open else self.groups(place)
        if g == 1:
            return Pointwise()
        return PointwiseGroup(g) if isinstance(g, int) else self

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(g=2), cls(g=4), cls(q=4))
