"""Lean convolution on CUDA: one kernel, each map read once and written once.

`forward` and `input_gradient` launch `lean_forward` of forward.cu, whose input gradient is a lean
convolution with transposed matrices and opposite taps. Weight gradients: `cuda_weights.py`.

Bytes: a block computes up to 128 output channels of a tile, so for F <= 128 each element of x is
read once, the halo (1.27 times the tile of 16 x 16 pixels, 1.41 of 8 x 16) from L2. Above, the
ceil(F / 128) blocks of one tile run side by side, and all but the first find it in L2. Weights stay
in shared memory over all tiles of a block wherever they fit (C <= 512 in 16 bits on sm_90).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.cuda_pack import GROUPED, STENCIL, Weights, merged, pack
from kernels.lean.cuda_shapes import (
    HALVES,
    PRECISIONS,
    WIDTH,
    blocks_at_once,
    instance,
    precision_of,
    shape_of,
    shared_limit,
)
from kernels.lean.reference import Tap

WHOLE_X, WHOLE_Y, RELU, RESIDENT = 1, 2, 4, 8


def why_not(
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Tap],
    groups: int = 1,
    stride: int = 1,
    gradient: bool = False,
) -> str | None:
    """Why the kernel does not serve this call, or None. gradient: x is dy, with F channels."""
    if x.dtype not in (torch.float32, *HALVES):
        return f"a lean convolution of {x.dtype}; valid are float32, bfloat16 and float16"
    if x.dim() != 4:
        return f"a map with {x.dim()} axes; valid is (N, C, H, W)"
    if stride != 1:
        return f"stride {stride}; valid is 1"
    if any(len(tap) != 2 or max(map(abs, tap)) > 1 for tap in taps):
        return (
            f"taps {[tuple(tap) for tap in taps]}; valid are offsets from -1 to 1 in rows, columns"
        )
    features, channels = centre.shape
    expected = features if gradient else channels
    if x.shape[1] != expected:
        return f"{x.shape[1]} channels for weights {tuple(centre.shape)}; valid are {expected}"
    if groups < 1 or channels % groups or features % groups:
        return f"{groups} groups of {channels} -> {features} channels; valid are common divisors"
    if tuple(outer.shape) != (len(taps), features, channels // groups):
        valid = (len(taps), features, channels // groups)
        return f"outer weights {tuple(outer.shape)}; valid are {valid}"
    if x.shape[2] * x.shape[3] * max(channels, features) >= 2**31:
        return f"a map of {tuple(x.shape)}; valid are fewer than 2^31 numbers an image"
    return _why_not_memory(x, max(channels, features))


def forward(
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Tap],
    groups: int = 1,
    *,
    stride: int = 1,
    transposed: bool = False,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """y = lean(relu(scale x + shift)) + bias + residual; (N, C, H, W) -> (N, F, H, W).

    scale, shift: (C,). bias: (F,). residual: shaped as y. transposed: y is (N, F, W, H).
    precision: of products of float32, "fp32" (three TF32 products) or "tf32".
    Raises ValueError with the reason of `why_not`.
    """
    if reason := why_not(x, centre, outer, taps, groups, stride):
        raise ValueError(f"asked for {reason}")
    affine = _affine(x.shape[1], scale, shift, relu, x)
    return _lean(
        x, merged(centre, outer, taps, groups, x.dtype), turned=(False, transposed),
        affine=affine, relu=relu, bias=bias, residual=residual, precision=precision, run=run,
    )  # fmt: skip


def input_gradient(
    dy: Tensor,
    x: Tensor | None,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Tap],
    groups: int = 1,
    *,
    stride: int = 1,
    transposed: bool = False,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """dx of `forward` from dy, (N, F, H, W) or (N, F, W, H) if transposed. x: needed (and read)
    only where there is a prologue. Raises ValueError as `forward` does."""
    channels = centre.shape[1]
    if reason := why_not(dy, centre, outer, taps, groups, stride, gradient=True):
        raise ValueError(f"asked for the input gradient of {reason}")
    affine = _affine(channels, scale, shift, relu, dy)
    if affine is not None and x is None:
        raise ValueError("asked for the gradient of a prologue without x; valid is its input")
    weights = merged(centre, outer, taps, groups, dy.dtype).transposed()
    return _lean(
        dy, weights, turned=(transposed, False), affine=affine, relu=relu,
        gate=x if affine is not None else None, precision=precision, run=run,
    )  # fmt: skip


def _lean(
    x: Tensor,
    weights: Weights,
    *,
    turned: tuple[bool, bool],
    affine: Tensor | None,
    relu: bool,
    precision: str,
    run: Run,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """One launch. turned: whether x, and whether y, have height and width exchanged."""
    precision = precision_of(x.dtype, precision)
    features, channels = weights.features, weights.channels
    images, _, height, width = x.shape
    if turned[0]:
        height, width = width, height
    size = (width, height) if turned[1] else (height, width)
    y = torch.empty(
        (images, features, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    if not y.numel():
        return y
    _require_shape("bias", bias, (features,))
    _require_shape("residual", residual, tuple(y.shape))
    _require_shape("x", gate, tuple(y.shape))
    shape = shape_of(precision, max(channels, features))
    way = shape.depthwise if weights.groups == channels == features else GROUPED
    kernel, resident = instance(shape, precision, way, channels, shared_limit(x.device))
    x, residual, gate = (
        x.contiguous(memory_format=torch.channels_last),
        _channels_last(residual, x.dtype),
        _channels_last(gate, x.dtype),
    )
    packed_centre, packed_taps, band = pack(
        weights, PRECISIONS[precision], way, shape.chunk, shape.slice, shape.across, run
    )
    columns = -(-features // shape.outputs)
    padded = (
        columns * shape.outputs if gate is not None else -(-channels // shape.chunk) * shape.chunk
    )
    vector = min(shape.slice // 4, 16 // x.element_size())
    flags = (
        WHOLE_X * (channels * x.element_size() % 16 == 0 and x.data_ptr() % 16 == 0)
        + WHOLE_Y * (features % vector == 0 and all(_aligned(one) for one in (y, residual, gate)))
        + RELU * relu
        + RESIDENT * resident
    )
    tiles = images * -(-height // shape.rows) * -(-width // WIDTH)
    workers = max(1, min(tiles, blocks_at_once(x.device, kernel) // columns))
    run(
        kernel,
        grid=(workers * columns, 1, 1),
        arguments=(
            x, packed_centre, packed_taps, _padded(affine, padded),
            _padded(bias, columns * shape.outputs), residual, gate, y,
            images, height, width, channels, features, *_steps(turned[0], height, width, channels),
            *_steps(turned[1], height, width, features), flags, weights.positions,
            weights.group_in, weights.group_out, band,
        ),
    )  # fmt: skip
    return y


def _why_not_memory(x: Tensor, channels: int) -> str | None:
    precision = precision_of(x.dtype)
    needed = instance(shape_of(precision, channels), precision, STENCIL, channels, limit=0)[
        0
    ].shared
    found = shared_limit(x.device)
    if needed <= found:
        return None
    return f"{channels} channels with {found} bytes of shared memory a block; valid are {needed}"


def _affine(
    channels: int, scale: Tensor | None, shift: Tensor | None, relu: bool, like: Tensor
) -> Tensor | None:
    """fp32 (2, C) scales and shifts of the prologue, None where there is none."""
    if scale is None and shift is None and not relu:
        return None
    _require_shape("scale", scale, (channels,))
    _require_shape("shift", shift, (channels,))
    table = torch.zeros((2, channels), device=like.device)
    table[0] = 1.0 if scale is None else scale
    if shift is not None:
        table[1] = shift
    return table


def _require_shape(name: str, tensor: Tensor | None, valid: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != valid:
        raise ValueError(f"asked for {name} {tuple(tensor.shape)}; valid is {valid}")


def _padded(table: Tensor | None, size: int) -> Tensor | None:
    if table is None:
        return None
    table = table.float()
    missing = size - table.shape[-1]
    return functional.pad(table, (0, missing)) if missing else table.contiguous()


def _channels_last(map: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if map is None:
        return None
    return map.to(dtype).contiguous(memory_format=torch.channels_last)


def _aligned(map: Tensor | None) -> bool:
    return map is None or map.data_ptr() % 16 == 0


def _steps(turned: bool, height: int, width: int, channels: int) -> tuple[int, int]:
    """From row to row and from pixel to pixel, in elements."""
    return (channels, height * channels) if turned else (width * channels, channels)
