"""K_dw x + M x. Source: Low-cost parameterizations, equation 7, with the diagonal of M kept."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def linear_mix(x: Tensor, spatial: Tensor, mixing: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W), zero padding.

    spatial: (C, 1, k, k). mixing: (C, C, 1, 1).
    """
    channels, padding = x.shape[1], spatial.shape[-1] // 2
    own = functional.conv2d(x, spatial, padding=padding, groups=channels)
    return own + functional.conv2d(x, mixing)
