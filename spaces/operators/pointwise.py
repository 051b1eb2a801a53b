"""PW: the 1 x 1 convolution."""

from __future__ import annotations

from dataclasses import dataclass, field

from spaces.grouped import GroupedConvolution
from spaces.operator import Operator


@dataclass(frozen=True)
class Pointwise(GroupedConvolution):
    """T[f] = sum over c of I[c] W[c, f]: field (1, 1, C).

    Source: Penetrating the Fog, section 2.4.

    >>> from spaces.place import Place
    >>> Pointwise().params(Place(64, 128, 32, 32))
    8192
    """

    symbol = "PW"
    spellings = ("PWConv", "Pointwise Convolution", "Pointwise")

    kernel: int = field(default=1, init=False)
    dilation: int = field(default=1, init=False)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(),)
