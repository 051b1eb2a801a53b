"""Items of the mobile networks: a bounded activation, and a part of the channels."""

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
class ReLU6(Fixed):
    """min(max(x, 0), 6). Source: Sandler et al. 2018, section 3."""

    symbol = "RELU6"
    ledger = "activation"

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.ReLU6()


@dataclass(frozen=True)
class Slice(Fixed):
    """F of the C channels, from `first` on. It moves nothing that its reader would not.

    Source: Ma et al. 2018, "ShuffleNet V2", section 4 ("channel split").
    """

    first: int = 0

    symbol = "SLICE"
    ledger = "shortcut"
    resizes = True

    def why_invalid(self, place: Place) -> str | None:
        if self.first + place.features > place.channels:
            return (
                f"SLICE: channels {self.first} to {self.first + place.features - 1} of "
                f"{place.channels} do not exist"
            )
        return None

    def reads(self, needed: Mask, place: Place) -> Mask:
        inputs = np.zeros((*needed.shape[:-3], place.channels, *needed.shape[-2:]), bool)
        inputs[..., self.first : self.first + place.features, :, :] = needed
        return inputs

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Slice as Module

        return Module(self.first, place.features)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(), cls(1))
