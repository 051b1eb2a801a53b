"""Steps of diffusion on the CPU.

llvm   the explicit step as two stencils, the second with the sum behind it; gradients too
dense  a block-circulant convolution by its dense kernel: where it is narrow that is as fast as
       transforms over channels, rows and columns, though it multiplies more
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.diffusion import reference
from kernels.factorized.cpu import rows, square
from kernels.jit import maps
from kernels.layout import is_last
from kernels.operation import Gradients, Implementation

WIDE = 32
"""Channels up to which a dense kernel is as fast as the transforms (measured; 3 x 3)."""


def _why_not_llvm(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> str | None:
    return maps.why_not(y) or maps.why_not_products(kernel.shape[-1] ** 2)


def _llvm(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> Tensor:
    """(y + h r) - h K' (K y)."""
    taps = square(kernel.shape[-1])
    ky = maps.mixed(y, None, rows(kernel), taps)
    moved = torch.add(maps.last(y), maps.last(reaction), alpha=step)
    y_next = maps.mixed(ky, None, -step * rows(kernel), maps.mirrored(taps), residual=moved)
    return maps.dense(y_next, is_last(y))


def _llvm_backward(
    dy: Tensor, needs: Sequence[bool], y: Tensor, reaction: Tensor, kernel: Tensor, step: float
) -> Gradients:
    """I - h K'K is its own adjoint; the gradient of <g, K'K y> by K is that of <K g, K y>."""
    g, taps, stencil = maps.last(dy), square(kernel.shape[-1]), rows(kernel)
    d_y = d_reaction = d_kernel = None
    if needs[0] or needs[2]:
        kg = maps.mixed(g, None, stencil, taps)
    if needs[0]:
        d_y = maps.mixed(kg, None, -step * stencil, maps.mirrored(taps), residual=g)
        d_y = maps.dense(d_y, is_last(y))
    if needs[1]:
        d_reaction = maps.dense(step * g, is_last(reaction))
    if needs[2]:
        ky = maps.mixed(y, None, stencil, taps)
        _, one = maps.weight_gradients(kg, y, taps, mixes=False)
        _, other = maps.weight_gradients(ky, g, taps, mixes=False)
        if one is not None and other is not None:
            d_kernel = (-step * (one + other)).squeeze(-1).t().reshape(kernel.shape)
    return d_y, d_reaction, d_kernel


def _why_not_dense(x: Tensor, *rest: Any) -> str | None:
    if not x.numel():
        return "there is nothing to compute"
    if x.shape[1] > WIDE:
        return f"above {WIDE} channels transforms are faster than a dense kernel"
    return None


EXPLICIT_LLVM = Implementation("llvm", _llvm, _llvm_backward, _why_not_llvm, ("cpu",))
CIRCULANT_DENSE = Implementation("dense", reference.circulant, None, _why_not_dense)
