"""Training-free scores, against what they are by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.scores import scores


def small() -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3, bias=False))
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), *head)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 2, 5, 5, generator=generator), torch.arange(8) % 3


def test_each_score_is_its_formula() -> None:
    model, (images, labels) = small(), batch()
    found = scores(model, images, labels)
    nn.functional.cross_entropy(model(images), labels).backward()
    weights = list(model.parameters())
    flat = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    assert found.gradient == pytest.approx(float(flat.norm()), rel=1e-5)
    product = sum(float((w.detach() * w.grad).abs().sum()) for w in weights if w.grad is not None)
    assert found.snip == pytest.approx(product, rel=1e-5)
    on = (model[0](images) > 0).flatten(1).numpy()
    equal = np.array([[np.sum(a == b) for b in on] for a in on], float)
    assert found.naswot == pytest.approx(np.linalg.slogdet(equal)[1])


def test_each_layer_passes_the_whole_flow() -> None:
    """By Euler's theorem sum w dR/dw = R for each of the two layers, in which R is linear."""
    model, (images, labels) = small(), batch()
    found = scores(model, images, labels)
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
        whole = float(model(torch.ones(1, 2, 5, 5)).sum())
    assert found.synflow == pytest.approx(math.log(2 * whole), rel=1e-5)


def test_the_network_stays_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), *small())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = scores(model, *batch())
    assert scores(model, *batch()) == first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_equal_images_have_no_determinant_and_a_linear_network_no_score() -> None:
    model, (images, labels) = small(), batch()
    assert scores(model, images[:1].repeat(8, 1, 1, 1), labels).naswot == -math.inf
    linear = nn.Sequential(nn.Flatten(), nn.Linear(50, 3))
    with pytest.raises(ValueError, match="no ReLU"):
        scores(linear, images, labels)
