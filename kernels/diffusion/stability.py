"""When a reaction-diffusion step is stable, by the transfer function K^ of its diffusion.

The diffusion's part of the explicit step, I - h K'K, has the eigenvalues 1 - h |K^|^2; that of the
implicit one, (I + h K'K)^-1, has 1 / (1 + h |K^|^2). Hence, on a periodic map,

    explicit: stable iff h max |K^|^2 <= 2;    implicit: radius <= 1, and 1 only at a zero of K^.

A map with zero padding has a smaller norm: there the first condition suffices.
Source: Low-cost parameterizations, section 3.2.2, where the radius is printed as < 1.

kernel: (C, 1, k, k), one stencil a channel, or (C, k, k), block-circulant over the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.diffusion.fourier import laid_out, squared


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
