"""What several test files use: the gradients of a module, as the oracle of what it reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from kernels import choice

torch.set_num_threads(1)
choice.freeze({})  # no test measures, or writes to the cache of who runs it

Dependency = Callable[[nn.Module, tuple[int, int, int]], np.ndarray]


def _dependency(module: nn.Module, shape: tuple[int, int, int]) -> np.ndarray:
    """Which inputs (C, H, W) each output depends on: booleans (F, H', W', C, H, W).

    Float64, eval mode, positive random weights and inputs, so that no gradient cancels; the
    derivative of a ReLU is taken as 1. One copy of the input an output: copy i gets the gradient
    of output i.
    """
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _, inputs, __: inputs[0])
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.uniform_(0.5, 1.5, generator=generator)
    image = torch.empty(1, *shape, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        outputs = module(image)[0].shape
    copies = image.expand(outputs.numel(), -1, -1, -1).clone().requires_grad_()
    own = module(copies).flatten(1).diagonal()
    (gradient,) = torch.autograd.grad(own.sum(), copies)
    pattern = gradient.abs() > 1e-10 * gradient.abs().max()
    return pattern.numpy().reshape(*outputs, *shape)


@pytest.fixture(scope="session")
def dependency() -> Dependency:
    """The function that measures what a module reads."""
    return _dependency
