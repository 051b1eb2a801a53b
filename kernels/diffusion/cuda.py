"""Reaction-diffusion steps on a GPU: one pass over memory each, forward and backward.

    explicit(y, reaction, kernel, step)    y + h (reaction - K'K y), zero padding
    implicit(y, reaction, kernel, step)    (I + h K'K)^-1 (y + h reaction), periodic
    explicit_backward(dy, needs, ...)      a gradient of y, reaction and kernel for each that needs
    implicit_backward(dy, needs, ...)      one; what follows are the arguments of the step
    periodic_tap_gradients(...)            the kernel's gradient of an implicit step of any map size
    why_not_explicit(...), why_not_implicit(...)   the reason why a call cannot be served, or None

y, reaction: (N, C, H, W), best channels_last. kernel: (C, 1, k, k), k = 1, 3, 5, 7. Sums are fp32
on CUDA cores, so that TF32 plays no part. `run` launches the kernels.

Both operators are symmetric, A = I - h K'K and B = (I + h K'K)^-1, so each is its own backward
pass: with g the gradient of the output, dy = A g and d reaction = h g, or dy = B g and d reaction =
h B g. The taps follow from d<g, K'K x> = <K g, dK x> + <dK g, K x>, with x = y and g, or x = out
and B g.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.diffusion import instances

PROCESSORS = 132  # of an H100 or H200; they share the sums over pixels, alike on every device
ELEMENTS = 2**30  # of an image: offsets in it are 32-bit


def explicit(
    y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0, *, run: Run = launch
) -> Tensor:
    """y + h (reaction - K'K y). Raises ValueError where `why_not_explicit` has a reason."""
    _check(why_not_explicit(y, reaction, kernel))
    return _diffused(y, reaction, kernel, step, run)[0]


def explicit_backward(
    dy: Tensor,
    needs: Sequence[bool],
    y: Tensor,
    reaction: Tensor,
    kernel: Tensor,
    step: float = 1.0,
    *,
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of y, reaction and kernel, None where it is not needed."""
    _check(why_not_explicit(y, dy, kernel))
    to_y, to_reaction = _diffused(dy, None, kernel, step, run) if any(needs[:2]) else (None, None)
    taps = _tap_gradients(y, dy, kernel, step, False, run) if needs[2] else None
    return to_y if needs[0] else None, to_reaction if needs[1] else None, taps


def implicit(
    y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0, *, run: Run = launch
) -> Tensor:
    """(I + h K'K)^-1 (y + h reaction). Raises ValueError where `why_not_implicit` has a reason."""
    _check(why_not_implicit(y, reaction, kernel))
    return _solved(y, reaction, kernel, step, run)[0]


def implicit_backward(
    dy: Tensor,
    needs: Sequence[bool],
    y: Tensor,
    reaction: Tensor,
    kernel: Tensor,
    step: float = 1.0,
    *,
    out: Tensor | None = None,
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of y, reaction and kernel, None where it is not needed.

    out: what the step gave; the gradient of the kernel takes it, and solves again without it.
    """
    _check(why_not_implicit(y, dy, kernel))
    to_y, to_reaction = _solved(dy, None, kernel, step, run)
    taps = None
    if needs[2]:
        out = implicit(y, reaction, kernel, step, run=run) if out is None else out
        taps = _tap_gradients(out, to_y, kernel, step, True, run)
    return to_y if needs[0] else None, to_reaction if needs[1] else None, taps


def periodic_tap_gradients(
    out: Tensor, gradient: Tensor, kernel: Tensor, step: float = 1.0, *, run: Run = launch
) -> Tensor:
    """From the output of an implicit step and the gradient of its y."""
    _check(why_not_explicit(out, gradient, kernel))
    return _tap_gradients(out, gradient, kernel, step, True, run)


# ---- what can be served --------------------------------------------------------------------------


def why_not_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> str | None:
    """Why the kernels of the explicit step do not serve a call, None if they do."""
    if y.dim() != 4:
        return f"y has {y.dim()} dimensions; valid are 4: images, channels, height, width"
    if y.dtype not in instances.PRECISIONS:
        return f"y is {y.dtype}; valid are float32, bfloat16 and float16"
    channels, side = y.shape[1], kernel.shape[-1] if kernel.dim() == 4 else 0
    if kernel.shape != (channels, 1, side, side):
        return f"the kernel has shape {tuple(kernel.shape)}; valid is ({channels}, 1, k, k)"
    if side not in (1, *instances.SIDES):
        return f"the kernel has a side of {side}; valid are 1, 3, 5 and 7"
    if kernel.dtype not in instances.PRECISIONS:
        return f"the kernel is {kernel.dtype}; valid are float32, bfloat16 and float16"
    if (reaction.shape, reaction.dtype) != (y.shape, y.dtype):
        found = f"{tuple(reaction.shape)} of {reaction.dtype}"
        return f"found {found} beside {tuple(y.shape)} of {y.dtype}; valid is the same"
    if y[:1].numel() > ELEMENTS:
        return f"y has shape {tuple(y.shape)}; valid are images of at most 2^30 elements"
    places = {one.device for one in (y, reaction, kernel)}
    if len(places) > 1:
        found = " and ".join(sorted(map(str, places)))
        return f"tensors lie on {found}; valid is one device"
    return None


def why_not_implicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> str | None:
    """Why the kernels of the implicit step do not serve a call, None if they do.

    Larger maps are those of `fourier.implicit`, by cuFFT.
    """
    reason = why_not_explicit(y, reaction, kernel)
    if reason is None and max(y.shape[-2:]) > instances.LARGEST:
        size = f"{y.shape[-2]} x {y.shape[-1]}"
        return f"the map is {size}; valid are maps of up to 64 x 64 pixels"
    return reason


def _check(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(reason)


# ---- launches ------------------------------------------------------------------------------------


def _diffused(
    y: Tensor, reaction: Tensor | None, kernel: Tensor, step: float, run: Run
) -> tuple[Tensor, Tensor]:
    """The explicit step and, where there is no reaction, step y."""
    y, out, scaled = _buffers(y, reaction)
    if y.numel() == 0:
        return out, scaled
    reaction = None if reaction is None else _pixels(reaction)
    images, channels, height, width = y.shape
    taps = _taps(kernel)
    instance = instances.diffuse(y.dtype, taps.shape[-1], _is_aligned(y, reaction))
    blocks = _groups(channels) * _tiles(height) * _tiles(width) * images
    backward = scaled if reaction is None else None
    arguments = (y, reaction, taps, out, backward, float(step), height, width, channels)
    run(instance, grid=(blocks, 1, 1), arguments=arguments)
    return out, scaled


def _tap_gradients(
    y: Tensor, gradient: Tensor, kernel: Tensor, step: float, periodic: bool, run: Run
) -> Tensor:
    """(C, 1, k, k), in the dtype of the kernel."""
    if y.numel() == 0:
        return torch.zeros_like(kernel)
    y, gradient, taps = _pixels(y), _pixels(gradient), _taps(kernel)
    images, channels, height, width = y.shape
    side, groups = taps.shape[-1], _groups(channels)
    tiles = _tiles(height) * _tiles(width) * images
    instance = instances.tap_gradients(y.dtype, side, _is_aligned(y, gradient))
    splits = min(tiles, max(1, PROCESSORS * instance.blocks // groups))
    partial = taps.new_empty(splits, *taps.shape)
    shape = (images, height, width, channels)
    arguments = (y, gradient, taps, partial, float(step), *shape, int(periodic))
    run(instance, grid=(groups, splits, 1), arguments=arguments)
    margin = (side - kernel.shape[-1]) // 2
    centre = slice(margin, side - margin)
    return partial.sum(0)[:, None, centre, centre].to(kernel.dtype)


def _solved(
    y: Tensor, reaction: Tensor | None, kernel: Tensor, step: float, run: Run
) -> tuple[Tensor, Tensor]:
    """The implicit step and, where there is no reaction, step times that."""
    y, out, scaled = _buffers(y, reaction)
    if y.numel() == 0:
        return out, scaled
    reaction = None if reaction is None else _pixels(reaction)
    images, channels, height, width = y.shape
    rows, columns = _roots(height, y.device), _roots(width, y.device)
    symbol = _symbol(kernel, rows, columns, step, run)
    size = (height, width)
    instance = instances.solve(y.dtype, size, channels, _is_aligned(y, reaction))
    groups = -(-channels // (2 * dict(instance.macros)["PAIRS"]))
    backward = scaled if reaction is None else None
    arguments = (y, reaction, symbol, rows, columns, out, backward, float(step), channels)
    run(instance, grid=(groups * images, 1, 1), arguments=arguments)
    return out, scaled


def _symbol(kernel: Tensor, rows: Tensor, columns: Tensor, step: float, run: Run) -> Tensor:
    """1 / (H W (1 + h |K^|^2)): (H, W, C), C rounded up to even."""
    taps = kernel.detach().float().contiguous()
    height, width, channels = len(rows), len(columns), len(kernel)
    symbol = taps.new_empty(height, width, channels + channels % 2)
    instance = instances.symbol()
    blocks = -(-symbol.numel() // instance.threads)
    arguments = (taps, rows, columns, symbol, float(step), height, width, channels, taps.shape[-1])
    run(instance, grid=(blocks, 1, 1), arguments=arguments)
    return symbol


@cache
def _roots(n: int, device: torch.device) -> Tensor:
    """exp(-2 pi i k / n), k = 0..n-1, as (n, 2) fp32."""
    angle = torch.arange(n, dtype=torch.float64) * (-2 * torch.pi / n)
    return torch.stack((angle.cos(), angle.sin()), -1).float().to(device)


# ---- memory --------------------------------------------------------------------------------------


def _buffers(y: Tensor, reaction: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """y with channels last, the output, and, where there is no reaction, a second output."""
    y = _pixels(y)
    return y, torch.empty_like(y), torch.empty_like(y if reaction is None else y[:0])


def _pixels(x: Tensor) -> Tensor:
    """x with channels last in memory; no copy where it is so."""
    return x.detach().contiguous(memory_format=torch.channels_last)


def _is_aligned(*tensors: Tensor | None) -> bool:
    """Whether every pixel of every tensor starts at a multiple of 16 bytes."""
    given = [one for one in tensors if one is not None]
    row = given[0].shape[1] * given[0].element_size()
    return row % 16 == 0 and all(one.data_ptr() % 16 == 0 for one in given)


def _taps(kernel: Tensor) -> Tensor:
    """(C, k, k) in fp32, k at least 3."""
    taps = kernel.detach().float()[:, 0]
    return functional.pad(taps, (1, 1, 1, 1)) if taps.shape[-1] == 1 else taps.contiguous()


def _groups(channels: int) -> int:
    return -(-channels // instances.CHANNELS)


def _tiles(pixels: int) -> int:
    return -(-pixels // instances.TILE)
