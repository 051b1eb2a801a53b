"""TPS(s): each output channel reads its neighbours on a grid of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.grouped import shifted
from spaces.keeping import ShapeKeeping, check_odd
from spaces.operator import Box, Mask, Operator, Permutation, argument
from spaces.operators.depthwise import Depthwise
from spaces.operators.standard import Standard
from spaces.place import Place
from spaces.subdivided import Extents, Subdivided, Topology

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Topological(Subdivided, ShapeKeeping):
    """The k x k convolution of which output j keeps the inputs j .. j + t - 1 (mod d): field
    (k, k, prod t), and C k^2 prod t weights. k = 1 is the projection, subdivided.

    Source: Factorized CNN, section 2.3, equation 8.

    >>> from spaces.design import parse
    >>> parse("TPS(d=8x16,t=4x8)").operators[0].params(Place(128, 128, 36, 36))  # 9 C^2 / 4
    36864
    """

    symbol = "TPS"
    spellings = ("TpS", "Topological Subdivisioning")

    kernel: int = argument("k", 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_odd(self, self.kernel)

    @property
    def is_open(self) -> bool:
        return self.axes is None and self.grid is None

    @property
    def window(self) -> tuple[int, int]:
        return (self.kernel, self.kernel)

    def why_invalid(self, place: Place) -> str | None:
        if self.is_open:
            return f"{self} has no grid yet: write e.g. TPS(2) or TPS(d=8x16,t=4x8)"
        return super().why_invalid(place) or self.why_no_topology(place.channels)

    def _here(self, place: Place) -> Topology:
        topology = self.topology(place.channels)
        if topology is None:
            raise ValueError(self.why_invalid(place))
        return topology

    def connections(self, place: Place) -> int:
        return place.features * self._here(place).fan_in * self.kernel**2

    def reads(self, needed: Mask, place: Place) -> Mask:
        half = self.kernel // 2
        offsets = range(-half, half + 1)
        return shifted(shifted(self._here(place).reads(needed), offsets, -2), offsets, -1)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        return self._here(place).carried(permutation)

    def reach(self, place: Place) -> tuple[Box, ...]:
        return (Box(*self.window, self._here(place).fan_in),)

    def canonical(self, place: Place | None = None) -> Operator:
        """All neighbours: the dense convolution; no other: depthwise; else the grid in numbers."""
        topology = self.topology(place.channels) if place else None
        if place is None or topology is None:
            return self
        if topology.fan_in == place.channels:
            return Standard(self.kernel).canonical(place)
        if topology.fan_in == 1 and self.kernel > 1:
            return Depthwise(self.kernel)
        return Topological(grid=topology.grid, near=topology.near, kernel=self.kernel)

    def module(self, place: Place) -> nn.Module:
        from kernels.factorized.operation import topological
        from spaces.modules import Weighted

        grid, near = self._here(place)
        fan_in = self._here(place).fan_in
        shape = (place.features, fan_in, self.kernel, self.kernel)
        options = {"grid": tuple(grid), "near": tuple(near)}
        return Weighted(
            topological, {"weight": shape}, {"weight": fan_in * shape[-1] ** 2}, options
        )

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        grid, near = Extents((2, 2, 2)), Extents((1, 2, 2))
        return (
            cls(axes=2),
            cls(axes=1),
            cls(axes=3, kernel=1),
            cls(axes=2, kernel=5),
            cls(grid=Extents((4, 4)), near=Extents((2, 3))),
            cls(grid=grid, near=near),
            cls(grid=grid, near=grid),
            cls(axes=2, kernel=1),
        )
