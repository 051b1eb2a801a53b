"""The cases of one layer: each operation beside its peers.

Peers compute the same as ours, except `dense` beside structured convolution (the layer that it
replaces) and `expanded` beside lean convolution: a depthwise 3 x 3 convolution of 6 F channels, a
1 x 1 to F behind it, with F = C / sqrt(6) so that both 1 x 1 have as many weights (LeanConvNets,
section IV.C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.layers import Layer
from benchmarks.suite.case import OURS, Case, Draw, Peer, Work, compiled, first
from kernels.diffusion import fourier
from kernels.diffusion import operation as diffusion
from kernels.diffusion.reference import explicit as defined_explicit
from kernels.factorized.operation import single_intra_channel
from kernels.factorized.reference import single_intra_channel as defined_sic
from kernels.lean.operation import lean
from kernels.lean.parts import spread
from kernels.structured.operation import structured
from kernels.structured.reference import structured as defined_structured

NINE = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
FIVE = ((-1, 0), (0, -1), (0, 1), (1, 0))
ROW = ((0, -1), (0, 1))
STENCILS = {"9": NINE, "5": FIVE, "3": ROW}
GROUPS = 16
"""Of the grouped lean convolution, as in LeanConvNets."""
Function = Callable[..., Tensor]


def lean_case(draw: Draw, kind: str, points: str, groups: int, compile: bool) -> Case:
    layer, taps = draw.layer, STENCILS[points]
    c, g = layer.channels, groups or layer.channels
    x = draw.map()
    centre = draw.weight((c, c), c**-0.5)
    outer = draw.weight((len(taps), c, c // g), 1 / (3 * (c // g) ** 0.5))
    square = spread(outer, taps)
    kernel = square[..., 1:2, :].contiguous() if points == "3" else square
    padding = (kernel.shape[-2] // 2, 1)
    matrix = centre[..., None, None].clone()

    def eager(x: Tensor, matrix: Tensor, kernel: Tensor) -> Tensor:
        return functional.conv2d(x, matrix) + functional.conv2d(
            x, kernel, padding=padding, groups=g
        )

    def dense(x: Tensor, kernel: Tensor) -> Tensor:
        return functional.conv2d(x, kernel, padding=1)

    def ours(x: Tensor, centre: Tensor, outer: Tensor) -> Tensor:
        return lean(x, centre, outer, taps, g)

    def definition(x: Tensor, centre: Tensor, outer: Tensor) -> Tensor:
        around = functional.conv2d(x, spread(outer, taps), padding=1, groups=g)
        return functional.conv2d(x, centre[..., None, None]) + around

    whole = _whole(square, g)
    whole[..., 1, 1] += centre
    peers = {
        OURS: Peer(ours, (x, centre, outer)),
        **_eager(eager, x, matrix, kernel, compile=compile),
        "merged dense": Peer(dense, (x, whole.to(memory_format=torch.channels_last))),
    }
    if points == "9" and g == c:
        peers["expanded"] = _expanded(draw)
        peers["1 x 1 alone"] = Peer(functional.conv2d, (x, matrix))
    spatial = 2 * layer.elements * len(taps) * c / g
    products, others = 2.0 * layer.elements * c, spatial
    if g < c:  # each tap is a small matrix
        products, others = products + spatial, 0.0
    name = f"lean {points}" + (f" in {g} groups" if groups else "")
    return Case(name, layer, kind, peers, definition, Work((2, 3), products, others))


def _expanded(draw: Draw) -> Peer:
    narrow = max(1, round(draw.layer.channels / math.sqrt(6)))
    wide = 6 * narrow
    tensors = (
        draw.map(wide),
        draw.weight((wide, 1, 3, 3), 1 / 3),
        draw.weight((narrow, wide, 1, 1), wide**-0.5),
    )

    def expanded(x: Tensor, spatial: Tensor, projection: Tensor) -> Tensor:
        own = functional.conv2d(x, spatial, padding=1, groups=wide)
        return functional.conv2d(own, projection)

    return Peer(expanded, tensors)


def sic_case(draw: Draw, kind: str, compile: bool) -> Case:
    layer = draw.layer
    c, x = layer.channels, draw.map()
    spatial, projection = draw.weight((c, 1, 3, 3), 1 / 3), draw.weight((c, c, 1, 1), c**-0.5)
    dense = projection.float() * spatial.float().transpose(0, 1)
    dense[range(c), range(c), 1, 1] += 1
    dense = dense.to(x.dtype).contiguous(memory_format=torch.channels_last)
    peers = {
        OURS: Peer(single_intra_channel, (x, spatial, projection)),
        **_eager(defined_sic, x, spatial, projection, compile=compile),
        "merged dense": Peer(lambda x, w: functional.conv2d(x, w, padding=1), (x, dense)),
    }
    work = Work((2, 3), 2.0 * layer.elements * c, 2.0 * 9 * layer.elements)
    return Case("sic", layer, kind, peers, defined_sic, work)


def structured_case(draw: Draw, kind: str, share: int, compile: bool) -> Case:
    layer = draw.layer
    c, x = layer.channels, draw.map()
    weight = draw.weight((c, c // share, 2, 2), 1 / c)
    dense = draw.weight((c, c, 3, 3), 1 / c).contiguous(memory_format=torch.channels_last)

    def definition(x: Tensor, weight: Tensor) -> Tensor:
        return defined_structured(x, weight, 3)

    peers = {
        OURS: Peer(lambda x, w: structured(x, w, 3), (x, weight)),
        **_eager(definition, x, weight, compile=compile),
        "dense": Peer(lambda x, w: functional.conv2d(x, w, padding=1), (x, dense)),
    }
    work = Work((2, 3), 2.0 * 4 * layer.elements * c / share, 5.0 * layer.elements / share)
    return Case(f"structured c=C/{share}", layer, kind, peers, definition, work)


def diffusion_case(draw: Draw, kind: str, name: str, compile: bool) -> Case:
    """A transform is not compiled: torch.compile leaves those to the same library."""
    layer = draw.layer
    x, reaction = draw.map(), draw.map()
    kernel = draw.weight((layer.channels, 1, 3, 3), 1 / 9)
    if name == "explicit":
        ours, definition = diffusion.explicit, defined_explicit
        others = 2.0 * 18 * layer.elements
    else:
        ours, definition = diffusion.implicit, fourier.implicit
        others = 10.0 * math.log2(layer.size) * layer.elements
        compile = False
    peers = {
        OURS: Peer(ours, (x, reaction, kernel)),
        **_eager(definition, x, reaction, kernel, compile=compile),
    }
    return Case(name, layer, kind, peers, definition, Work((3, 4), 0.0, others))


def _eager(function: Function, *tensors: Tensor, compile: bool) -> dict[str, Peer]:
    """In both layouts, and compiled."""
    layouts = {"eager last": tensors, "eager first": tuple(first(one) for one in tensors)}
    peers = {name: Peer(function, given) for name, given in layouts.items()}
    if compile:
        peers["compiled"] = Peer(compiled(function), tensors)
    return peers


def _whole(kernel: Tensor, groups: int) -> Tensor:
    """(F, C/g, k, k) -> (F, C, k, k), zero between groups."""
    features, channels = kernel.shape[:2]
    whole = kernel.new_zeros(groups, features // groups, groups, *kernel.shape[1:])
    each = range(groups)
    whole[each, :, each] = kernel.reshape(groups, -1, *kernel.shape[1:])
    return whole.reshape(features, groups * channels, *kernel.shape[2:])


OPERATIONS: dict[str, Callable[[Draw, str, bool], Case]] = {
    "lean9": lambda draw, kind, compile: lean_case(draw, kind, "9", 0, compile),
    "lean5": lambda draw, kind, compile: lean_case(draw, kind, "5", 0, compile),
    "lean3": lambda draw, kind, compile: lean_case(draw, kind, "3", 0, compile),
    "grouped": lambda draw, kind, compile: lean_case(draw, kind, "5", GROUPS, compile),
    "sic": sic_case,
    "structured2": lambda draw, kind, compile: structured_case(draw, kind, 2, compile),
    "structured4": lambda draw, kind, compile: structured_case(draw, kind, 4, compile),
    "explicit": lambda draw, kind, compile: diffusion_case(draw, kind, "explicit", compile),
    "implicit": lambda draw, kind, compile: diffusion_case(draw, kind, "implicit", compile),
}
KINDS_OF = {"explicit": ("bf16", "fp32"), "implicit": ("fp32",)}
"""Without products there is no TF32; torch.fft takes no bfloat16."""


def cases(
    name: str,
    layers: tuple[Layer, ...],
    kinds: tuple[str, ...],
    device: torch.device,
    compile: bool,
) -> Iterator[Callable[[], Case]]:
    """Each made when its turn comes, since all together do not fit into memory."""
    for kind in KINDS_OF.get(name, tuple(kinds)):
        for layer in layers if kind in kinds else ():
            draw = Draw(layer, kind, device)
            yield lambda draw=draw, kind=kind: OPERATIONS[name](draw, kind, compile)
