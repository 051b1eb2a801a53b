"""Weights as structured.cu reads them: small groups merged, cut into blocks, chunks and taps."""

from __future__ import annotations

from torch import Tensor

from kernels.cuda.source import Kernel
from kernels.structured.instances import Plan


def merge(weight: Tensor, groups: int) -> tuple[Tensor, int]:
    """Small groups as fewer, wider ones whose weights are block-diagonal: products have 16 rows."""
    outputs, kept, *taps = weight.shape
    merged = merged_groups(groups, kept, outputs // groups)
    if merged == 1:
        return weight, 1
    own = weight.view(groups // merged, merged, -1, kept, *taps)
    whole = own.new_zeros((groups // merged, merged, own.shape[2], merged, kept, *taps))
    whole.diagonal(dim1=1, dim2=3).copy_(own.movedim(1, -1))
    return whole.reshape(outputs, merged * kept, *taps), merged


def merged_groups(groups: int, kept: int, outputs: int) -> int:
    """How many groups together: as many as 64 channels hold."""
    largest = max(1, 64 // max(kept, outputs))
    return max(m for m in range(1, min(groups, largest) + 1) if groups % m == 0)


def pack(weight: Tensor, groups: int, chosen: Plan, kernel: Kernel) -> Tensor:
    """[group][split][block][chunk][tap][output][channel], with zeros where c or F end."""
    macros = dict(kernel.macros)
    chunk = macros["ROW"] // weight.element_size()
    outputs, kept, taps, _ = weight.shape
    padded = chosen.splits * chosen.blocks * chosen.width
    chunks = -(-kept // chunk)
    packed = weight.new_zeros((groups, padded, chunks * chunk, taps * taps))
    packed[:, : outputs // groups, :kept] = weight.reshape(groups, -1, kept, taps * taps)
    cut = packed.view(groups, -1, chosen.width, chunks, chunk, taps * taps)
    return cut.permute(0, 1, 3, 5, 2, 4).contiguous()
