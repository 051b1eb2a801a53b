"""The items around the operators: they have no name in a design's string.

Each follows the operator contract, so that cost, module and export walk one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.operator import Box, Line, Mask, Operator, Permutation
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Fixed(Operator):
    """An item without multiplications by trained weights; by default it keeps shape and reads
    each input for the output in the same place."""

    symbol = "FIXED"
    resizes = False

    def why_invalid(self, place: Place) -> str | None:
        if not self.resizes and place.channels != place.features:
            return f"{self.symbol} cannot map {place.channels} to {place.features} channels"
        return None

    def reads(self, needed: Mask, place: Place) -> Mask:
        return needed

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return None if self.resizes else permutation

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(1, 1, 1),)

    def connections(self, place: Place) -> int:
        return 0

    def adds(self, place: Place) -> int:
        return 0

    def traffic(self, place: Place, itemsize: int) -> int:
        return 0

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls(),)


@dataclass(frozen=True)
class Shuffle(Fixed):
    """The channel permutation (group, j) -> (j, group), as `torch.nn.ChannelShuffle(g)`.

    It moves nothing that a convolution beside it would not move: no cost of its own.
    Source: Penetrating the Fog, section 3.2 ("channel permutation").
    """

    number: int = 1

    symbol = "SHUFFLE"
    ledger = "shuffle"

    def reads(self, needed: Mask, place: Place) -> Mask:
        *batch, channels, height, width = needed.shape
        split = needed.reshape(*batch, -1, self.number, height, width)
        return np.swapaxes(split, -4, -3).reshape(*batch, channels, height, width)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        source = np.arange(place.channels).reshape(-1, self.number).T.ravel()
        return np.argsort(source)[permutation[source]]

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.ChannelShuffle(self.number)


@dataclass(frozen=True)
class AveragePool(Fixed):
    """The mean over stride x stride windows, which carries the stride of a design that cannot.

    The last window of an odd map is smaller, so that the output is ceil(H / stride) as for a
    convolution. Each input belongs to one window: adds = C (H W - H' W').
    """

    symbol = "POOL"
    ledger = "pool"

    def reads(self, needed: Mask, place: Place) -> Mask:
        s = place.stride
        full = np.repeat(np.repeat(needed, s, axis=-2), s, axis=-1)
        return full[..., : place.height, : place.width]

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.stride, place.stride, 1),)

    def mults(self, place: Place) -> int:
        return place.out_elements

    def adds(self, place: Place) -> int:
        return place.in_elements - place.out_elements

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + place.out_elements) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.AvgPool2d(place.stride, ceil_mode=True)


@dataclass(frozen=True)
class Shortcut(Fixed):
    """The identity over a block, without parameters: mean over the stride, new channels zero.

    Where F < C the first F channels pass. Its sum with the block's output is counted here.
    Source: Penetrating the Fog, section 4.1 ("identity mapping").
    """

    symbol = "SHORTCUT"
    ledger = "shortcut"
    resizes = True

    def reads(self, needed: Mask, place: Place) -> Mask:
        kept = min(place.channels, place.features)
        *batch, _, height, width = needed.shape
        inputs = np.zeros((*batch, place.channels, height, width), bool)
        inputs[..., :kept, :, :] = needed[..., :kept, :, :]
        return AveragePool().reads(inputs, place) if place.stride > 1 else inputs

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.stride, place.stride, 1),)

    def adds(self, place: Place) -> int:
        pooled = place.in_elements - place.channels * place.out_pixels
        return pooled + min(place.channels, place.features) * place.out_pixels

    def module(self, place: Place) -> nn.Module:
        from spaces.modules import Identity

        return Identity(place.channels, place.features, place.stride)


@dataclass(frozen=True)
class BatchNorm(Fixed):
    """Batch normalisation: a scale and a shift a channel, one multiplication and addition each."""

    symbol = "BN"
    ledger = "norm"

    def params(self, place: Place) -> int:
        return 2 * place.channels

    def mults(self, place: Place) -> int:
        return place.in_elements

    def adds(self, place: Place) -> int:
        return place.in_elements

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.BatchNorm2d(place.channels)


@dataclass(frozen=True)
class ReLU(Fixed):
    """max(x, 0): neither multiplications nor additions."""

    symbol = "RELU"
    ledger = "activation"

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.ReLU()


@dataclass(frozen=True)
class MaxPool(Fixed):
    """The largest value of a 3 x 3 window, as in the stem of the paper's Table 1."""

    symbol = "MAXPOOL"
    ledger = "pool"

    def reads(self, needed: Mask, place: Place) -> Mask:
        from spaces.grouped import shifted, spread

        pixels = spread(needed, place)
        return shifted(shifted(pixels, (-1, 0, 1), -1), (-1, 0, 1), -2)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(3, 3, 1),)

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + place.out_elements) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(3, stride=place.stride, padding=1)


@dataclass(frozen=True)
class Classifier(Fixed):
    """The mean over the map, then a dense layer with bias: F classes from C channels.

    The mean takes C (H W - 1) additions and C multiplications.
    """

    symbol = "CLASSIFIER"
    ledger = "linear"
    resizes = True

    def reads(self, needed: Mask, place: Place) -> Mask:
        any_class = needed.any(axis=(-3, -2, -1), keepdims=True)
        shape = (*needed.shape[:-3], place.channels, place.height, place.width)
        return np.broadcast_to(any_class, shape)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.height, place.width, place.channels),)

    def params(self, place: Place) -> int:
        return (place.channels + 1) * place.features

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        c, f = place.channels, place.features
        moved = (place.in_elements + self.params(place) + f) * itemsize
        return (
            Line("pool", 0, c, place.in_elements - c, 0),
            Line("linear", c * f, c * f, (c - 1) * f, moved),
            Line("bias", f, 0, f, 0),
        )

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(place.channels, place.features)
        )
