"""The layers that kernels are timed on, for CPU and GPU alike."""

from __future__ import annotations

from typing import NamedTuple


class Layer(NamedTuple):
    """C channels to as many, a square map, a batch."""

    channels: int
    size: int
    batch: int

    @property
    def pixels(self) -> int:
        return self.batch * self.size**2

    @property
    def elements(self) -> int:
        return self.channels * self.pixels

    def __str__(self) -> str:
        return f"{self.channels}@{self.size}"


FIGURE_5 = tuple(Layer(16 * 2**i, 512 // 2**i, 64) for i in range(6))
"""LeanConvNets, Fig. 5: 16 channels at 512 x 512 to 512 channels at 16 x 16."""
CPU = (
    Layer(16, 256, 8),
    Layer(32, 128, 16),
    Layer(32, 64, 16),
    Layer(64, 56, 16),
    Layer(128, 28, 16),
    Layer(256, 14, 16),
    Layer(512, 7, 16),
)
"""What fits a CPU: the seven layers on which lean convolution is judged there."""
STRUCTURED = CPU[2:]
"""With n = 2 and c = C/2 or C/4 against the dense 3 x 3 convolution."""
DIFFUSION = (Layer(32, 64, 16), Layer(64, 32, 16), Layer(128, 32, 16), Layer(256, 16, 16))
CIRCULANT = (Layer(16, 32, 16), Layer(32, 64, 16), Layer(64, 32, 16), Layer(256, 16, 16))
