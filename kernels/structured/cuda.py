"""Structured convolution on NVIDIA GPUs: the launches of structured.cu, pool.cu and gradient.cu.

    forward          Y = alpha * S(X)             one kernel: X is read once, Y written once
    input_gradient   dX = S'(alpha' * dY)         spatial sums commute with the small convolution:
                                                  they go first, fused; then channels spread (pool)
    weight_gradient  dalpha = <dY, shifted S(X)>  sums (pool), then one product per tap (gradient)

S sums over depth x side x side cuboids, S' is its transpose, alpha' has outputs and sums swapped
and its taps reversed. Bytes: forward 2 passes; where the sums of a wide layer do not fit beside the
weights it is two launches, sums and small convolution, rather than the same sums again for each
block of outputs: 2 + 2 c/C passes, for layers whose time is that of the products. dX: 2 + 2 c/C.
dalpha: 2 + 2 c/C, and dY once more for each 32 channels of the sums, from L2. Maps are channels
last; others are copied. Infinities and NaN spread to the later sums of their pixel's channels.

Composite convolution (composite.py) has no kernel: its masks are arbitrary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
from kernels.structured.packing import merge, merged_groups, pack

LARGEST_KERNEL = 5
PRECISIONS = {torch.bfloat16: 2, torch.float16: 3}
SINGLE = {"fp32": 0, "tf32": 1}


def why_not(
    x: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> str | None:
    """The reason why these kernels cannot serve this call, or None. Shapes must fit each other."""
    if x.dim() != 4:
        return f"a map with {x.dim()} axes; valid are 4, (N, C, H, W)"
    if x.dtype not in (torch.float32, *PRECISIONS):
        return f"a map of {x.dtype}; valid are float32, bfloat16 and float16"
    if weight.dtype != x.dtype:
        return f"weights of {weight.dtype} for a map of {x.dtype}; valid are equal types"
    if dilation != 1:
        return f"dilation {dilation}; valid is 1"
    if stride not in (1, 2):
        return f"stride {stride}; valid are 1 and 2"
    if kernel > LARGEST_KERNEL:
        return f"a kernel of side {kernel}; valid are 1 to {LARGEST_KERNEL}"
    return None


def forward(
    x: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W') as `kernels.structured.reference.structured`.

    weight: alpha, (F, c, n, n). precision: of float32 maps, "fp32" (three TF32 products) or "tf32".
    Raises ValueError with the reason of `why_not`.
    """
    _require(why_not(x, weight, kernel, groups, stride=stride, dilation=dilation))
    padding = kernel // 2 if padding is None else padding
    size = [(s + 2 * padding - kernel) // stride + 1 for s in x.shape[2:]]
    depth = x.shape[1] // groups - weight.shape[1] + 1
    side = kernel - weight.shape[2] + 1
    return _convolve(x, weight, groups, depth, side, stride, padding, size, precision, run)


def input_gradient(
    dy: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int,
    shape: Sequence[int],
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """dX, of `shape` (N, C, H, W), from dY. At stride 2 through a map with zeros between."""
    _require(why_not(dy, weight, kernel, groups, stride=stride, dilation=dilation))
    padding = kernel // 2 if padding is None else padding
    channels, *size = shape[1:]
    kept, taps = weight.shape[1], weight.shape[2]
    depth = channels // groups - kept + 1
    if stride > 1:
        spread = dy.new_zeros(
            (*dy.shape[:2], *[(s - 1) * stride + 1 for s in dy.shape[2:]])
        ).contiguous(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = dy
        dy = spread
    swapped = weight.view(groups, -1, kept, taps, taps).transpose(1, 2).flatten(0, 1).flip(2, 3)
    back = kernel - 1 - padding
    sums = _convolve(dy, swapped, groups, 1, kernel - taps + 1, 1, back, size, precision, run)
    if depth == 1:
        return sums
    windows = _Windows(enter=0, leave=1 - depth, filled=0, side=1, padding=0)
    return _pool(sums, channels, groups, windows, size, precision, 1.0, run)


def weight_gradient(
    dy: Tensor,
    x: Tensor,
    shape: Sequence[int],
    kernel: int,
    groups: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """d alpha, of `shape` (F, c, n, n), in x's dtype; the same bits at every call."""
    _require(why_not(x, dy, kernel, groups, stride=stride, dilation=dilation))
    padding = kernel // 2 if padding is None else padding
    kept, taps = shape[1], shape[2]
    depth, side = x.shape[1] // groups - kept + 1, kernel - taps + 1
    if 0 in dy.shape:
        return x.new_zeros(tuple(shape))
    size = [s + 2 * padding - side + 1 for s in x.shape[2:]]
    sums, scale = x, 1.0
    if depth > 1 or side > 1 or padding:
        scale = _scale(depth, side)
        windows = _Windows(depth - 1, 0, depth - 1, side, padding)
        sums = _pool(x, groups * kept, groups, windows, size, precision, scale, run)
    merged = merged_groups(groups, kept, shape[0] // groups)
    gradient = _gradient(dy, sums, groups // merged, taps, stride, precision, run) / scale
    whole = gradient.view(groups // merged, merged, -1, merged, kept, taps, taps)
    own = whole.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (groups / m, m, F/g, c, n, n)
    return own.reshape(tuple(shape)).to(x.dtype)


def backward(
    dy: Tensor,
    needs: Sequence[bool],
    x: Tensor,
    weight: Tensor,
    kernel: int,
    groups: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    precision: str = "fp32",
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None]:
    """dX and dalpha, each if `needs` says so."""
    dx = dweight = None
    if needs[0]:
        dx = input_gradient(
            dy, weight, kernel, groups, x.shape, stride=stride, dilation=dilation,
            padding=padding, precision=precision, run=run,
        )  # fmt: skip
    if needs[1]:
        dweight = weight_gradient(
            dy, x, weight.shape, kernel, groups, stride=stride, dilation=dilation,
            padding=padding, precision=precision, run=run,
        )  # fmt: skip
    return dx, dweight


@dataclass(frozen=True)
class _Windows:
    """How channels enter and leave a sum (sums.h), and the pixels under it."""

    enter: int
    leave: int
    filled: int
    side: int
    padding: int


def _convolve(
    x: Tensor,
    weight: Tensor,
    groups: int,
    depth: int,
    side: int,
    stride: int,
    padding: int,
    size: Sequence[int],
    precision: str,
    run: Run,
) -> Tensor:
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
        scale = _scale(depth, side)
        windows = _Windows(depth - 1, 0, depth - 1, side, padding)
        sum_size = [(s - 1) * stride + taps for s in size]
        sums = _pool(x, groups * kept, groups, windows, sum_size, precision, scale, run)
        return _convolve(sums, weight / scale, groups, 1, 1, stride, 0, size, precision, run)
    row = row_bytes(kept, bytes_of_one, side, taps, stride)
    whole, raw = raw_chunks(kept, depth, bytes_of_one, row)
    chunks = -(-kept * bytes_of_one // row)
    filling = 0 if whole else -(-(depth - 1) * bytes_of_one // row)
    kernel = instance(
        _code(x, precision), bytes_of_one, chosen, kept, depth, side, taps, stride,
        _copy(x, groups, depth - 1), outputs // groups % 4 == 0,
    )  # fmt: skip
    scale, units = _scale(depth, side), groups * chosen.splits
    walkers = min(tiles, max(1, kernel.blocks * instances.WIDE_ENOUGH // 2 // units))
    run(
        kernel,
        grid=(walkers * units, 1, 1),
        arguments=(
            x, pack(weight, groups, chosen, kernel), y, tiles, tiles // len(x), -(-size[1] // 16),
            units, x.shape[2], x.shape[3], x.shape[1], x.shape[1] // groups, size[0], size[1],
            outputs, outputs // groups, kept, depth, padding, chosen.splits, chosen.blocks,
            chunks, filling, chosen.slots, raw, int(whole), scale, 1 / scale,
        ),
    )  # fmt: skip
    return y


def _pool(
    x: Tensor,
    outputs: int,
    groups: int,
    windows: _Windows,
    size: Sequence[int],
    precision: str,
    scale: float,
    run: Run,
) -> Tensor:
    """Sums over windows of channels and pixels, times `scale`."""
    y = _map(x, outputs, size)
    if y.numel() == 0:
        return y
    x = x.contiguous(memory_format=torch.channels_last)
    deep = windows.enter != windows.leave
    copy = math.gcd(_copy(x, groups, windows.enter - windows.leave), _copy(y, groups, 0))
    row = 32 if windows.side > 4 or outputs // groups * x.element_size() <= 32 else 64
    kernel = pool_kernel(_code(x, precision), row, copy, windows.side, deep)
    tiles = len(x) * -(-size[0] // 16) * -(-size[1] // 16)
    run(
        kernel,
        grid=(tiles * groups, 1, 1),
        arguments=(
            x, y, x.shape[2], x.shape[3], x.shape[1], size[0], size[1], outputs, groups,
            windows.filled, windows.enter, windows.leave, windows.padding, int(deep), scale,
        ),
    )  # fmt: skip
    return y


def _gradient(
    dy: Tensor, sums: Tensor, groups: int, taps: int, stride: int, precision: str, run: Run
) -> Tensor:
    """(g, F/g, c, n, n) in fp32: <dY, sums moved by each tap>."""
    dy = dy.contiguous(memory_format=torch.channels_last)
    sums = sums.contiguous(memory_format=torch.channels_last)
    outputs, kept = dy.shape[1] // groups, sums.shape[1] // groups
    tight = stride > 1 and dy.element_size() == 4  # a tile of many wide pixels
    bm, bj = 32 if outputs <= 32 or tight else 64, 16 if kept <= 16 or tight else 32
    rows = tap_rows(taps)
    copy = math.gcd(_copy(dy, groups, 0), _copy(sums, groups, 0))
    kernel = gradient_kernel(_code(dy, precision), bm, bj, copy, taps, stride)
    blocks = groups, -(-outputs // bm), -(-kept // bj), taps // rows
    tiles = len(dy) * -(-dy.shape[2] // 8) * -(-dy.shape[3] // 16)
    splits = max(1, min(tiles, kernel.blocks * instances.WIDE_ENOUGH // 2 // math.prod(blocks)))
    partial = dy.new_empty((splits, *blocks, rows, taps, bm, bj), dtype=torch.float32)
    run(
        kernel,
        grid=(math.prod(blocks) * splits, 1, 1),
        arguments=(
            dy, sums, partial, len(dy), dy.shape[2], dy.shape[3], sums.shape[2], sums.shape[3],
            dy.shape[1], kept, groups, *blocks[1:], splits,
        ),
    )  # fmt: skip
    whole = partial.sum(0).permute(0, 1, 6, 2, 7, 3, 4, 5).flatten(5, 6).flatten(1, 2)
    return whole.flatten(2, 3)[:, :outputs, :kept]


def _map(like: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    shape = (len(like), channels, *size)
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _copy(x: Tensor, groups: int, shift: int) -> int:
    """Bytes of one copy: what the starts of map, pixels, groups and windows are multiples of."""
    channels, size = x.shape[1], x.element_size()
    return math.gcd(16, x.data_ptr(), channels * size, channels // groups * size, shift * size)


def _scale(depth: int, side: int) -> float:
    """The power of two next to 1 / sqrt(summands): by that a sum of independent values grows."""
    return float(2.0 ** -round(math.log2(depth * side * side) / 2))


def _code(x: Tensor, precision: str) -> int:
    if precision not in SINGLE:
        raise ValueError(f"precision {precision!r}; valid are {', '.join(SINGLE)}")
    return PRECISIONS[x.dtype] if x.dtype in PRECISIONS else SINGLE[precision]


def _require(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(f"structured convolution on CUDA: {reason}")
