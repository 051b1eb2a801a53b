"""More items around the operators: what the layouts of the literature need beside `fixed`.

As there, each follows the operator contract and has no name in a design's string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.fixed import Fixed
from spaces.grouped import spread
from spaces.operator import Box, Line, Mask
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Resized(Place):
    """A place whose output map is rows x columns, whatever the stride makes of the input's."""

    rows: int = 1
    columns: int = 1

    @property
    def out_height(self) -> int:
        return self.rows

    @property
    def out_width(self) -> int:
        return self.columns


def pulled(needed: Mask, rows: Mask, columns: Mask) -> Mask:
    """The inputs (..., H, W) of the needed outputs (..., H', W'), where output row i reads the
    input rows `rows[i]` (H', H) and likewise for columns (W', W).

    Neighbouring outputs read each input, so that a mask has one run of True in each column.
    """
    return _any_reader(_any_reader(needed, columns, -1), rows, -2)


def _any_reader(needed: Mask, reads: Mask, axis: int) -> Mask:
    """Along one axis: whether any output that reads an input is needed."""
    outputs, inputs = reads.shape
    first, last = reads.argmax(axis=0), outputs - reads[::-1].argmax(axis=0)
    runs = np.stack([first, last], axis=1).ravel()
    room = np.zeros_like(np.take(needed, [0], axis))
    found = np.logical_or.reduceat(np.concatenate([needed, room], axis), runs, axis)
    every_other = np.take(found, range(0, 2 * inputs, 2), axis)
    shape = [1] * needed.ndim
    shape[axis] = inputs
    return every_other & reads.any(axis=0).reshape(shape)


# ---- convolutions and pools --------------------------------------------------------------------


@dataclass(frozen=True)
class ValidConvolution(Fixed):
    """A dense k x k convolution without padding: floor((H - k) / stride) + 1 rows and as many
    columns, so that it stands at a `Resized` place.

    Source: Factorized CNN, Table 1, stage 1 (221 -> 108).
    """

    kernel: int = 3

    symbol = "VALID"
    ledger = "conv"
    resizes = True

    def size(self, side: int, stride: int) -> int:
        """Windows that fit along a side.

        >>> ValidConvolution(7).size(221, stride=2)
        108
        """
        return (side - self.kernel) // stride + 1

    def place(
        self, channels: int, features: int, height: int, width: int, stride: int = 1
    ) -> Resized:
        """Where it stands on this map."""
        rows, columns = self.size(height, stride), self.size(width, stride)
        return Resized(channels, features, height, width, stride, rows, columns)

    def reads(self, needed: Mask, place: Place) -> Mask:
        pixels = pulled(
            np.any(needed, axis=-3, keepdims=True),
            self._windows(place.out_height, place.height, place.stride),
            self._windows(place.out_width, place.width, place.stride),
        )
        return np.broadcast_to(pixels, (*pixels.shape[:-3], place.channels, *pixels.shape[-2:]))

    def _windows(self, outputs: int, inputs: int, stride: int) -> Mask:
        first = stride * np.arange(outputs)[:, None]
        return (first <= np.arange(inputs)) & (np.arange(inputs) < first + self.kernel)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(self.kernel, self.kernel, place.channels),)

    def params(self, place: Place) -> int:
        return place.channels * place.features * self.kernel**2

    def mults(self, place: Place) -> int:
        return self.params(place) * place.out_pixels

    def adds(self, place: Place) -> int:
        return (self.params(place) - place.features) * place.out_pixels

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + self.params(place) + place.out_elements) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Conv2d(
            place.channels, place.features, self.kernel, stride=place.stride, bias=False
        )


@dataclass(frozen=True)
class Subsample(Fixed):
    """Every stride-th row and column: with a 1 x 1 convolution behind it, one with a stride."""

    symbol = "SUBSAMPLE"
    ledger = "shortcut"

    def reads(self, needed: Mask, place: Place) -> Mask:
        return spread(needed, place)

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(1, stride=place.stride)


@dataclass(frozen=True)
class TiledMaxPool(Fixed):
    """The largest value of each stride x stride window; the last one of an odd map is smaller."""

    symbol = "TILEDMAX"
    ledger = "pool"

    def reads(self, needed: Mask, place: Place) -> Mask:
        s = place.stride
        full = np.repeat(np.repeat(needed, s, axis=-2), s, axis=-1)
        return full[..., : place.height, : place.width]

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.stride, place.stride, 1),)

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + place.out_elements) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.MaxPool2d(place.stride, ceil_mode=True)


@dataclass(frozen=True)
class GlobalPool(Fixed):
    """The mean of each channel over the whole map: C mults and C (H W - 1) adds."""

    symbol = "GLOBALPOOL"
    ledger = "pool"

    def reads(self, needed: Mask, place: Place) -> Mask:
        return np.broadcast_to(needed, (*needed.shape[:-2], place.height, place.width))

    @property
    def window(self) -> None:
        return None

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.height, place.width, 1),)

    def mults(self, place: Place) -> int:
        return place.channels

    def adds(self, place: Place) -> int:
        return place.in_elements - place.channels

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + place.channels) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.AdaptiveAvgPool2d(1)


@dataclass(frozen=True)
class Upsample(Fixed):
    """Bilinear interpolation to the rows x columns of a `Resized` place: 4 mults and 3 adds an
    output, pixel centres aligned as in `torch.nn.Upsample`."""

    symbol = "UPSAMPLE"
    ledger = "pool"

    def reads(self, needed: Mask, place: Place) -> Mask:
        rows = self._neighbours(place.out_height, place.height)
        return pulled(needed, rows, self._neighbours(place.out_width, place.width))

    @staticmethod
    def _neighbours(outputs: int, inputs: int) -> Mask:
        """The one or two inputs between which each output lies."""
        at = np.maximum(0.0, (np.arange(outputs) + 0.5) * inputs / outputs - 0.5)[:, None]
        return np.abs(np.minimum(at, inputs - 1) - np.arange(inputs)) < 1

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(2, 2, 1),)

    def mults(self, place: Place) -> int:
        return 4 * place.out_elements

    def adds(self, place: Place) -> int:
        return 3 * place.out_elements

    def traffic(self, place: Place, itemsize: int) -> int:
        return (place.in_elements + place.out_elements) * itemsize

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Upsample((place.out_height, place.out_width), mode="bilinear")


# ---- towards the scores --------------------------------------------------------------------------


@dataclass(frozen=True)
class Flatten(Fixed):
    """(N, C, 1, 1) -> (N, C)."""

    symbol = "FLATTEN"
    ledger = "shuffle"

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Flatten()


@dataclass(frozen=True)
class Dense(Fixed):
    """Every output from every value of the map, with bias: F (C H W + 1) parameters.

    (N, C, H, W) or (N, C) -> (N, F), at a `Resized` place of one pixel.
    """

    symbol = "DENSE"
    ledger = "linear"
    resizes = True

    def reads(self, needed: Mask, place: Place) -> Mask:
        any_output = needed.any(axis=(-3, -2, -1), keepdims=True)
        shape = (*needed.shape[:-3], place.channels, place.height, place.width)
        return np.broadcast_to(any_output, shape)

    @property
    def window(self) -> None:
        return None

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(place.height, place.width, place.channels),)

    def params(self, place: Place) -> int:
        return (place.in_elements + 1) * place.features

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        inputs, f = place.in_elements, place.features
        moved = (inputs + self.params(place) + f) * itemsize
        return (
            Line("linear", inputs * f, inputs * f, (inputs - 1) * f, moved),
            Line("bias", f, 0, f, 0),
        )

    def module(self, place: Place) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(place.in_elements, place.features))


def dense(channels: int, features: int, height: int = 1, width: int = 1) -> Resized:
    """The place of a `Dense` layer."""
    return Resized(channels, features, height, width)


def pooled(channels: int, height: int, width: int) -> Resized:
    """The place of a `GlobalPool`."""
    return Resized(channels, channels, height, width)
