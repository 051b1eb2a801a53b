"""The items of the literature's layouts, against their modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spaces.activations import Bias, Dropout, Sigmoid, SiLU
from spaces.fixed import Fixed
from spaces.items import (
    Dense,
    Flatten,
    GlobalPool,
    Resized,
    Subsample,
    TiledMaxPool,
    Upsample,
    ValidConvolution,
    dense,
    pooled,
)
from spaces.operator import Mask
from spaces.place import Place

KEPT = (Place(3, 3, 4, 3), Place(2, 2, 1, 1))
CASES = [
    *((item, place) for item in (Bias(), SiLU(), Sigmoid(), Dropout(0.5)) for place in KEPT),
    *(
        (ValidConvolution(kernel), ValidConvolution(kernel).place(2, 3, height, width, stride))
        for kernel, height, width, stride in ((3, 7, 6, 2), (3, 3, 5, 1), (4, 9, 8, 3))
    ),
    *(
        (item(), Place(2, 2, height, width, stride))
        for item in (TiledMaxPool, Subsample)
        for height, width, stride in ((6, 6, 2), (5, 7, 3), (1, 4, 2))
    ),
    *((GlobalPool(), pooled(3, height, width)) for height, width in ((4, 5), (1, 1))),
    *(
        (Upsample(), Resized(2, 2, *sizes))
        for sizes in ((3, 4, 1, 6, 8), (3, 2, 1, 5, 7), (1, 1, 1, 3, 2), (4, 3, 1, 4, 3))
    ),
    *((Dense(), dense(2, 3, *size)) for size in ((3, 4), (1, 1))),
    (Flatten(), Place(3, 3, 1, 1)),
]
everywhere = pytest.mark.parametrize(("item", "place"), CASES, ids=str)


def shaped(module: nn.Module, place: Place) -> nn.Module:
    """With outputs (N, F, H', W'), whatever the module makes of them."""
    return nn.Sequential(module, nn.Unflatten(1, (place.features, 1, 1)))


def largest(module: nn.Module, place: Place) -> np.ndarray:
    """Which outputs change when one input becomes the largest: (F, H', W', C, H, W)."""
    shape = (place.channels, place.height, place.width)
    images = torch.eye(place.in_elements).reshape(-1, *shape)
    changed = module(images) != module(torch.zeros(1, *shape))
    return np.moveaxis(changed.numpy(), 0, -1).reshape(*changed.shape[1:], *shape)


@everywhere
def test_reads_are_what_the_module_depends_on(item: Fixed, place: Place, dependency: Any) -> None:
    module = item.module(place)
    if isinstance(item, TiledMaxPool):
        found = largest(module, place)
    else:
        flat = isinstance(item, Dense | Flatten)
        shape = (place.channels, place.height, place.width)
        found = dependency(shaped(module, place) if flat else module, shape)
    outputs = (place.features, place.out_height, place.out_width)
    assert found.shape[:3] == outputs
    needed: Mask = np.eye(place.out_elements, dtype=bool).reshape(-1, *outputs)
    assert np.array_equal(item.reads(needed, place), found.reshape(-1, *found.shape[3:]))


@everywhere
def test_reach_bounds_the_reads(item: Fixed, place: Place) -> None:
    outputs = (place.features, place.out_height, place.out_width)
    needed: Mask = np.eye(place.out_elements, dtype=bool).reshape(-1, *outputs)
    read = item.reads(needed, place)
    (box,) = item.reach(place)
    assert read.any(axis=(-3, -1)).sum(-1).max() <= box.rows
    assert read.any(axis=(-3, -2)).sum(-1).max() <= box.columns
    assert read.any(axis=(-2, -1)).sum(-1).max() <= box.fan_in


@everywhere
def test_params_and_mults_are_those_of_the_module(item: Fixed, place: Place) -> None:
    module = item.module(place).eval()
    assert item.params(place) == sum(p.numel() for p in module.parameters())
    lines = item.lines(place, 4)
    assert sum(line.params for line in lines) == item.params(place)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, place.channels, place.height, place.width))
    layers = [line for line in lines if line.kind in {"conv", "linear"}]
    assert 2 * sum(line.mults for line in layers) == counter.get_total_flops()
    for line in layers:
        outputs = place.out_elements
        assert line.adds == line.mults - outputs


def test_the_stem_of_factorized_cnn() -> None:
    convolution = ValidConvolution(7)
    place = convolution.place(3, 64, 221, 221, 2)
    assert (place.out_height, place.out_width) == (108, 108)
    assert convolution.mults(place) == 109_734_912


def test_interpolation_reads_one_neighbour_where_it_meets_it() -> None:
    place = Resized(1, 1, 3, 3, 1, 9, 9)
    needed = np.zeros((1, 9, 9), bool)
    needed[0, 4, 1] = True
    assert np.argwhere(Upsample().reads(needed, place)).tolist() == [[0, 1, 0]]


def test_pools_keep_the_smaller_window_of_an_odd_map() -> None:
    place = Place(1, 1, 5, 7, 3)
    pooled_map = TiledMaxPool().module(place)(torch.arange(35.0).reshape(1, 1, 5, 7))
    assert pooled_map[0, 0].tolist() == [[16, 19, 20], [30, 33, 34]]


def test_a_bias_is_zero_at_first() -> None:
    image = torch.randn(2, 3, 4, 3)
    assert torch.equal(Bias().module(KEPT[0])(image), image)


def test_dropout_drops_in_training_alone() -> None:
    module = Dropout(0.5).module(KEPT[0])
    image = torch.ones(1, 3, 40, 30)
    assert (module.train()(image) == 0).float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(module.eval()(image), image)


def test_a_resized_place_is_checked_as_any_other() -> None:
    with pytest.raises(ValueError, match="channels is 0"):
        Resized(0, 1, 1, 1)
