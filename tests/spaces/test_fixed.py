"""The items around the operators, against their modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spaces.fixed import (
    AveragePool,
    BatchNorm,
    Classifier,
    Fixed,
    MaxPool,
    ReLU,
    Shortcut,
    Shuffle,
)
from spaces.place import Place

KEPT = [Place(6, 6, 5, 4), Place(12, 12, 2, 3)]
CASES = [
    *((Shuffle(number), place) for number in (2, 3, 6) for place in KEPT),
    *((item(), place) for item in (BatchNorm, ReLU) for place in KEPT),
    *(
        (item(), Place(4, 4, height, width, stride))
        for item in (AveragePool, MaxPool)
        for height, width, stride in ((5, 7, 2), (4, 4, 2), (7, 5, 3), (1, 1, 2))
    ),
    *(
        (Shortcut(), Place(channels, features, 5, 6, stride))
        for channels, features in ((4, 4), (4, 8), (8, 4))
        for stride in (1, 2)
    ),
]
CLASSIFIERS = [Place(6, 3, 4, 5), Place(5, 10, 1, 1)]
everywhere = pytest.mark.parametrize(("item", "place"), CASES, ids=str)


def each_output(place: Place) -> np.ndarray:
    """Every output by itself: (F H' W', F, H', W')."""
    shape = (place.features, place.out_height, place.out_width)
    return np.eye(place.out_elements, dtype=bool).reshape(-1, *shape)


def probed(module: nn.Module, shape: tuple[int, int, int]) -> np.ndarray:
    """Which outputs change when one input becomes the largest: (F, H', W', C, H, W).

    For items of which a gradient shows only the input that won.
    """
    changes = []
    base = module.eval()(torch.zeros(1, *shape))
    for i in range(int(np.prod(shape))):
        image = torch.zeros(1, *shape)
        image.view(-1)[i] = 1.0
        changes.append((module(image) != base)[0].numpy())
    return np.moveaxis(np.array(changes), 0, -1).reshape(*base.shape[1:], *shape)


@everywhere
def test_reads_are_what_the_module_depends_on(item: Fixed, place: Place, dependency: Any) -> None:
    assert item.why_invalid(place) is None
    shape = (place.channels, place.height, place.width)
    measure = probed if isinstance(item, MaxPool) else dependency
    found = measure(item.module(place), shape)
    assert found.shape[:3] == (place.features, place.out_height, place.out_width)
    assert np.array_equal(item.reads(each_output(place), place), found.reshape(-1, *shape))


@everywhere
def test_params_and_ledger(item: Fixed, place: Place) -> None:
    assert item.params(place) == sum(p.numel() for p in item.module(place).parameters())
    (line,) = item.lines(place, 4)
    declared = (item.params(place), item.mults(place), item.adds(place), item.traffic(place, 4))
    assert line[1:] == declared


@everywhere
def test_carried_permutations_are_symmetries(item: Fixed, place: Place) -> None:
    rng = np.random.default_rng(0)
    shape = (4, place.features, place.out_height, place.out_width)
    needed = rng.random(shape) < 0.2
    permutation = rng.permutation(place.features)
    carried = item.carried(permutation, place)
    assert (carried is None) == isinstance(item, Shortcut)
    if carried is not None:
        turned = item.reads(needed[:, permutation], place)
        assert np.array_equal(turned, item.reads(needed, place)[:, carried])


@pytest.mark.parametrize("item", [Shuffle(2), AveragePool(), BatchNorm(), ReLU(), MaxPool()])
def test_what_keeps_the_width_refuses_to_change_it(item: Fixed) -> None:
    reason = item.why_invalid(Place(4, 8, 5, 5))
    assert reason is not None
    assert "4 to 8" in reason


def windows(place: Place) -> list[int]:
    """Inputs under each window of one channel of a stride x stride pool."""
    return [
        min(place.stride, place.height - y) * min(place.stride, place.width - x)
        for y in range(0, place.height, place.stride)
        for x in range(0, place.width, place.stride)
    ]


@pytest.mark.parametrize("place", [p for item, p in CASES if isinstance(item, AveragePool)])
def test_an_average_adds_within_each_window_and_divides_once(place: Place) -> None:
    inside = windows(place)
    assert AveragePool().adds(place) == place.channels * sum(n - 1 for n in inside)
    assert AveragePool().mults(place) == place.channels * len(inside)


@pytest.mark.parametrize("place", [p for item, p in CASES if isinstance(item, Shortcut)])
def test_a_shortcut_adds_in_its_pool_and_to_the_block(place: Place) -> None:
    pool = place.channels * sum(n - 1 for n in windows(place))
    joined = min(place.channels, place.features) * len(windows(place))
    assert Shortcut().adds(place) == pool + joined


@pytest.mark.parametrize("place", KEPT)
def test_batch_norm_scales_and_shifts_each_element_once(place: Place) -> None:
    assert BatchNorm().mults(place) == BatchNorm().adds(place) == place.in_elements
    for free in (Shuffle(2), ReLU()):
        assert free.mults(place) == free.adds(place) == free.traffic(place, 4) == 0


@pytest.mark.parametrize("place", CLASSIFIERS, ids=str)
def test_the_classifier_reads_everything(place: Place, dependency: Any) -> None:
    item = Classifier()
    module = item.module(place)
    shape = (place.channels, place.height, place.width)
    assert dependency(module, shape).all()
    assert item.reads(each_output(place), place).all()
    assert not item.reads(
        np.zeros((1, place.features, place.height, place.width), bool), place
    ).any()
    assert item.params(place) == sum(p.numel() for p in module.parameters())
    pool, linear, bias = item.lines(place, 4)
    with FlopCounterMode(display=False) as counter:
        module.float()(torch.zeros(1, *shape))
    assert linear.mults == counter.get_total_flops() / 2
    assert linear.params + bias.params == item.params(place)
    assert bias.adds == place.features
    assert linear.adds == sum(1 for _ in range(place.features) for _ in range(place.channels - 1))
    assert pool.adds == place.channels * (place.height * place.width - 1)
    assert pool.mults == place.channels
