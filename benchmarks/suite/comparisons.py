"""What is compared on the CPU: each operation on a layer, beside what a user could call instead.

Lean convolution: 9 points, a filter a channel, and the dense 3 x 3 convolution that it could be
merged into. Structured convolution beside the dense one that it replaces, diffusion and circulants
beside plain torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.layers import CIRCULANT, CPU, DIFFUSION, STRUCTURED, Layer
from benchmarks.suite.case import OURS, Peer
from kernels.diffusion import fourier, reference
from kernels.diffusion import operation as diffusion
from kernels.factorized.operation import single_intra_channel
from kernels.factorized.reference import single_intra_channel as defined_sic
from kernels.lean.operation import lean
from kernels.structured.operation import structured
from kernels.structured.reference import structured as defined_structured

TAPS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


@dataclass(frozen=True)
class Comparison:
    """peers: "ours" first. dy: a gradient of the result. expected: the result in float64.
    operations: of the forward pass, for its floor."""

    name: str
    layer: Layer
    peers: dict[str, Peer]
    dy: Tensor
    expected: Tensor
    operations: int


def of_lean(layer: Layer, compile: bool) -> Iterator[Comparison]:
    c = layer.channels
    last, first, dy = _maps(layer)
    centre, outer = (torch.randn(c, c) / c**0.5), torch.randn(8, c, 1) / 3
    kernel = torch.zeros(c, 1, 9)
    kernel[:, 0, [t for t in range(9) if t != 4]] = outer[..., 0].t()
    spatial, matrix = kernel.reshape(c, 1, 3, 3), centre[..., None, None].clone()
    merged = torch.zeros(c, c, 3, 3)
    merged[range(c), range(c)] = spatial[:, 0]
    merged[..., 1, 1] += centre

    def eager(x: Tensor, a: Tensor, k: Tensor) -> Tensor:
        return functional.conv2d(x, a) + functional.conv2d(x, k, padding=1, groups=c)

    peers = {
        OURS: Peer(lambda x, a, b: lean(x, a, b, TAPS, c), (last, centre, outer)),
        "eager last": Peer(eager, (last, matrix, spatial)),
        "eager first": Peer(eager, (first, matrix, spatial)),
        "merged dense": Peer(_dense, (last, merged)),
    }
    if compile:
        compiled: Callable[..., Tensor] = torch.compile(eager, dynamic=False)
        peers["compiled"] = Peer(compiled, (last, matrix, spatial))
    expected = eager(last.double(), matrix.double(), spatial.double())
    yield Comparison("lean", layer, peers, dy, expected, 2 * layer.elements * (c + 8))


def of_structured(layer: Layer, compile: bool) -> Iterator[Comparison]:
    c = layer.channels
    last, _, dy = _maps(layer)
    dense = torch.randn(c, c, 3, 3) / c
    for share in (2, 4):
        weight = torch.randn(c, c // share, 2, 2) / c
        peers = {
            OURS: Peer(lambda x, w: structured(x, w, 3), (last, weight)),
            "dense": Peer(_dense, (last, dense)),
            "definition": Peer(lambda x, w: defined_structured(x, w, 3), (last, weight)),
        }
        expected = defined_structured(last.double(), weight.double(), 3)
        operations = 8 * layer.elements * c // share
        yield Comparison(f"structured c=C/{share}", layer, peers, dy, expected, operations)


def of_sic(layer: Layer, compile: bool) -> Iterator[Comparison]:
    c = layer.channels
    last, first, dy = _maps(layer)
    spatial, projection = torch.randn(c, 1, 3, 3) / 3, torch.randn(c, c, 1, 1) / c**0.5
    peers = {
        OURS: Peer(single_intra_channel, (last, spatial, projection)),
        "eager last": Peer(defined_sic, (last, spatial, projection)),
        "eager first": Peer(defined_sic, (first, spatial, projection)),
    }
    expected = defined_sic(last.double(), spatial.double(), projection.double())
    yield Comparison("sic", layer, peers, dy, expected, 2 * layer.elements * (c + 9))


def of_diffusion(layer: Layer, compile: bool) -> Iterator[Comparison]:
    last, first, dy = _maps(layer)
    kernel = torch.randn(layer.channels, 1, 3, 3) / 9
    for name, ours, defined in (
        ("explicit", diffusion.explicit, reference.explicit),
        ("implicit", diffusion.implicit, fourier.implicit),
    ):
        peers = {
            OURS: Peer(ours, (last, dy, kernel)),
            "eager last": Peer(defined, (last, dy, kernel)),
            "eager first": Peer(defined, (first, dy.contiguous(), kernel)),
        }
        expected = defined(last.double(), dy.double(), kernel.double())
        yield Comparison(name, layer, peers, dy, expected, 4 * 9 * layer.elements)


def of_circulant(layer: Layer, compile: bool) -> Iterator[Comparison]:
    last, _, dy = _maps(layer)
    kernel = torch.randn(layer.channels, 3, 3) / layer.channels
    peers = {
        OURS: Peer(diffusion.circulant, (last, kernel)),
        "dense": Peer(reference.circulant, (last, kernel)),
        "transforms": Peer(fourier.circulant, (last, kernel)),
    }
    expected = fourier.circulant(last.double(), kernel.double())
    yield Comparison("circulant", layer, peers, dy, expected, 0)


PARTS: dict[str, tuple[tuple[Layer, ...], Callable[[Layer, bool], Iterator[Comparison]]]] = {
    "lean": (CPU, of_lean),
    "structured": (STRUCTURED, of_structured),
    "sic": (STRUCTURED, of_sic),
    "diffusion": (DIFFUSION, of_diffusion),
    "circulant": (CIRCULANT, of_circulant),
}
"""part -> its layers, and (layer, whether to compile) -> what is compared there."""


def _dense(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=1)


def _maps(layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """x channels last and first, and a gradient of the result."""
    x, dy = torch.randn(2, layer.batch, layer.channels, layer.size, layer.size)
    last = torch.channels_last
    return x.to(memory_format=last), x.contiguous(), dy.to(memory_format=last)
