"""Instances of `weights.cu`: tiles, shared memory, and which of them serves a call."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels.cuda.source import Kernel

PRECISION = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
WITHOUT, DEPTHWISE, BAND = 0, 1, 2
BAND_TILE = 16

NEIGHBOURS = tuple((h, w) for h in (-1, 0, 1) for w in (-1, 0, 1) if (h, w) != (0, 0))
CROSS = ((-1, 0), (0, -1), (0, 1), (1, 0))

# (halves, block): (rows, columns) of a tile, columns of a thread's strip, blocks that an SM holds.
# Two stages must fit into 163 KiB, and into 1 / blocks of 227 KiB.
TILES = {
    (True, 16): ((16, 32), 8, 2),
    (True, 32): ((16, 16), 8, 2),
    (True, 64): ((8, 16), 8, 2),
    (True, 128): ((4, 16), 4, 1),
    (False, 16): ((8, 16), 4, 3),
    (False, 32): ((8, 16), 4, 2),
    (False, 64): ((4, 16), 4, 2),
    (False, 128): ((4, 8), 2, 1),
}


def precision_of(dtype: torch.dtype, of_float32: str) -> str:
    """The name of an element type; float32 is "fp32" or "tf32", as asked."""
    halves = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if dtype not in (torch.float32, *halves) or of_float32 not in PRECISION:
        raise ValueError(
            f"CUDA kernels in {dtype} by {of_float32}: valid are float32 by fp32 or tf32, "
            "bfloat16, float16"
        )
    return halves.get(dtype, of_float32)


@dataclass(frozen=True)
class Plan:
    """One instance. block: channels; stencil: 1, 5 or 9; taps_by: how outer taps are summed."""

    precision: str
    block: int
    stencil: int
    taps_by: int

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        return {1: (), 5: CROSS, 9: NEIGHBOURS}[self.stencil]

    @property
    def words(self) -> int:
        """Of a job in the workspace: centre, bias, taps."""
        each = {WITHOUT: 0, DEPTHWISE: self.block, BAND: self.block * BAND_TILE}[self.taps_by]
        return self.block * self.block + self.block + len(self.taps) * each

    @property
    def tile(self) -> tuple[int, int]:
        return TILES[self.precision in ("bf16", "fp16"), self.block][0]

    def kernel(self) -> Kernel:
        halves = self.precision in ("bf16", "fp16")
        (rows, columns), strip, blocks = TILES[halves, self.block]
        ring = 2 if self.stencil > 1 else 0
        x_pitch, y_pitch = _pitch(columns, self.block), _pitch(columns + ring, self.block)
        pixel = (self.block + 8) * (2 if halves else 4)
        if self == Plan("fp32", 64, 9, BAND):  # its fragments and sums need more registers
            blocks = 1
        stage = (rows * x_pitch + (rows + ring) * y_pitch) * pixel
        macros = {
            "PRECISION": PRECISION[self.precision],
            "BLOCK": self.block,
            "STENCIL": self.stencil,
            "TAPS_BY": self.taps_by,
            "TILE_ROWS": rows,
            "TILE_COLUMNS": columns,
            "STRIP": strip,
            "X_PITCH": x_pitch,
            "Y_PITCH": y_pitch,
            "BLOCKS": blocks,
        }
        threads = rows // 2 * (columns // strip) * (self.block // 2)
        shared = 2 * stage + 2 * self.block * 4
        return Kernel(
            "lean/weights.cu", "lean_weights", tuple(macros.items()), threads, shared, blocks
        )


def _pitch(columns: int, block: int) -> int:
    """Pixels from row to row so that two rows, times the pixels of a warp, fill all banks."""
    if block == 16:
        return columns | 1
    return columns + (2 - columns) % 4 if block == 32 else columns


SUM = Kernel("lean/weights_sum.cu", "sum_parts", (), 256, 1024, 6)


def plans() -> list[Plan]:
    """Every instance that a call can ask for."""
    kinds = [(1, WITHOUT), (5, DEPTHWISE), (9, DEPTHWISE), (5, BAND), (9, BAND)]
    found = [
        Plan(p, block, *kind) for p in PRECISION for block in (16, 32, 64, 128) for kind in kinds
    ]
    return [plan for plan in found if not _crowded(plan)]


def _crowded(plan: Plan) -> bool:
    """Whether registers do not hold the fragments of three products and the sums of 512 threads."""
    return plan.precision == "fp32" and plan.taps_by == BAND and plan.block == 128


def plan_for(
    features: int,
    channels: int,
    taps: tuple[tuple[int, int], ...],
    groups: int,
    precision: str,
) -> Plan:
    """The instance for these widths; outer taps in the same pass where they lie on the diagonal."""
    wide = max(features, channels)
    block = next((one for one in (16, 32, 64) if wide <= one), 128)
    stencil = 5 if set(taps) <= set(CROSS) else 9 if set(taps) <= set(NEIGHBOURS) else 1
    distinct = len(set(taps)) == len(taps)
    size = channels // groups
    if not taps or stencil == 1 or not distinct or features != channels or BAND_TILE % size:
        return Plan(precision, block, 1, WITHOUT)
    plan = Plan(precision, block, stencil, DEPTHWISE if size == 1 else BAND)
    return replace(plan, block=64) if _crowded(plan) else plan
