"""How several maps become one: the sum, the concatenation of channels, the product.

A merge stands at the head of a part; its place has the channels that leave it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.fixed import Fixed
from spaces.operator import Mask, Operator
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Merge(Fixed):
    """Several maps into one; `widths` are the channels of each, in the order of the sources."""

    widths: tuple[int, ...] = (1, 1)

    ledger = "shortcut"

    def pull(self, needed: Mask, place: Place) -> tuple[Mask, ...]:
        """What each source must provide (..., its channels, H, W) for the needed outputs."""
        return (needed,) * len(self.widths)

    def inputs(self, place: Place) -> int:
        """Numbers in the maps that enter."""
        return sum(self.widths) * place.height * place.width

    def traffic(self, place: Place, itemsize: int) -> int:
        return (self.inputs(place) + place.out_elements) * itemsize


@dataclass(frozen=True)
class Sum(Merge):
    """Maps of one shape, added: (n - 1) C H W additions."""

    symbol = "SUM"

    def adds(self, place: Place) -> int:
        return (len(self.widths) - 1) * place.in_elements

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Sum as Module

        return Module()

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls((4, 4)), cls((4, 4, 4)))


@dataclass(frozen=True)
class Concat(Merge):
    """Maps of one size, their channels in a row. It moves nothing that its reader would not."""

    symbol = "CONCAT"

    def pull(self, needed: Mask, place: Place) -> tuple[Mask, ...]:
        return tuple(np.split(needed, np.cumsum(self.widths)[:-1], axis=-3))

    def traffic(self, place: Place, itemsize: int) -> int:
        return 0

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Concat as Module

        return Module()

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls((4, 4)), cls((4, 2, 6)))


@dataclass(frozen=True)
class Product(Merge):
    """A map times one number a channel (C, 1, 1), as squeeze-and-excitation scales: C H W mults."""

    symbol = "PRODUCT"

    def pull(self, needed: Mask, place: Place) -> tuple[Mask, ...]:
        return needed, np.any(needed, axis=(-2, -1), keepdims=True)

    def mults(self, place: Place) -> int:
        return place.in_elements

    def inputs(self, place: Place) -> int:
        return place.in_elements + place.channels

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Product as Module

        return Module()

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls((4, 4)),)
