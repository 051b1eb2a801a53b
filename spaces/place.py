"""Where an operator stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """C -> F channels on an H x W input map, at a stride.

    A convolution pads so that the output map is ceil(H / stride) x ceil(W / stride).
    Dilation is a hyper-parameter of the operator, since it is part of the design's string.
    """

    channels: int
    features: int
    height: int
    width: int
    stride: int = 1

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")

    @property
    def out_height(self) -> int:
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        return -(-self.width // self.stride)

    @property
    def in_elements(self) -> int:
        """C H W."""
        return self.channels * self.height * self.width

    @property
    def out_pixels(self) -> int:
        """H' W'."""
        return self.out_height * self.out_width

    @property
    def out_elements(self) -> int:
        """F H' W'."""
        return self.features * self.out_pixels
