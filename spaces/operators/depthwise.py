"""DW: one filter a channel."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.grouped import GroupedConvolution
from spaces.operator import Operator
from spaces.place import Place


@dataclass(frozen=True)
class Depthwise(GroupedConvolution):
    """T[c] = sum over taps of I[c] W[c]: field (k, k, 1). It keeps the width.

    Source: Penetrating the Fog, section 2.3.

    >>> Depthwise().params(Place(64, 64, 32, 32))
    576
    """

    symbol = "DW"
    spellings = ("DWConv", "Depthwise Convolution", "Depthwise")
    resizes = False

    def groups(self, place: Place) -> int:
        return place.channels

    def why_invalid(self, place: Place) -> str | None:
        if place.channels != place.features:
            return f"{self} keeps the width: it cannot map {place.channels} to {place.features}"
        return None

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(kernel=5), cls(kernel=7), cls(dilation=2))
