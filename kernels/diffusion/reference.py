"""Reaction-diffusion steps and block-circulant convolutions, computed directly.

The definition that faster versions are compared with: dense weights, dense matrices.
Source: Low-cost parameterizations of deep CNNs, equations 9, 11 and 12.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """y + h (reaction - K'K y), zero padding. y, reaction: (N, C, H, W). kernel: (C, 1, k, k).

    The adjoint of a convolution with zero padding is the one with flipped taps.
    """
    channels, padding = y.shape[1], kernel.shape[-1] // 2
    ky = functional.conv2d(y, kernel, padding=padding, groups=channels)
    kky = functional.conv2d(ky, kernel.flip(-2, -1), padding=padding, groups=channels)
    return y + step * (reaction - kky)


def implicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """(I + h K'K)^-1 (y + h reaction) by dense solves, periodic. kernel: (C, 1, k, k).

    Cost: C (H W)^3.
    """
    channels, height, width = y.shape[1:]
    n = height * width
    pixels = torch.eye(n, dtype=y.dtype, device=y.device).reshape(n, 1, height, width)
    columns = periodic(pixels.expand(-1, channels, -1, -1), kernel, groups=channels)
    k = columns.reshape(n, channels, n).permute(1, 2, 0)
    system = torch.eye(n, dtype=y.dtype, device=y.device) + step * k.mT @ k
    right = (y + step * reaction).flatten(2).unsqueeze(-1)
    return torch.linalg.solve(system, right).reshape(y.shape)


def circulant(x: Tensor, kernel: Tensor) -> Tensor:
    """K_circ x, periodic: block (i, j) is kernel[(j - i) mod C]. kernel: (C, k, k)."""
    return periodic(x, blocks(kernel))


def circulant_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0) -> Tensor:
    """y + h (reaction - K_circ' K_circ y), periodic. kernel: (C, k, k)."""
    weight = blocks(kernel)
    adjoint = weight.transpose(0, 1).flip(-2, -1)
    return y + step * (reaction - periodic(periodic(y, weight), adjoint))


def blocks(kernel: Tensor) -> Tensor:
    """The dense weight (C, C, k, k) of a block-circulant convolution."""
    channel = torch.arange(len(kernel), device=kernel.device)
    return kernel[(channel[None, :] - channel[:, None]) % len(kernel)]


def periodic(x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """The convolution on a map that goes on at the opposite border, however small it is."""
    half = weight.shape[-1] // 2
    rows = torch.arange(-half, x.shape[-2] + half, device=x.device) % x.shape[-2]
    columns = torch.arange(-half, x.shape[-1] + half, device=x.device) % x.shape[-1]
    return functional.conv2d(x[..., rows, :][..., columns], weight, groups=groups)
