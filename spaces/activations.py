"""Items behind a convolution that keep the shape: bias, activations, dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.fixed import Fixed
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Bias(Fixed):
    """One trained number a channel, added."""

    symbol = "BIAS"
    ledger = "bias"

    def params(self, place: Place) -> int:
        return place.channels

    def adds(self, place: Place) -> int:
        return place.in_elements

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Bias as Module

        return Module(place.channels)


@dataclass(frozen=True)
class SiLU(Fixed):
    """x sigmoid(x), also called swish: one multiplication beside the sigmoid."""

    symbol = "SILU"
    ledger = "activation"

    def mults(self, place: Place) -> int:
        return place.in_elements

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.SiLU()


@dataclass(frozen=True)
class Sigmoid(Fixed):
    """1 / (1 + exp(-x)); an exponential is neither a multiplication nor an addition."""

    symbol = "SIGMOID"
    ledger = "activation"

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Sigmoid()


@dataclass(frozen=True)
class Dropout(Fixed):
    """In training each value is zero with probability `rate`; otherwise the identity."""

    rate: float = 0.2

    symbol = "DROPOUT"
    ledger = "activation"

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Dropout(self.rate)
