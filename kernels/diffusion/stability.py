"""When a reaction-diffusion step is stable, by the transfer function K^ of its diffusion.

The diffusion's part of the explicit step, I - h K'K, has the eigenvalues 1 - h |K^|^2; that of the
implicit one, (I + h K'K)^-1, has 1 / (1 + h |K^|^2). Hence, on a periodic map,

    explicit: stable iff h max |K^|^2 <= 2;    implicit: radius <= 1, and 1 only at a zero of K^.

A map with zero padding has a smaller norm: there the first condition suffices. Training knows
neither; the stable steps below scale K back to the condition where it has left it, by a bound that
holds on maps of any size, so that nothing changes inside:

    K_s = K / max(1, sqrt(h / 2) bound(K)),    h max |K_s^|^2 <= 2

Source: Low-cost parameterizations, section 3.2.2, where the radius is printed as < 1.

kernel: (C, 1, k, k), one stencil a channel, or (C, k, k), block-circulant over the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.diffusion.fourier import circulant_explicit, laid_out, squared
from kernels.diffusion.reference import explicit


def power(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """|K^|^2 at every frequency of a periodic map (height, width)."""
    if kernel.dim() == 4:
        return squared(torch.fft.fft2(laid_out(kernel[:, 0], size)))
    return squared(torch.fft.fftn(laid_out(kernel, size)))


def explicit_radius(kernel: Tensor, step: float, size: tuple[int, int]) -> float:
    """Spectral radius of I - h K'K."""
    return float((1 - step * power(kernel, size)).abs().max())


def implicit_radius(kernel: Tensor, step: float, size: tuple[int, int]) -> float:
    """Spectral radius of (I + h K'K)^-1."""
    return float((1 / (1 + step * power(kernel, size))).max())


def is_explicit_stable(kernel: Tensor, step: float, size: tuple[int, int]) -> bool:
    """Whether h max |K^|^2 <= 2."""
    return step * float(power(kernel, size).max()) <= 2


def bound(kernel: Tensor) -> Tensor:
    """At least max |K^| on a map of any size: sum of |taps|, a channel or a channel frequency.

    (C, 1, 1, 1) for one stencil a channel, a scalar for block-circulant ones.
    """
    if kernel.dim() == 4:
        return kernel.abs().sum((-2, -1), keepdim=True)
    return torch.fft.fft(kernel, dim=0).abs().sum((-2, -1)).max()


def stable(kernel: Tensor, step: float) -> Tensor:
    """K_s, and K itself where that is stable already; gradients flow through the bound."""
    return kernel / (bound(kernel) * (step / 2) ** 0.5).clamp(min=1)


def stable_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """y + h (reaction - K_s'K_s y), zero padding. kernel: (C, 1, k, k)."""
    return explicit(y, reaction, stable(kernel, step), step)


def stable_circulant_explicit(
    y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0
) -> Tensor:
    """y + h (reaction - K_s'K_s y), periodic. kernel: (C, k, k), block-circulant."""
    return circulant_explicit(y, reaction, stable(kernel, step), step)
