"""Weights of lean convolution in the order in which the CUDA kernel reads them, by pack.cu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kernels.cuda.source import Kernel, Run
from kernels.lean.reference import Tap

GROUPED, STENCIL, DIAGONAL = 0, 1, 2  # how taps are computed: TAPS of forward.cu
THREADS = 256


@dataclass(frozen=True)
class Weights:
    """centre: (F, C). outer: (taps, groups, F/g, C/g), any strides. taps: offsets within 3 x 3,
    each once; see `merged`."""

    centre: Tensor
    outer: Tensor
    taps: tuple[tuple[int, int], ...]

    @property
    def features(self) -> int:
        return self.centre.shape[0]

    @property
    def channels(self) -> int:
        return self.centre.shape[1]

    @property
    def groups(self) -> int:
        return self.outer.shape[1]

    @property
    def group_out(self) -> int:
        return self.outer.shape[2]

    @property
    def group_in(self) -> int:
        return self.outer.shape[3]

    @property
    def positions(self) -> int:
        """The taps as bits 3 (rows + 1) + columns + 1 of a 3 x 3 stencil."""
        return sum(1 << _position(tap) for tap in self.taps)

    def transposed(self) -> Weights:
        """Of the input gradient: transposed matrices, opposite taps."""
        opposite = tuple((-row, -column) for row, column in self.taps)
        return Weights(self.centre.t(), self.outer.transpose(2, 3), opposite)


def merged(
    centre: Tensor, outer: Tensor, taps: Sequence[Tap], groups: int, dtype: torch.dtype
) -> Weights:
    """Weights of a call, the matrices of equal taps summed. outer: (r-1, F, C/g)."""
    offsets = tuple((tap[0], tap[1]) for tap in taps)
    features, group_in = outer.shape[1:]
    split = outer.reshape(len(taps), groups, features // groups, group_in)
    unique = tuple(dict.fromkeys(offsets))
    if len(unique) < len(offsets):
        same = [[i for i, one in enumerate(offsets) if one == tap] for tap in unique]
        split = torch.stack([split[i].sum(0) for i in same])
    return Weights(centre.to(dtype).contiguous(), split.to(dtype).contiguous(), unique)


def packing(precision: int) -> Kernel:
    macros = (("PRECISION", precision), ("THREADS", THREADS))
    return Kernel("lean/pack.cu", "lean_pack", macros, THREADS, 0)


def pack(
    weights: Weights, precision: int, way: int, chunk: int, slice: int, across: int, run: Run
) -> tuple[Tensor, Tensor, int]:
    """Packed centre, packed taps, and the fragments of inputs that a part of outputs is fed by."""
    size, outputs = weights.centre.element_size(), slice * across
    vector, fragment = min(slice // 4, 16 // size), 32 // size
    columns = -(-weights.features // outputs)
    band = 0 if way == STENCIL else _band(weights, 4 * vector, fragment)
    order = [weights.taps.index(tap) for tap in sorted(weights.taps, key=_position)]
    if way != GROUPED:
        at = {_position(tap): i for i, tap in enumerate(weights.taps)}
        order = [at.get(position, 15) for position in range(9)]
    chunks = -(-weights.channels // chunk)
    centre_words = columns * outputs * chunks * chunk * size // 4
    parts = columns * outputs // (4 * vector)
    taps_words = (
        columns * 9 * outputs if way == STENCIL else parts * band * len(order) * (vector // 4) * 128
    )
    device = weights.centre.device
    packed = torch.empty(centre_words + taps_words, dtype=torch.int32, device=device)
    packed_centre, packed_taps = packed[:centre_words], packed[centre_words:]
    tap, group, out, into = weights.outer.stride()
    nibbles = sum(index << 4 * slot for slot, index in enumerate(order[:8]))
    run(
        packing(precision),
        grid=(-(-packed.numel() // (4 * THREADS)), 1, 1),
        arguments=(
            weights.centre, weights.outer, packed_centre, packed_taps, weights.features,
            weights.channels, *weights.centre.stride(), weights.group_in, weights.group_out, tap,
            group, out, into, slice, across, chunk, vector, way, band, len(order),
            nibbles - (nibbles >> 31 << 32), order[8] if len(order) > 8 else 15, centre_words,
            taps_words,
        ),
    )  # fmt: skip
    return packed_centre, packed_taps, band


def _position(tap: tuple[int, int]) -> int:
    return 3 * (tap[0] + 1) + tap[1] + 1


def _band(weights: Weights, part: int, fragment: int) -> int:
    return _widest(weights.features, weights.group_in, weights.group_out, part, fragment)


@cache
def _widest(features: int, group_in: int, group_out: int, part: int, fragment: int) -> int:
    """Most fragments of inputs that the groups of any `part` outputs span."""
    spans = []
    for first in range(0, features, part):
        last = min(first + part, features) - 1
        end = (last // group_out + 1) * group_in - 1
        spans.append(end // fragment - first // group_out * group_in // fragment + 1)
    return max(spans)
