"""The instances of the kernels of diffusion, with the resources that each takes.

    diffuse(dtype, side, aligned)         explicit.cu: one explicit step, and its gradient
    tap_gradients(dtype, side, aligned)   taps.cu: the gradient of the taps of both steps
    symbol()                              symbol.cu: what the implicit step multiplies by
    solve(dtype, size, channels, aligned) fourier.cu: one implicit step, and its gradient

aligned: pixels start at multiples of 16 bytes. An instance is compiled where it is first used.
"""

from __future__ import annotations

import math

import torch

from kernels.cuda.source import Kernel

PRECISIONS = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}  # as in element.h
SIDES = (3, 5, 7)
TILE = 16
CHANNELS = 16
THREADS = 256
SHARED = 227 * 1024  # bytes that blocks of an SM may take (sm_90)
RESERVED = 1024  # bytes that the system takes of each block
ALONE = SHARED // 2 - RESERVED  # a block with more has an SM to itself
LARGEST = 64  # side of a map that the implicit step holds in shared memory


def diffuse(dtype: torch.dtype, side: int, aligned: bool) -> Kernel:
    """explicit.cu: y with a halo of 4 (side // 2) in all, K y in fp32, the taps."""
    halo = 2 * (side // 2)
    whole = -(-(TILE + halo) // 4) * 4  # columns of K y
    y = (TILE + 2 * halo) * _slots(whole + halo) * CHANNELS * dtype.itemsize
    z = (TILE + halo) * _slots(whole) * CHANNELS * 4
    half = dtype.itemsize == 2
    blocks = {3: 4 if half else 3, 5: 3 if half else 2, 7: 2}[side]
    shared = y + z + side**2 * CHANNELS * 4
    return _kernel("explicit", "diffuse", dtype, side, aligned, shared, blocks)


def tap_gradients(dtype: torch.dtype, side: int, aligned: bool) -> Kernel:
    """taps.cu: two stages of y and of its gradient; the sums of eight warps take their place."""
    columns = TILE + 2 * (side // 2)
    stages = 4 * columns * _slots(columns) * CHANNELS * dtype.itemsize
    sums = 8 * side**2 * CHANNELS * 4
    shared = max(stages + side**2 * CHANNELS * 4, sums)
    half = dtype.itemsize == 2
    blocks = {3: 3 if half and aligned else 2, 5: 2 if half else 1, 7: 1}[side]
    return _kernel("taps", "tap_gradients", dtype, side, aligned, shared, blocks)


def symbol() -> Kernel:
    """symbol.cu: any map, any taps."""
    return Kernel("diffusion/symbol.cu", "symbol", (), 256, 0, 4)


def solve(dtype: torch.dtype, size: tuple[int, int], channels: int, aligned: bool) -> Kernel:
    """fourier.cu: a map of complex numbers for each two channels; see `_pairs`."""
    height, width = size
    pairs = _pairs(height, width, channels)
    shared = _bytes(height, width, pairs)
    radix = max(_radix(height), _radix(width))
    if radix > 16:
        threads, blocks = 256, 1
    elif shared > ALONE:
        threads, blocks = 512, 1
    else:
        threads, blocks = 256, 2 if radix > 8 else min(4, SHARED // (shared + RESERVED))
    macros = (
        ("PRECISION", PRECISIONS[dtype]),
        ("HEIGHT", height),
        ("WIDTH", width),
        ("PAIRS", pairs),
        ("ALIGNED", int(aligned)),
        ("THREADS", threads),
        ("BLOCKS", blocks),
    )
    return Kernel("diffusion/fourier.cu", "solve", macros, threads, shared, blocks)


def _pairs(height: int, width: int, channels: int) -> int:
    """Pairs of channels of a block: a power of 2 from 4 to 16 that leaves room for three blocks on
    an SM where possible, and no more than there are. Eight fp32 channels are a sector of memory."""
    pairs = 16
    while pairs > 4 and _bytes(height, width, pairs) > SHARED // 3 - RESERVED:
        pairs //= 2
    return min(pairs, 2 ** math.ceil(math.log2(-(-channels // 2))))


def _bytes(height: int, width: int, pairs: int) -> int:
    """Rows lie an odd number of pixels apart."""
    return height * (width | 1) * pairs * 8


def _radix(n: int) -> int:
    """The longest transform that a thread does for a line of n (fourier.cu)."""
    second = next(d for d in range(8, 0, -1) if n % d == 0)
    return n if n <= 16 else max(second, n // second)


def _kernel(
    file: str, name: str, dtype: torch.dtype, side: int, aligned: bool, shared: int, blocks: int
) -> Kernel:
    macros = (
        ("PRECISION", PRECISIONS[dtype]),
        ("SIDE", side),
        ("ALIGNED", int(aligned)),
        ("BLOCKS", blocks),
    )
    return Kernel(f"diffusion/{file}.cu", name, macros, THREADS, shared, blocks)


def _slots(columns: int) -> int:
    """Four columns take five slots (patch.h)."""
    return columns + (columns - 1) // 4
