"""How a map lies in memory: channels last or not."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def is_last(x: Tensor) -> bool:
    """Whether the channels of a map (N, C, H, W) are neighbours in memory."""
    return x.dim() == 4 and x.stride(1) == 1


def strides(size: Sequence[int], last: bool) -> tuple[int, ...]:
    """Of a dense tensor of this size, rows in order or, if `last`, (N, C, H, W) channels last."""
    order = [0, 2, 3, 1] if last and len(size) == 4 else list(range(len(size)))
    found = [1] * len(size)
    for outer, inner in zip(reversed(order[:-1]), reversed(order[1:]), strict=True):
        found[outer] = found[inner] * max(1, size[inner])
    return tuple(found)


def same_layout(size: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two strides mean the same; an axis of one entry has no stride."""
    return all(n <= 1 or a == b for n, a, b in zip(size, one, other, strict=True))


def described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
