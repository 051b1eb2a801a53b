"""The launches of the structured kernels: how tensors and numbers become a grid and arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.structured import instances
from kernels.structured.instances import (
    gradient_kernel,
    instance,
    plan,
    pool_kernel,
    raw_chunks,
    row_bytes,
    tap_rows,
    tile_height,
)
from kernels.structured.packing import merge, pack

PRECISIONS = {torch.bfloat16: 2, torch.float16: 3}
SINGLE = {"fp32": 0, "tf32": 1}


class Windows(NamedTuple):
    """How channels enter and leave a sum (sums.h), and the pixels under it."""

    enter: int
    leave: int
    filled: int
    side: int
    padding: int


@dataclass(frozen=True)
class Launches:
    """precision: of products of float32, "fp32" (three TF32 products) or "tf32"."""

    precision: str = "fp32"
    run: Run = launch

    def convolve(
        self, x: Tensor, weight: Tensor, groups: int, depth: int, side: int, stride: int,
        padding: int, size: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """alpha * S(x), of `size` pixels."""
        outputs, kept, taps, _ = weight.shape
        y = _map(x, outputs, size)
        if y.numel() == 0:
            return y
        x = x.contiguous(memory_format=torch.channels_last)
        if depth == 1:
            weight, merged = merge(weight, groups)
            groups, kept = groups // merged, kept * merged
        bytes_of_one, tile_h = x.element_size(), tile_height(stride)
        tiles = len(x) * -(-size[0] // tile_h) * -(-size[1] // 16)
        shape = outputs // groups, kept, depth, side, taps, stride
        chosen = plan(*shape, bytes_of_one, tiles * groups)
        if chosen.separate:
            scale = scale_of(depth, side)
            windows = Windows(depth - 1, 0, depth - 1, side, padding)
            sum_size = [(s - 1) * stride + taps for s in size]
            sums = self.pool(x, groups * kept, groups, windows, sum_size, scale)
            return self.convolve(sums, weight / scale, groups, 1, 1, stride, 0, size)
        row = row_bytes(kept, bytes_of_one, side, taps, stride)
        whole, raw = raw_chunks(kept, depth, bytes_of_one, row)
        chunks = -(-kept * bytes_of_one // row)
        filling = 0 if whole else -(-(depth - 1) * bytes_of_one // row)
        kernel = instance(
            self.code(x), bytes_of_one, chosen, kept, depth, side, taps, stride,
            bytes_of_copy(x, groups, depth - 1), outputs // groups % 4 == 0,
        )  # fmt: skip
        scale, units = scale_of(depth, side), groups * chosen.splits
        walkers = min(tiles, max(1, kernel.blocks * instances.WIDE_ENOUGH // 2 // units))
        self.run(
            kernel,
            grid=(walkers * units, 1, 1),
            arguments=(
                x, pack(weight, groups, chosen, kernel), y, tiles, tiles // len(x),
                -(-size[1] // 16), units, x.shape[2], x.shape[3], x.shape[1],
                x.shape[1] // groups, size[0], size[1], outputs, outputs // groups, kept, depth,
                padding, chosen.splits, chosen.blocks,
                chunks, filling, chosen.slots, raw, int(whole), scale, 1 / scale,
            ),
        )  # fmt: skip
        return y

    def pool(
        self,
        x: Tensor,
        outputs: int,
        groups: int,
        windows: Windows,
        size: Sequence[int],
        scale: float,
    ) -> Tensor:
        """Sums over windows of channels and pixels, times `scale`."""
        y = _map(x, outputs, size)
        if y.numel() == 0:
            return y
        x = x.contiguous(memory_format=torch.channels_last)
        deep = windows.enter != windows.leave
        copy = math.gcd(
            bytes_of_copy(x, groups, windows.enter - windows.leave), bytes_of_copy(y, groups, 0)
        )
        row = 32 if windows.side > 4 or outputs // groups * x.element_size() <= 32 else 64
        kernel = pool_kernel(self.code(x), row, copy, windows.side, deep)
        tiles = len(x) * -(-size[0] // 16) * -(-size[1] // 16)
        self.run(
            kernel,
            grid=(tiles * groups, 1, 1),
            arguments=(
                x, y, x.shape[2], x.shape[3], x.shape[1], size[0], size[1], outputs, groups,
                windows.filled, windows.enter, windows.leave, windows.padding, int(deep), scale,
            ),
        )  # fmt: skip
        return y

    def gradient(self, dy: Tensor, sums: Tensor, groups: int, taps: int, stride: int) -> Tensor:
        """(g, F/g, c, n, n) in fp32: <dY, sums moved by each tap>."""
        dy = dy.contiguous(memory_format=torch.channels_last)
        sums = sums.contiguous(memory_format=torch.channels_last)
        outputs, kept = dy.shape[1] // groups, sums.shape[1] // groups
        tight = stride > 1 and dy.element_size() == 4  # a tile of many wide pixels
        bm, bj = 32 if outputs <= 32 or tight else 64, 16 if kept <= 16 or tight else 32
        rows = tap_rows(taps)
        copy = math.gcd(bytes_of_copy(dy, groups, 0), bytes_of_copy(sums, groups, 0))
        kernel = gradient_kernel(self.code(dy), bm, bj, copy, taps, stride)
        blocks = groups, -(-outputs // bm), -(-kept // bj), taps // rows
        tiles = len(dy) * -(-dy.shape[2] // 8) * -(-dy.shape[3] // 16)
        splits = max(1, min(tiles, kernel.blocks * instances.WIDE_ENOUGH // 2 // math.prod(blocks)))
        partial = dy.new_empty((splits, *blocks, rows, taps, bm, bj), dtype=torch.float32)
        self.run(
            kernel,
            grid=(math.prod(blocks) * splits, 1, 1),
            arguments=(
                dy, sums, partial, len(dy), dy.shape[2], dy.shape[3], sums.shape[2], sums.shape[3],
                dy.shape[1], kept, groups, *blocks[1:], splits,
            ),
        )  # fmt: skip
        whole = partial.sum(0).permute(0, 1, 6, 2, 7, 3, 4, 5).flatten(5, 6).flatten(1, 2)
        return whole.flatten(2, 3)[:, :outputs, :kept]

    def code(self, x: Tensor) -> int:
        """As the kernels number precisions. Raises ValueError for an unknown one."""
        if self.precision not in SINGLE:
            raise ValueError(f"precision {self.precision!r}; valid are {', '.join(SINGLE)}")
        return PRECISIONS[x.dtype] if x.dtype in PRECISIONS else SINGLE[self.precision]


def _map(like: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    shape = (len(like), channels, *size)
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def bytes_of_copy(x: Tensor, groups: int, shift: int) -> int:
    """Bytes of one copy: what the starts of map, pixels, groups and windows are multiples of."""
    channels, size = x.shape[1], x.element_size()
    return math.gcd(16, x.data_ptr(), channels * size, channels // groups * size, shift * size)


def scale_of(depth: int, side: int) -> float:
    """The power of two next to 1 / sqrt(summands): by that a sum of independent values grows."""
    return float(2.0 ** -round(math.log2(depth * side * side) / 2))
