"""Training-free scores of an untrained network: rivals that a ranking by training has to beat.

    naswot     log|K|, K_ij = number of ReLUs that are equally on or off for images i and j
               (Mellor et al. 2021, Neural Architecture Search without Training, section 3)
    gradient   Euclidean norm of the gradient of the loss (Abdelfattah et al. 2021, section 3.2.1)
    snip       sum |w dL/dw| over all weights (Lee et al. 2019, eq. 5)
    synflow    log sum |w dR/dw|, R = the sum of the scores of a network with weights |w| on an
               image of ones (Tanaka et al. 2020, eq. 2), in float64 lest it overflow

Larger is better by all of them. Cost: two forward and backward passes over one batch.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class Scores(NamedTuple):
    """See the module."""

    naswot: float
    gradient: float
    snip: float
    synflow: float


def scores(model: nn.Module, images: Tensor, labels: Tensor) -> Scores:
    """The scores of a network, which is left as it was, on a batch (N, C, H, W), labels (N,).

    Batch normalisation takes its statistics from the batch, and none for synflow. Raises
    ValueError for a network without ReLU.
    """
    gradient, snip, naswot = _on_batch(copy.deepcopy(model), images, labels)
    return Scores(naswot, gradient, snip, _synflow(copy.deepcopy(model), images))


def _on_batch(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
    codes: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(
                lambda _, __, output: codes.append((output > 0).flatten(1))
            )
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError("the network has no ReLU, so no pattern of activations to score")
    model.train()
    cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    weights = [p for p in model.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in weights if p.grad is not None))
    snip = sum(float((p.detach() * p.grad).abs().sum()) for p in weights if p.grad is not None)
    return norm, snip, _log_determinant(torch.cat(codes, dim=1))


def _log_determinant(codes: Tensor) -> float:
    """log|K| of binary codes (N, units); -inf where two images have the same one."""
    on = codes.double()
    kernel = on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


def _synflow(model: nn.Module, images: Tensor) -> float:
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    model(torch.ones_like(images[:1], dtype=torch.float64)).sum().backward()
    flow = sum(
        float((p.detach() * p.grad).abs().sum()) for p in model.parameters() if p.grad is not None
    )
    return math.log(flow) if flow > 0 else -math.inf
