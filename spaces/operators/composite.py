"""COMPOSITE(name): kernels that are superpositions of the binary masks of a basis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spaces.bases import REGISTERED, Basis, from_file, load, registered
from spaces.grouped import joined, shifted
from spaces.operator import Box, DesignError, Mask, Operator, Permutation, argument
from spaces.place import Place
from spaces.summed import SummedConvolution

if TYPE_CHECKING:
    from torch import nn

RESERVED = "()+,=~@ "
"""What a file's name cannot hold, since it has a meaning in a design's string."""


@dataclass(frozen=True)
class Composite(SummedConvolution):
    """W[f] = sum over m of alpha[f, m] beta_m for masks beta_m of a basis (`spaces.bases`).

    A basis over fewer channels than C is repeated over consecutive ones, B = C/depth times. With
    M masks,

        params = B M F,   mults = params H' W',
        adds = B sum over m of (ones in beta_m - 1) H W + (B M - 1) F H' W'.

    `name` is a registered basis or the file `name`.npz, whose digest `h` is part of the string.
    Source: Structured Convolutions, section 3.

    >>> Composite("fig1b").params(Place(1, 1, 8, 8))
    4
    """

    name: str = argument("name", None, str, bare=True)
    digest: str | None = argument("h", None, str)
    dilation: int = argument("d", 1)

    symbol = "COMPOSITE"
    spellings = ("Composite Kernel", "Composite Convolution")

    def __post_init__(self) -> None:
        """A bare COMPOSITE is the basis that the paper's text gives in full."""
        super().__post_init__()
        if self.name is None:
            object.__setattr__(self, "name", "fig1b")
        if self.dilation < 1:
            raise DesignError(f"COMPOSITE: dilation {self.dilation} is below 1")
        if self.name in REGISTERED:
            if self.digest is not None:
                raise DesignError(f"COMPOSITE: {self.name} is registered and takes no digest")
            return
        if found := set(RESERVED) & set(self.name):
            raise DesignError(
                f"COMPOSITE: the file name {self.name!r} holds {''.join(sorted(found))!r}, which a "
                f"design's string cannot; rename it without any of {RESERVED!r}"
            )
        object.__setattr__(self, "name", self.name.removesuffix(".npz"))
        digest = self.digest or load(self.name).digest
        object.__setattr__(self, "digest", from_file(self.name, digest).digest)

    @property
    def basis(self) -> Basis:
        """The masks."""
        return registered(self.name) if self.digest is None else from_file(self.name, self.digest)

    @property
    def masks(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """Where each mask is 1: (channel, row, column)."""
        return self.basis.entries

    @property
    def depth(self) -> int:
        """Channels of a mask."""
        return self.basis.depth

    @property
    def kernel(self) -> int:
        """Rows and columns of a mask."""
        return self.basis.kernel

    @property
    def window(self) -> tuple[int, int]:
        side = self.dilation * (self.kernel - 1) + 1
        return (side, side)

    def why_invalid(self, place: Place) -> str | None:
        depth = self.depth
        if place.channels % depth:
            return (
                f"{self}: masks over {depth} channels do not divide {place.channels} input "
                f"channels; valid are multiples of {depth}"
            )
        return None

    # ---- field -------------------------------------------------------------------------------

    def reads(self, needed: Mask, place: Place) -> Mask:
        pixels = joined(needed, 1, place)
        basis, half = self.basis, self.basis.kernel // 2
        copies = place.channels // basis.depth
        inputs = np.zeros((*pixels.shape[:-3], basis.depth, *pixels.shape[-2:]), bool)
        for channel, row, column in np.argwhere(basis.union):
            moved = shifted(pixels, (self.dilation * (int(row) - half),), -2)
            moved = shifted(moved, (self.dilation * (int(column) - half),), -1)
            inputs[..., channel, :, :] |= moved[..., 0, :, :]
        return np.concatenate([inputs] * copies, axis=-3)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        rows, columns = self.window
        return (Box(rows, columns, place.channels),)

    def connections(self, place: Place) -> int:
        return place.features * int(self.basis.union.sum()) * self._copies(place)

    # ---- costs -------------------------------------------------------------------------------

    def _copies(self, place: Place) -> int:
        return place.channels // self.depth

    def params(self, place: Place) -> int:
        return self._copies(place) * len(self.basis.masks) * place.features

    def sums(self, place: Place) -> int:
        added = self.basis.ones - len(self.basis.masks)
        return self._copies(place) * added * place.height * place.width

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """The masks, each at its weight."""
        basis, d = self.basis, self.dilation
        copies = self._copies(place)
        weight = random.standard_normal((place.features, copies, len(basis.masks)))
        summed = np.tensordot(weight, basis.masks.astype(float), axes=1)
        kernel = np.zeros((place.features, place.channels, *self.window))
        kernel[..., ::d, ::d] = summed.reshape(place.features, -1, basis.kernel, basis.kernel)
        return kernel

    # ---- module ------------------------------------------------------------------------------

    def module(self, place: Place) -> nn.Module:
        from kernels.structured.composite import composite
        from spaces.modules import Weighted

        copies = self._copies(place)
        options = {
            "masks": self.masks,
            "depth": self.depth,
            "kernel": self.kernel,
            "stride": place.stride,
            "dilation": self.dilation,
        }
        shape = (place.features, copies, len(self.masks))
        fan_in = copies * sum(map(len, self.masks))
        return Weighted(composite, {"weight": shape}, {"weight": fan_in}, options)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (cls("fig1a"), cls("fig1b"), cls("fig1c"), cls("fig1b", dilation=2))
