"""Losses over scores (n, K) with labels (n,), or (n, K, H, W) with (n, H, W).

    cross-entropy   - sum_k q_k log p_k,    q_k = (1 - e) [k = label] + e / K
    focal           - (1 - p)^gamma log p,  p that of the label

means over the labels that are not IGNORED. The focal loss gives less weight to what is already
right, so that the many easy pixels of the background do not drown the rest.

Sources: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (smoothing e);
Lin et al. 2017, "Focal loss for dense object detection", equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nas.datasets.labelled import IGNORED

SMALLEST = 1e-8
"""1 - p is kept from 0, where a power below 1 has no finite slope."""


def loss(scores: Tensor, labels: Tensor, smoothing: float = 0.0, gamma: float = 0.0) -> Tensor:
    """The mean over the labels that count, zero where none does; in float32."""
    each = cross_entropy(
        scores.float(),
        labels,
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=0.0 if gamma else smoothing,
    )
    if gamma:
        missing = (-torch.expm1(-each)).clamp(min=SMALLEST)
        each = missing**gamma * each
    return each.sum() / (labels != IGNORED).sum().clamp(min=1)
