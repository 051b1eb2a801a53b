"""Instances of `mix.cu`, and what it reads: packed weights and the table of connected blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from kernels.cuda.source import Kernel
from kernels.factorized.reference import neighbours

PRECISION = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
STENCIL, TAPS, ALONE = 0, 1, 2
SPANS = (3, 5, 7)
COLUMNS = 16
BAND = 16
WARPS = 8
WIDE = 64


@dataclass(frozen=True)
class Plan:
    """precision; by: STENCIL, TAPS or ALONE; span: taps along an axis; block: features a block."""

    precision: str
    by: int
    span: int
    block: int

    @property
    def halves(self) -> bool:
        return self.precision in ("bf16", "fp16")

    @property
    def chunk(self) -> int:
        """Input channels of one step: 64 bytes, or 32 where there are no more."""
        return 32 if self.halves and self.block > BAND else 16

    @property
    def fragment(self) -> int:
        """Input channels of one product of the tensor core."""
        return 16 if self.halves else 8

    @property
    def rows(self) -> int:
        """Of pixels: a warp has two, and more warps share them where features are many."""
        return 2 * WARPS // max(1, self.block // WIDE)

    @property
    def blocks(self) -> int:
        """That an SM shall hold, by registers and 227 KiB of shared memory."""
        crowded = WIDE if self.by == STENCIL else 2 * BAND
        if self.by != TAPS and self.span == 7 and self.block == crowded:
            return 1
        return 3 if self.block == BAND and self.halves else 2

    def kernel(self) -> Kernel:
        size = 2 if self.halves else 4
        pixel = self.chunk * size + 16
        span = self.span
        pitch = _pitch(COLUMNS + span - 1, pixel)
        kept_pitch = _pitch(COLUMNS, pixel)
        stage = (self.rows + span - 1) * pitch * pixel + self.block * pixel
        stage += 0 if self.by == TAPS else span * span * self.chunk * 4
        kept = self.rows * kept_pitch * pixel if self.by == STENCIL else 0
        macros = {
            "PRECISION": PRECISION[self.precision],
            "BY": self.by,
            "SPAN": span,
            "BLOCK": self.block,
            "CHUNK": self.chunk,
            "TILE_ROWS": self.rows,
            "TILE_COLUMNS": COLUMNS,
            "STRIP": min(4, self.rows * COLUMNS * self.chunk // 2 // (32 * WARPS) // 2),
            "X_PITCH": pitch,
            "S_PITCH": kept_pitch,
            "BLOCKS": self.blocks,
        }
        return Kernel(
            "factorized/mix.cu",
            "mix",
            tuple(macros.items()),
            32 * WARPS,
            stage if self.by == ALONE else 2 * stage + kept,
            self.blocks,
        )


def _pitch(columns: int, pixel: int) -> int:
    """Pixels from row to row so that two rows further on other banks begin: of 48 or 80 bytes."""
    return columns | 1 if pixel == 48 else columns + (2 - columns) % 4


def plans() -> list[Plan]:
    """Every instance that a call can ask for."""
    found = []
    for precision in PRECISION:
        found += [Plan(precision, STENCIL, s, b) for s in SPANS for b in (BAND, WIDE, 2 * WIDE)]
        found += [Plan(precision, TAPS, s, b) for s in (1, *SPANS) for b in (WIDE, 2 * WIDE)]
        found += [Plan(precision, ALONE, s, b) for s in SPANS for b in _alone_blocks(precision)]
    return found


def _alone_blocks(precision: str) -> tuple[int, ...]:
    return (BAND, 2 * BAND) if precision in ("bf16", "fp16") else (BAND,)


def plan_for(precision: str, by: int, span: int, features: int, channels: int) -> Plan:
    """The instance for these widths. By ALONE a block has the channels of one chunk."""
    if by == ALONE:
        blocks = _alone_blocks(precision)
        return Plan(precision, by, span, blocks[0] if channels <= BAND else blocks[-1])
    if by == STENCIL and max(features, channels) <= BAND:
        return Plan(precision, by, span, BAND)
    return Plan(precision, by, span, WIDE if features <= WIDE else 2 * WIDE)


@dataclass(frozen=True)
class Connections:
    """Which input channels an output reads: all, or those near it on a grid.

    backward: outputs and inputs exchanged, as the input gradient needs them.
    """

    features: int
    channels: int
    grid: tuple[int, ...] = ()
    near: tuple[int, ...] = ()
    backward: bool = False

    def matrix(self) -> Tensor:
        """(F, C), true where connected."""
        shape = (self.channels, self.features) if self.backward else (self.features, self.channels)
        if not self.grid:
            found = torch.ones(shape, dtype=torch.bool)
        else:
            found = torch.zeros(shape, dtype=torch.bool)
            found.scatter_(1, neighbours(self.grid, self.near), True)
        return found.T if self.backward else found


@cache
def table(plan: Plan, connections: Connections, device: torch.device) -> tuple[Tensor, int]:
    """(blocks of features, 1 + entries, 2) of int32, and the entries.

    A row holds its count, then (chunk, mask) of each connected chunk; bit (band FRAGMENTS +
    fragment) of a mask stands for 16 features and the channels of one product. A chunk with
    the block's own channels is always listed: its residual comes with it.
    """
    if plan.by == ALONE:
        count = -(-connections.channels // plan.chunk)
        rows = [[(1, 0), (chunk, 0)] for chunk in range(count)]
        return torch.tensor(rows, dtype=torch.int32, device=device), 1
    matrix = connections.matrix()
    blocks = -(-connections.features // plan.block)
    chunks = -(-connections.channels // plan.chunk)
    missing = (
        0,
        chunks * plan.chunk - connections.channels,
        0,
        blocks * plan.block - connections.features,
    )
    tiles = functional.pad(matrix, missing).reshape(
        blocks, plan.block // BAND, BAND, chunks, plan.chunk // plan.fragment, plan.fragment
    )
    bits = tiles.any(5).any(2).permute(0, 2, 1, 3).flatten(2).int()
    masks = (bits << torch.arange(bits.shape[2])).sum(2)
    listed = []
    for block, row in enumerate(masks.tolist()):
        first, last = block * plan.block, (block + 1) * plan.block
        own = range(first // plan.chunk, min(last // plan.chunk, chunks))
        listed.append([(c, mask) for c, mask in enumerate(row) if mask or c in own])
    longest = max(map(len, listed))
    rows = [[(len(row), 0), *row, *[(0, 0)] * (longest - len(row))] for row in listed]
    return torch.tensor(rows, dtype=torch.int32, device=device), longest


@cache
def reads(grid: tuple[int, ...], near: tuple[int, ...], device: torch.device) -> Tensor:
    """(C, connected): the channels that each output reads, kept on the device."""
    return neighbours(grid, near).to(device)


@cache
def _slots(device: torch.device) -> Tensor:
    """The feature of each of the 16 slots of a band (see `mix.cu`)."""
    slot = torch.arange(BAND, device=device)
    return slot % 8 // 2 * 4 + slot // 8 * 2 + slot % 2


def packed(plan: Plan, matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """(taps, F, C) -> zeros beyond F and C, features of a band in the order of their slots."""
    _, features, channels = matrices.shape
    missing = (0, -channels % plan.chunk, 0, -features % plan.block)
    whole = functional.pad(matrices.to(dtype), missing)
    bands = whole.reshape(len(whole), -1, BAND, whole.shape[2])
    return bands[:, :, _slots(matrices.device)].flatten(1, 2).contiguous()


def packed_stencil(plan: Plan, spatial: Tensor) -> Tensor:
    """(C, 1, k, k) -> (span x span, C) in fp32, zeros beyond; a smaller stencil in the middle."""
    ring = (plan.span - spatial.shape[-1]) // 2
    rows = functional.pad(spatial.float(), (ring,) * 4).flatten(1).T
    return functional.pad(rows, (0, -spatial.shape[0] % plan.chunk)).contiguous()
