"""SIC: one filter a channel, a projection, and the input added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.grouped import shifted
from spaces.itemised import Itemised
from spaces.keeping import check_odd
from spaces.operator import Box, Line, Mask, Operator, Permutation, argument
from spaces.place import Place
from spaces.subdivided import Extents, Subdivided, Topology

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SingleIntraChannel(Itemised, Subdivided):
    """P(D x) + x, nothing normalised inside: field (k, k, C), k^2 C + C F weights.

    C != F has no identity: of SIC+SIC@1/2, the paper's bottleneck pair, the block adds one around
    both. With a grid the projection is subdivided (`TPS`), F prod t weights instead of C F.
    Source: Factorized CNN, section 2.2.3 (SIC), 3.2 (with a grid), 3.3 (pairs).

    >>> SingleIntraChannel().params(Place(64, 64, 32, 32))
    4672
    """

    symbol = "SIC"
    spellings = ("Single Intra-Channel Convolution",)
    kind = "residual"

    kernel: int = argument("k", 3)
    axes: int | None = argument("s", None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, self.kernel)

    @property
    def window(self) -> tuple[int, int]:
        return (self.kernel, self.kernel)

    @property
    def strides(self) -> bool:
        return False

    @property
    def subdivided(self) -> bool:
        """Whether the projection reads neighbours only."""
        return self.axes is not None or self.grid is not None

    def adds_input(self, place: Place) -> bool:
        return place.channels == place.features

    def why_invalid(self, place: Place) -> str | None:
        if place.stride != 1:
            return f"{self} keeps the map: stride {place.stride} needs a pool before it"
        if not self.subdivided:
            return None
        if place.channels != place.features:
            return (
                f"{self} keeps the width, since its channels lie on one grid: it cannot map "
                f"{place.channels} to {place.features}"
            )
        return self.why_no_topology(place.channels)

    def _projection(self, place: Place) -> Topology:
        """What the projection reads: a line on which everything is near, unless subdivided."""
        dense = Extents([place.channels])
        return self.topology(place.channels) or Topology(dense, dense)

    def reads(self, needed: Mask, place: Place) -> Mask:
        if self.subdivided:
            mixed = self._projection(place).reads(needed)
        else:
            mixed = np.any(needed, axis=-3, keepdims=True)
        half = self.kernel // 2
        offsets = range(-half, half + 1)
        pixels = shifted(shifted(mixed, offsets, -2), offsets, -1)
        return np.broadcast_to(pixels, (*needed.shape[:-3], place.channels, *needed.shape[-2:]))

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        if self.subdivided:
            return self._projection(place).carried(permutation)
        return np.arange(place.channels)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, self._projection(place).fan_in),)

    def canonical(self, place: Place | None = None) -> Operator:
        """The grid in numbers, or none where every channel is near."""
        topology = self.topology(place.channels) if place else None
        if topology is None:
            return self
        if topology.fan_in == topology.channels:
            return SingleIntraChannel(kernel=self.kernel)
        return SingleIntraChannel(grid=topology.grid, near=topology.near, kernel=self.kernel)

    def lines(self, place: Place, itemsize: int) -> tuple[Line, ...]:
        c, f, n = place.channels, place.features, place.out_pixels
        fan_in = self._projection(place).fan_in
        weights = self.kernel**2 * c + fan_in * f
        moved = (place.in_elements + weights + place.out_elements) * itemsize
        sums = f * n if self.adds_input(place) else 0
        return (
            Line("conv", weights, weights * n, (weights - c - f) * n, moved),
            Line("shortcut", 0, 0, sums, 0),
        )

    def sampled(self, place: Place, random: np.random.Generator) -> np.ndarray:
        """The projection times the filters, and the input itself."""
        c, f, half = place.channels, place.features, self.kernel // 2
        if self.subdivided:
            near = self._projection(place).reads(np.eye(c, dtype=bool)[..., None, None])[..., 0, 0]
        else:
            near = np.ones((f, c), bool)
        projection = np.where(near, random.standard_normal((f, c)), 0)
        spatial = random.standard_normal((c, *self.window))
        kernel = projection[:, :, None, None] * spatial
        if self.adds_input(place):
            kernel[np.arange(c), np.arange(c), half, half] += 1
        return np.asarray(kernel)

    def module(self, place: Place) -> nn.Module:
        from kernels.factorized.operation import single_intra_channel
        from spaces.modules import Weighted

        c, k, projection = place.channels, self.kernel, self._projection(place)
        shapes = {"spatial": (c, 1, k, k), "projection": (place.features, projection.fan_in, 1, 1)}
        options: dict[str, Any] = {"residual": self.adds_input(place)}
        if self.subdivided:
            options |= {"grid": tuple(projection.grid), "near": tuple(projection.near)}
        fan_ins = {"spatial": k * k, "projection": projection.fan_in}
        return Weighted(single_intra_channel, shapes, fan_ins, options)

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (
            cls(),
            cls(kernel=5),
            cls(kernel=7),
            cls(grid=Extents((2, 2, 2)), near=Extents((1, 2, 2))),
            cls(axes=2),
        )
