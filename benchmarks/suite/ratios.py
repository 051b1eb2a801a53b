"""How much faster than a dense convolution each cheap operator is, by one parameter at a time.

In the manner of Low-cost Parameterizations, Fig. 1: times of the dense convolution divided by those
of the depthwise one, the explicit step (direct, and by transforms), the implicit step, and the
block-circulant convolution, over the side of the map, the side of the stencil and the channels.
There: batch 64, maps of 64 x 64, 256 channels, stencils of 3 x 3, all but one fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.layers import Layer
from benchmarks.suite.case import Draw, Peer, computing
from benchmarks.suite.clock import Clock
from kernels.diffusion import fourier
from kernels.diffusion.operation import circulant, explicit, implicit


class Point(NamedTuple):
    """What varies, and the layer and stencil there."""

    varied: str
    value: int
    layer: Layer
    side: int


class Sweep(NamedTuple):
    """The fixed values, and those of each parameter."""

    fixed: Layer
    sizes: tuple[int, ...]
    sides: tuple[int, ...] = (3, 5, 7, 9, 11, 13, 15)
    channels: tuple[int, ...] = (16, 32, 64, 128, 256, 512)

    def points(self) -> Iterator[Point]:
        fixed = self.fixed
        for size in self.sizes:
            yield Point("map", size, fixed._replace(size=size), 3)
        for side in self.sides:
            yield Point("stencil", side, fixed, side)
        for channels in self.channels:
            yield Point("channels", channels, fixed._replace(channels=channels), 3)


PAPER = Sweep(Layer(256, 64, 64), (8, 16, 32, 64, 128, 256))
SMALL = Sweep(Layer(32, 32, 4), (8, 16, 32, 64), channels=(16, 32, 64, 128))
"""What a CPU can do in a minute or two."""


def explicit_by_transforms(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> Tensor:
    """y + h (reaction - K'K y) with K'K as a product of spectra, periodic."""
    size = (y.shape[-2], y.shape[-1])
    symbol = fourier.squared(torch.fft.rfft2(fourier.laid_out(kernel[:, 0], size)))
    return y + step * (reaction - torch.fft.irfft2(symbol * torch.fft.rfft2(y), s=size))


def methods(point: Point, kind: str, device: torch.device) -> dict[str, Peer]:
    """The dense convolution first."""
    draw, c, side = Draw(point.layer, kind, device), point.layer.channels, point.side
    x, reaction, half = draw.map(), draw.map(), side // 2
    stencil = draw.weight((c, 1, side, side), 1 / side**2)
    dense = draw.weight((c, c, side, side), 1 / (side * c**0.5))
    blocks = draw.weight((c, side, side), 1 / (side * c**0.5))

    def convolved(groups: int) -> Callable[..., Tensor]:
        return lambda x, w: functional.conv2d(x, w, padding=half, groups=groups)

    steps: dict[str, Callable[..., Tensor]] = {
        "explicit": explicit,
        "explicit, transforms": explicit_by_transforms,
        "implicit": implicit,
    }
    return {
        "dense": Peer(convolved(1), (x, dense.to(memory_format=torch.channels_last))),
        "depthwise": Peer(convolved(c), (x, stencil)),
        **{
            name: Peer(lambda y, r, k, f=f: f(y, r, k, 0.1), (x, reaction, stencil))
            for name, f in steps.items()
        },
        "circulant": Peer(circulant, (x, blocks)),
    }


def ratios(sweep: Sweep, clock: Clock) -> list[dict[str, Any]]:
    """A row a point; forward, in float32, products as TF32 where the device has that."""
    kind = "fp32" if clock.device.type == "cpu" else "tf32"
    rows = []
    for point in sweep.points():
        with computing(kind):
            peers = methods(point, kind, clock.device)
            seconds = clock.seconds({name: peer.forward for name, peer in peers.items()})
        dense = next(iter(seconds.values()))
        found = {name: dense / time for name, time in list(seconds.items())[1:]}
        row = {"varied": point.varied, "value": point.value, "dense": dense, "ratios": found}
        rows.append({**row, "layer": str(point.layer), "batch": point.layer.batch, "kind": kind})
        words = "  ".join(f"{name} {ratio:.1f}" for name, ratio in found.items())
        print(f"{point.varied:9}{point.value:5}  dense {dense * 1e6:9.0f} us  {words}")
    return rows
