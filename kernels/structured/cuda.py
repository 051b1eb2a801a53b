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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.structured.cuda_launches import PRECISIONS, Launches, Windows, scale_of
from kernels.structured.packing import merged_groups

LARGEST_KERNEL = 5


class Numbers(NamedTuple):
    """What a structured convolution is beside its tensors, as `structured` takes it."""

    kernel: int
    groups: int = 1
    stride: int = 1
    dilation: int = 1
    padding: int | None = None

    @property
    def margin(self) -> int:
        """The padding; half a kernel where none is given."""
        return self.kernel // 2 if self.padding is None else self.padding


def why_not(x: Tensor, weight: Tensor, numbers: Numbers) -> str | None:
    """The reason why these kernels cannot serve this call, or None. Shapes must fit each other."""
    if x.dim() != 4:
        return f"a map with {x.dim()} axes; valid are 4, (N, C, H, W)"
    if x.dtype not in (torch.float32, *PRECISIONS):
        return f"a map of {x.dtype}; valid are float32, bfloat16 and float16"
    if weight.dtype != x.dtype:
        return f"weights of {weight.dtype} for a map of {x.dtype}; valid are equal types"
    if numbers.dilation != 1:
        return f"dilation {numbers.dilation}; valid is 1"
    if numbers.stride not in (1, 2):
        return f"stride {numbers.stride}; valid are 1 and 2"
    if numbers.kernel > LARGEST_KERNEL:
        return f"a kernel of side {numbers.kernel}; valid are 1 to {LARGEST_KERNEL}"
    return None


def forward(
    x: Tensor, weight: Tensor, numbers: Numbers, *, precision: str = "fp32", run: Run = launch
) -> Tensor:
    """(N, C, H, W) -> (N, F, H', W') as `kernels.structured.reference.structured`.

    weight: alpha, (F, c, n, n). precision: of float32 maps, "fp32" (three TF32 products) or "tf32".
    Raises ValueError with the reason of `why_not`.
    """
    _require(why_not(x, weight, numbers))
    kernel, groups, stride, _, _ = numbers
    size = [(s + 2 * numbers.margin - kernel) // stride + 1 for s in x.shape[2:]]
    depth = x.shape[1] // groups - weight.shape[1] + 1
    side = kernel - weight.shape[2] + 1
    by = Launches(precision, run)
    return by.convolve(x, weight, groups, depth, side, stride, numbers.margin, size)


def input_gradient(
    dy: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    numbers: Numbers,
    *,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """dX, of `shape` (N, C, H, W), from dY. At stride 2 through a map with zeros between."""
    _require(why_not(dy, weight, numbers))
    kernel, groups, stride, _, _ = numbers
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
    by, back = Launches(precision, run), kernel - 1 - numbers.margin
    sums = by.convolve(dy, swapped, groups, 1, kernel - taps + 1, 1, back, size)
    if depth == 1:
        return sums
    windows = Windows(enter=0, leave=1 - depth, filled=0, side=1, padding=0)
    return by.pool(sums, channels, groups, windows, size, 1.0)


def weight_gradient(
    dy: Tensor,
    x: Tensor,
    shape: Sequence[int],
    numbers: Numbers,
    *,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """d alpha, of `shape` (F, c, n, n), in x's dtype; the same bits at every call."""
    _require(why_not(x, dy, numbers))
    kernel, groups, stride, _, _ = numbers
    kept, taps = shape[1], shape[2]
    depth, side, padding = x.shape[1] // groups - kept + 1, kernel - taps + 1, numbers.margin
    if 0 in dy.shape:
        return x.new_zeros(tuple(shape))
    by, sums, scale = Launches(precision, run), x, 1.0
    if depth > 1 or side > 1 or padding:
        size = [s + 2 * padding - side + 1 for s in x.shape[2:]]
        scale = scale_of(depth, side)
        windows = Windows(depth - 1, 0, depth - 1, side, padding)
        sums = by.pool(x, groups * kept, groups, windows, size, scale)
    merged = merged_groups(groups, kept, shape[0] // groups)
    gradient = by.gradient(dy, sums, groups // merged, taps, stride) / scale
    whole = gradient.view(groups // merged, merged, -1, merged, kept, taps, taps)
    own = whole.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (groups / m, m, F/g, c, n, n)
    return own.reshape(tuple(shape)).to(x.dtype)


def backward(
    dy: Tensor,
    needs: Sequence[bool],
    x: Tensor,
    weight: Tensor,
    numbers: Numbers,
    *,
    precision: str = "fp32",
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None]:
    """dX and dalpha, each if `needs` says so."""
    dx = dweight = None
    if needs[0]:
        dx = input_gradient(dy, weight, x.shape, numbers, precision=precision, run=run)
    if needs[1]:
        dweight = weight_gradient(dy, x, weight.shape, numbers, precision=precision, run=run)
    return dx, dweight


def _require(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(f"structured convolution on CUDA: {reason}")
