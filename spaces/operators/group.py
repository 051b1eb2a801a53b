"""GC(M): the k x k convolution in M groups."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.grouped import NumberedGroups
from spaces.operator import Operator
from spaces.operators.depthwise import Depthwise
from spaces.operators.pointwise_group import PointwiseGroup
from spaces.operators.standard import Standard
from spaces.place import Place


@dataclass(frozen=True)
class Group(NumberedGroups):
    """Each of M groups of C/M channels by itself: field (k, k, C/M).

    Source: Penetrating the Fog, section 2.2.

    >>> Group(g=4).params(Place(64, 64, 32, 32))
    9216
    """

    symbol = "GC"
    spellings = ("GConv", "Group Convolution")

    def canonical(self, place: Place | None = None) -> Operator:
        if self.kernel == 1:
            return PointwiseGroup(self.g, self.q).canonical(place)
        g = self.g if place is None or self.is_open else self.groups(place)
        if g == 1:
            return Standard(self.kernel, self.dilation).canonical(place)
        if place and g == place.channels == place.features:
            return Depthwise(self.kernel, self.dilation)
        if isinstance(g, int):
            return Group(self.kernel, self.dilation, g)
        return self

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(g=2), cls(g=4), cls(q=4), cls(g=2, kernel=5), cls(g=4, dilation=2))
