"""The generated code of `kernels.jit.mix` on tensors."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from kernels.layout import is_last, strides

UNIT = 224
"""Pixels of a unit of work, rounded to whole rows: x and y of it stay in the cache."""
PRODUCTS = 64
"""Weights of a stencil a channel: taps times channels of a group."""
SHARE = 4
"""Units a thread at least, so that threads end together."""
LEAST = 64
"""Pixels of a share of a map at least: the weights' gradients of each are zeroed and added."""
GRAIN = 1 << 20
"""Products that are worth a thread: 10 to 20 us, about what it costs to begin and end a team. Where
cores are shared with others that costs a thousand times as much."""

Taps = tuple[tuple[int, ...], ...]


def why_not(x: Tensor) -> str | None:
    """Why generated code cannot work on maps like x."""
    if x.dtype != torch.float32:
        return f"generated code computes in float32, not {x.dtype}"
    if x.dim() != 4:
        return f"generated code takes maps (N, C, H, W), not {x.dim()} axes"
    if not x.numel():
        return "there is nothing to compute"
    return _why_no_compiler() or _why_no_threads(torch.get_num_threads())


def why_not_groups(size: int) -> str | None:
    """Why generated code cannot take groups of so many channels."""
    from kernels.jit.machine import vectors

    if vectors().lanes % size:
        return f"generated code takes groups that divide {vectors().lanes} channels, not {size}"
    return None


def why_not_products(count: int) -> str | None:
    """Why generated code should not multiply so often for one output of a stencil: a dense
    convolution reuses what it reads, a stencil a channel or small group cannot."""
    if count > PRODUCTS:
        return f"generated code takes up to {PRODUCTS} weights a channel, not {count}"
    return None


@cache
def _why_no_compiler() -> str | None:
    try:
        from kernels.jit import mix

        mix.compiled(((0, 0),), 1, False, False, False, True, False)
    except (ImportError, RuntimeError, OSError) as error:
        return f"llvmlite, which comes with numba, does not serve: {error}; pip install numba"
    return None


def _why_no_threads(threads: int) -> str | None:
    from kernels.jit.machine import openmp

    if threads > 1 and openmp() is None:
        return f"torch's OpenMP runtime does not answer, so that {threads} threads have none; use 1"
    return None


def mixed(
    x: Tensor,
    mixing: Tensor | None,
    stencil: Tensor | None,
    taps: Taps = (),
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    chain: bool = False,
    into: Tensor | None = None,
) -> Tensor:
    """bias + residual + mixing x + the stencil's sum of x; a chain mixes that sum instead of x.

    x: (N, C, H, W). mixing: (F, C). stencil: (taps, C, q) for groups of q channels, with F = C
    unless it is a chain. Either may be missing. The result is channels last.
    """
    from kernels.jit import mix
    from kernels.jit.machine import vectors
    from kernels.jit.walk import reach

    batch, channels, height, width = x.shape
    features, lanes = channels if mixing is None else mixing.shape[0], vectors().lanes
    x = last(x)
    size = (batch, features, height, width)
    y = x.new_empty_strided(size, strides(size, last=True)) if into is None else into
    group = 1 if stencil is None else stencil.shape[2]
    products = features * (0 if mixing is None else channels)
    products += len(taps) * group * (channels if chain else features)
    rows, threads = batch * height, team(batch * height * width * products)
    unit = units(rows, width, threads)
    tail = bool(channels % lanes or features % lanes)
    narrow = width < sum(reach(taps))
    added, mixes = residual is not None, mixing is not None
    code = mix.compiled(taps, group, chain, mixes, added, tail, narrow)
    room = unit * width * channels if chain else 0
    empty = zeros(max(features, channels))
    weights = empty if mixing is None else packed(mixing, lanes)
    spread = empty if stencil is None else stencil.mT.contiguous()
    offset = empty if bias is None else bias.contiguous()
    more = empty if residual is None else last(residual)
    scratch = torch.empty(room * threads) if chain else empty
    slots = torch.zeros(1, dtype=torch.int64)
    code(
        threads,
        units=-(-rows // unit),
        x=x.data_ptr(),
        y=y.data_ptr(),
        mixing=weights.data_ptr(),
        stencil=spread.data_ptr(),
        bias=offset.data_ptr(),
        residual=more.data_ptr(),
        zeros=empty.data_ptr(),
        scratch=scratch.data_ptr(),
        slots=slots.data_ptr(),
        room=4 * room,
        rows=rows,
        H=height,
        W=width,
        C=channels,
        F=features,
        unit=unit,
    )
    return y


def weight_gradients(
    dy: Tensor, x: Tensor, taps: Taps = (), group: int = 1, mixes: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """(dA, dB) of `mixed`: (F, C) unless not `mixes`, and (taps, C, q) where there are taps."""
    from kernels.jit import gradient
    from kernels.jit.machine import vectors
    from kernels.jit.walk import reach

    batch, channels, height, width = x.shape
    features = dy.shape[1]
    x, dy = last(x), last(dy)
    products = features * channels * mixes + len(taps) * group * channels
    rows, threads = batch * height, team(batch * height * width * products)
    unit = max(units(rows, width, threads), -(-LEAST // width))
    share = max(unit, -(-rows // (SHARE * threads if threads > 1 else 1)))
    shares = -(-rows // share)
    tail, narrow = bool(channels % vectors().lanes), width < sum(reach(taps))
    code = gradient.compiled(taps, group, mixes, tail, narrow)
    d_mixing = x.new_zeros((shares, features, channels)) if mixes else zeros(1)
    d_stencil = x.new_zeros((shares, len(taps), group, channels)) if taps else zeros(1)
    code(
        min(threads, shares),
        shares=shares,
        x=x.data_ptr(),
        dy=dy.data_ptr(),
        mixing=d_mixing.data_ptr(),
        stencil=d_stencil.data_ptr(),
        zeros=zeros(channels).data_ptr(),
        rows=rows,
        H=height,
        W=width,
        C=channels,
        F=features,
        unit=unit,
        share=share,
    )
    return summed(d_mixing) if mixes else None, summed(d_stencil).mT if taps else None


def summed(parts: Tensor) -> Tensor:
    """Over the first axis."""
    return parts[0] if len(parts) == 1 else parts.sum(0)


def team(products: int) -> int:
    """Threads for so many products: torch's, fewer where there is not a GRAIN for each."""
    return max(1, min(torch.get_num_threads(), products // GRAIN))


def units(rows: int, width: int, threads: int) -> int:
    """Rows of a unit of work."""
    return max(1, min(-(-UNIT // width), -(-rows // (SHARE * threads if threads > 1 else 1))))


def last(x: Tensor) -> Tensor:
    """Dense and channels last."""
    if is_last(x) and x.is_contiguous(memory_format=torch.channels_last):
        return x
    size = tuple(x.shape)
    return x.new_empty_strided(size, strides(size, last=True)).copy_(x)


def packed(mixing: Tensor, lanes: int) -> Tensor:
    """(F, C) -> (F / lanes, C, lanes), zeros behind the last output."""
    features, channels = mixing.shape
    vectors = -(-features // lanes)
    if missing := vectors * lanes - features:
        mixing = functional.pad(mixing, (0, 0, 0, missing))
    return mixing.reshape(vectors, lanes, channels).transpose(1, 2).contiguous()


def dense(y: Tensor, channels_last: bool) -> Tensor:
    """In the layout that is asked for."""
    return last(y) if channels_last else y.contiguous()


@lru_cache(maxsize=256)
def mirrored(taps: Taps) -> Taps:
    """The taps at the opposite side: those of the adjoint."""
    return tuple(tuple(-step for step in tap) for tap in taps)


@cache
def zeros(count: int) -> Tensor:
    return torch.zeros(count)
