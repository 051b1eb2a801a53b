"""Between an operation of torch and its CUDA kernels: which devices, which precision, what layout.

A file `gpu.py` beside each operation makes its `Implementation` "cuda" of these and of `cuda.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.layout import is_last

DEVICES = ("cuda",)
COMPONENT = "cupy"
SHARED = 160 * 1024
"""Bytes of shared memory that tiles are laid out for: A100, H100, H200, B200."""


def why_not_device(x: Tensor) -> str | None:
    """Why a GPU is not one that the kernels are made for, None if it is."""
    if x.device.type != "cuda":
        return None
    if torch.version.hip:
        return "the kernels are for NVIDIA GPUs, and this torch is built for AMD's"
    found: Any = torch.cuda.get_device_properties(x.device)
    if found.major < 8:
        return f"{found.name} has compute capability {found.major}.{found.minor}; valid are 8.0 on"
    if (shared := found.shared_memory_per_block_optin) < SHARED:
        return (
            f"{found.name} gives a block {shared} bytes of shared memory; the tiles need {SHARED} "
            "(A100, H100, H200, B200)"
        )
    return None


def precision() -> str:
    """How products of float32 are computed: "tf32" where torch may do so in a matrix product, else
    "fp32" (three TF32 products)."""
    matmul = torch.backends.cuda.matmul
    setting = getattr(matmul, "fp32_precision", None)  # from torch 2.9 on; no mix with the old one
    allowed = matmul.allow_tf32 if setting is None else setting == "tf32"
    return "tf32" if allowed else "fp32"


def laid(y: Tensor, x: Tensor) -> Tensor:
    """A result of a kernel, whose channels are last, in the layout of x."""
    return y if is_last(x) else y.contiguous()


def typed(
    gradients: Sequence[Tensor | None], tensors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Each gradient in the type of its tensor; sums over pixels are fp32 until here."""
    return [
        gradient if gradient is None or tensor is None else gradient.to(tensor.dtype)
        for gradient, tensor in zip(gradients, tensors, strict=True)
    ]
