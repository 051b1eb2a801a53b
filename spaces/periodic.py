"""Periodic maps: what leaves at one border comes in at the other; and what a transform costs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from spaces.operator import Mask
from spaces.place import Place


def wrapped(needed: Mask, offsets: Iterable[int], axis: int) -> Mask:
    """Union of the mask moved by each offset along one axis, circularly."""
    union = np.zeros_like(needed)
    for offset in {offset % needed.shape[axis] for offset in offsets}:
        union |= np.roll(needed, offset, axis)
    return union


def filter_cost(place: Place, *, across_channels: bool, real_symbol: bool) -> tuple[int, int]:
    """Mults and adds of transform, product and transform back, all C channels, by formula.

    A real transform of n points takes n log2 n mults and 1.5 n log2 n adds; n = H W for each
    channel, or n = C H W at once across channels. Of each channel H (floor(W / 2) + 1) coefficients
    are kept, and a product takes 2 mults with a real symbol, 4 mults and 2 adds with a complex
    one. The symbol itself is ready: it changes with the weights only. Whole numbers by rounding.

    >>> filter_cost(Place(2, 2, 4, 4), across_channels=False, real_symbol=True)
    (304, 384)
    """
    points = place.height * place.width * (place.channels if across_channels else 1)
    transforms = 2 * place.in_elements * math.log2(points)
    kept = place.channels * place.height * (place.width // 2 + 1)
    mults, adds = (2, 0) if real_symbol else (4, 2)
    return round(transforms) + mults * kept, round(1.5 * transforms) + adds * kept
