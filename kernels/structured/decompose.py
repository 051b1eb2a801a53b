"""From dense kernels to structured ones and back: the decomposition and its regularisation.

With A the matrix whose columns are the cuboids of ones, vec(W) = A alpha. A cuboid is a product
of windows along the axes, so A is a Kronecker product of band matrices T and

    A^+ = T_C^+ x T_N^+ x T_N^+,   A A^+ = (T_C T_C^+) x (T_N T_N^+) x (T_N T_N^+):

each is applied axis by axis, and A itself is never formed. Kernels are (F, C/g, N, N), with one
more N in three dimensions, or matrices (P, Q).

Source: Structured Convolutions (Bhalgat et al. 2020), section 5, equation (3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor


def band(full: int, kept: int) -> Tensor:
    """T, (full, kept) in float64: column j is 1 on the full - kept + 1 entries from j on.

    Raises ValueError unless 1 <= kept <= full.
    """
    if not 1 <= kept <= full:
        raise ValueError(f"{kept} of {full} cannot be kept; valid are 1 to {full}")
    offset = torch.arange(full)[:, None] - torch.arange(kept)
    return ((offset >= 0) & (offset <= full - kept)).double()


def compose(weight: Tensor, channels: int, kernel: int = 1) -> Tensor:
    """The dense kernel (F, C, N, N) = A alpha of a structured one, alpha (F, c, n, n)."""
    return _along(weight, [channels, *[kernel] * (weight.dim() - 2)], _expansion)


def decompose(kernel: Tensor, c: int, n: int = 1) -> Tensor:
    """alpha (F, c, n, n) = A^+ W, whose structured kernel is the nearest to W in Frobenius norm."""
    return _along(kernel, [c, *[n] * (kernel.dim() - 2)], _reduction)


def project(kernel: Tensor, c: int, n: int = 1) -> Tensor:
    """A A^+ W: the structured kernel nearest to W, of the same shape."""
    return _along(kernel, [c, *[n] * (kernel.dim() - 2)], _projection)


def structural_penalty(kernels: Iterable[tuple[Tensor, int, int]]) -> Tensor:
    """Sum over the layers (W, c, n) of |(I - A A^+) W|_F / |W|_F, to be added to a loss.

    Differentiable in each W. A kernel of zeros is structured and adds nothing.
    Raises ValueError where there is no layer.
    """
    terms = [
        torch.linalg.vector_norm(kernel - project(kernel, c, n))
        / torch.linalg.vector_norm(kernel).clamp_min(torch.finfo(kernel.dtype).tiny)
        for kernel, c, n in kernels
    ]
    if not terms:
        raise ValueError("there is no layer to regularise; give (kernel, c, n) for at least one")
    return torch.stack(terms).sum()


@lru_cache(maxsize=256)
def _reduction(full: int, kept: int) -> Tensor:
    return torch.linalg.pinv(band(full, kept))


@lru_cache(maxsize=256)
def _projection(full: int, kept: int) -> Tensor:
    return band(full, kept) @ _reduction(full, kept)


def _expansion(kept: int, full: int) -> Tensor:
    return band(full, kept)


def _along(kernel: Tensor, targets: Sequence[int], matrix: Callable[[int, int], Tensor]) -> Tensor:
    """Apply `matrix(size, target)` along every axis but the first."""
    for axis, target in enumerate(targets, start=1):
        factor = matrix(kernel.shape[axis], target).to(kernel)
        kernel = torch.tensordot(kernel, factor, ([axis], [1])).movedim(-1, axis)
    return kernel
