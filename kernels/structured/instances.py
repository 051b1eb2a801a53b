"""The instances of the structured kernels: how they cut a layer, and what they ask of an SM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from kernels.cuda.source import Kernel

THREADS = 256
WIDE_ENOUGH = 264  # blocks: two on each of an H100's 132 SMs
SHARED_LIMIT = 160 * 1024  # bytes of a block; an A100 has 163 KiB, an H100 227 KiB
SHARED_OF_TWO = 112 * 1024  # two blocks on an SM of an H100
WHOLE_LIMIT = 128  # bytes of all channels of a pixel that are held at once
TILE_LIMIT = 108 * 1024  # bytes of a tile: raw chunks and one of sums
STAGE_LIMIT = 40 * 1024  # bytes of a stage of weights


@dataclass(frozen=True)
class Plan:
    """How structured.cu cuts the outputs of a group: `splits` x `blocks` blocks of `width` outputs.

    slots: chunks of sums kept in shared memory. separate: sums in a launch of their own.
    """

    width: int
    blocks: int
    splits: int
    slots: int
    separate: bool = False


def plan(
    outputs: int, kept: int, depth: int, side: int, taps: int, stride: int, size: int, units: int
) -> Plan:
    """outputs, kept: of a group. size: bytes of an element. units: tiles times groups."""
    row = row_bytes(kept, size, side, taps, stride)
    chunks = -(-kept * size // row)
    raw = raw_chunks(kept, depth, size, row)[1]

    def shared(width: int, slots: int) -> int:
        stages = 2 if -(-outputs // width) * chunks > 1 else 1
        return _shared(width, row, raw, stages, slots, side, taps, stride)

    limit = max(16, STAGE_LIMIT // (taps * taps * row) // 16 * 16)
    widest = max(width for width in (16, 32, 64) if width <= limit)
    width = min([16, 32, 64][sum(outputs > w for w in (16, 32))], widest)
    while width > 16 and shared(width, 1) > SHARED_LIMIT:
        width //= 2
    blocks = -(-outputs // width)
    if blocks == 1:
        return Plan(width, 1, 1, 1)
    broad = 128 if limit >= 128 and stride == 1 and outputs > 64 else width
    if shared(broad, 1) > SHARED_LIMIT:
        broad = width
    if shared(width, chunks) > SHARED_OF_TWO and broad > width and outputs <= broad:
        return Plan(broad, 1, 1, 1)
    if shared(width, chunks) <= SHARED_LIMIT:
        splits = min(blocks, max(1, WIDE_ENOUGH // units))
        return Plan(width, -(-blocks // splits), splits, chunks)
    blocks = -(-outputs // broad)
    again = blocks > 1 and (depth > 1 or side > 1)
    return Plan(broad, 1, blocks, 1, separate=again)


@cache
def instance(
    precision: int, size: int, chosen: Plan, kept: int, depth: int, side: int, taps: int,
    stride: int, copy: int, quads: bool,
) -> Kernel:  # fmt: skip
    """structured.cu for a plan. quads: outputs of a group come in fours, stored together."""
    row, width = row_bytes(kept, size, side, taps, stride), chosen.width
    raw = raw_chunks(kept, depth, size, row)[1]
    stages = 2 if chosen.blocks * -(-kept * size // row) > 1 else 1
    shared = _shared(width, row, raw, stages, chosen.slots, side, taps, stride)
    products = 4 if width == 128 else 2 // stride
    blocks = 1 if width == 128 or side > 3 or shared > SHARED_OF_TWO else 2  # on an SM
    macros = {
        "PRECISION": precision, "TILE_H": tile_height(stride), "MT": products, "BN": width,
        "ROW": row, "COPY": copy, "SIDE": side, "TAPS": taps, "STRIDE": stride,
        "WHOLE_QUADS": int(quads), "THREADS": THREADS, "BLOCKS": blocks,
    }  # fmt: skip
    file = "structured/structured.cu"
    return Kernel(file, "structured", tuple(macros.items()), THREADS, shared, blocks)


@cache
def pool_kernel(precision: int, row: int, copy: int, side: int, deep: bool) -> Kernel:
    macros = {
        "PRECISION": precision, "TILE_H": 16, "ROW": row, "COPY": copy, "SIDE": side,
        "THREADS": THREADS, "BLOCKS": 2,
    }  # fmt: skip
    pixels = (15 + side) ** 2
    shared = (2 * (1 + deep) * pixels + 256) * row
    return Kernel("structured/pool.cu", "pool", tuple(macros.items()), THREADS, shared, 2)


@cache
def gradient_kernel(precision: int, bm: int, bj: int, copy: int, taps: int, stride: int) -> Kernel:
    size, rows = (4 if precision < 2 else 2), tap_rows(taps)
    threads = 32 * (bm // 16) * (bj // 16)
    padding = 16 if size == 2 else 32
    pixels = (7 * stride + rows) * (15 * stride + taps)
    shared = 2 * (128 * (bm * size + padding) + pixels * (bj * size + padding))
    blocks = 1 if shared > SHARED_OF_TWO else 2
    macros = {
        "PRECISION": precision, "BM": bm, "BJ": bj, "COPY": copy, "TAPS": taps,
        "TAP_ROWS": rows, "STRIDE": stride, "THREADS": threads, "BLOCKS": blocks,
    }  # fmt: skip
    file = "structured/gradient.cu"
    return Kernel(file, "gradient", tuple(macros.items()), threads, shared, blocks)


def tap_rows(taps: int) -> int:
    """Rows of taps that a block of gradient.cu makes: registers hold those of up to 3 x 3."""
    return taps if taps <= 3 else 1


def _shared(
    width: int, row: int, raw: int, stages: int, slots: int, side: int, taps: int, stride: int
) -> int:
    """Bytes: raw chunks, stages of weights, the sums that stay."""
    high, wide = (tile_height(stride) - 1) * stride + taps, 15 * stride + taps
    pixels = raw * (high + side - 1) * (wide + side - 1) + slots * high * wide
    return row * (pixels + stages * taps * taps * width)


def raw_chunks(kept: int, depth: int, size: int, row: int) -> tuple[bool, int]:
    """Whether a tile holds all channels of a group at once, and how many chunks it holds."""
    channels = kept + depth - 1
    if channels * size <= WHOLE_LIMIT and (depth - 1) * size % 16 == 0:
        return True, -(-channels * size // row)
    return False, 2 if depth > 1 else 1


def tile_height(stride: int) -> int:
    return 16 // stride


def row_bytes(kept: int, size: int, side: int, taps: int, stride: int) -> int:
    """Bytes of channels of a pixel in one chunk: less for few channels and for large tiles."""
    high, wide = (tile_height(stride) - 1) * stride + taps, 15 * stride + taps
    pixels = 2 * (high + side - 1) * (wide + side - 1) + high * wide
    return 32 if kept * size <= 32 or 64 * pixels > TILE_LIMIT else 64


def kernels(*, quick: bool = False) -> list[Kernel]:
    """The instances that tests compile: what networks use, each with its widest tiles.

    quick: those of {c, n} = {C/2, 2} for 3 x 3 only.
    """
    shapes = [(2, 2, 1, 64)]
    if not quick:
        shapes += [(2, 2, 1, 16), (2, 2, 1, 128), (2, 2, 2, 64), (3, 1, 1, 64), (1, 1, 1, 256)]
        shapes += [(2, 4, 1, 32), (1, 3, 1, 64), (3, 3, 1, 64)]
    found: dict[Kernel, None] = {}
    for precision, size in ((0, 4), (1, 4), (2, 2), (3, 2)):
        # fp16 differs from bf16 by the name of one instruction
        for side, taps, stride, channels in shapes[:2] if precision == 3 else shapes:
            kept = channels // 2 if side > 1 else channels
            depth = channels - kept + 1
            for aligned in (True, False):
                if not aligned and (side, taps, channels) != (2, 2, 64):
                    continue
                chosen = plan(channels, kept, depth, side, taps, stride, size, WIDE_ENOUGH)
                copy = 16 if aligned else size
                shape = kept, depth, side, taps, stride
                if not chosen.separate:
                    found[instance(precision, size, chosen, *shape, copy, aligned)] = None
                if quick or side * taps == 4:
                    found[pool_kernel(precision, 64, copy, side, depth > 1)] = None
                tight = stride > 1 and size == 4
                bm, bj = (32, 16) if tight else (64, 32)
                found[gradient_kernel(precision, bm, bj, copy, taps, stride)] = None
    return list(found)
