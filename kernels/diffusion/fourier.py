"""Reaction-diffusion steps and block-circulant convolutions by the fast Fourier transform.

On a periodic map a convolution is a product: (K y)^ = conj(K^) y^, where K^ transforms the taps
laid on the map, their centre at the origin. Source: Low-cost parameterizations, equation 10 and
sections 3.2.2 and 3.2.3; what they call K e_1, the first column, is the mirror image of the taps,
hence the conjugate.
"""

from __future__ import annotations

import torch
from torch import Tensor


def implicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """(I + h K'K)^-1 (y + h reaction). y, reaction: (N, C, H, W). kernel: (C, 1, k, k).

    (I + h K'K) is diagonal in frequency, 1 + h |K^|^2: at least 1, so that it always inverts.
    """
    size = (y.shape[-2], y.shape[-1])
    symbol = 1 / (1 + step * squared(torch.fft.rfft2(laid_out(kernel[:, 0], size))))
    return torch.fft.irfft2(symbol * torch.fft.rfft2(y + step * reaction), s=size)


def circulant(x: Tensor, kernel: Tensor) -> Tensor:
    """K_circ x: block (i, j) is kernel[(j - i) mod C]. x: (N, C, H, W). kernel: (C, k, k)."""
    symbol = torch.fft.rfftn(laid_out(kernel, (x.shape[-2], x.shape[-1]))).conj_physical()
    return filtered(x, symbol)


def circulant_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """y + h (reaction - K_circ' K_circ y). kernel: (C, k, k)."""
    symbol = squared(torch.fft.rfftn(laid_out(kernel, (y.shape[-2], y.shape[-1]))))
    return y + step * (reaction - filtered(y, symbol))


def filtered(x: Tensor, symbol: Tensor) -> Tensor:
    """One transform over channels, rows and columns, a product, and the transform back."""
    axes = (-3, -2, -1)
    return torch.fft.irfftn(symbol * torch.fft.rfftn(x, dim=axes), s=x.shape[1:], dim=axes)


def laid_out(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Taps (C, k, k) on a map (C, H, W), the centre at (0, 0); on a small map they overlap."""
    channels, side, _ = kernel.shape
    channel = torch.arange(channels, device=kernel.device)
    tap = torch.arange(side, device=kernel.device) - side // 2
    where = (channel[:, None, None], (tap % size[0])[:, None], tap % size[1])
    return kernel.new_zeros(channels, *size).index_put(where, kernel, accumulate=True)


def squared(spectrum: Tensor) -> Tensor:
    """|z|^2, smooth at 0 as |z| is not."""
    return spectrum.real**2 + spectrum.imag**2
