"""Recipes against what the papers say; rates, augmentation and losses against their formulas."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nas.datasets.labelled import IGNORED
from nas.training.augment import moved, recoloured
from nas.training.losses import loss
from nas.training.rates import Cosine, Epoch, Plateau
from nas.training.recipes import RECIPES, Augment, Recipe, Task, recipe

torch.set_num_threads(1)


def epochs(*scores: float, iou: bool = False) -> list[Epoch]:
    """A past with these scores, and with training losses of 1 - score."""
    return [
        Epoch(number, 0.1, 1 - score, 1.0, 0.5 if iou else score, score if iou else None, 1.0)
        for number, score in enumerate(scores, start=1)
    ]


def rate(chosen: Recipe, epoch: float) -> float:
    return chosen.learning_rate * chosen.rate.factor(epoch / chosen.epochs, [])


# ---- what the papers say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("fog", {0: 0.1, 29: 0.1, 30: 0.01, 59.9: 0.01, 60: 0.001, 90: 1e-4, 99: 1e-4}),
        ("lean", {0: 0.05, 74: 0.05, 75: 0.01, 150: 0.005, 225: 0.001, 299: 0.001}),
        ("lowcost", {0: 0.01, 60: 0.005, 120: 0.0025, 180: 0.00125, 240: 0.000625, 299: 0.000625}),
        ("factorized", {0: 0.1, 99: 0.1}),
    ],
)
def test_rates_of_the_papers(name: str, rates: dict[float, float]) -> None:
    chosen = recipe(name, "classification")
    for epoch, expected in rates.items():
        assert rate(chosen, epoch) == pytest.approx(expected), epoch


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("fog", "classification", ("sgd", 100, 256, 0.9, True, 1e-4, 0.0)),
        ("lean", "classification", ("sgd", 300, 64, 0.9, False, 1e-4, 0.0)),
        ("lowcost", "classification", ("adam", 300, 100, 0.9, False, 0.0, 0.0)),
        ("lean", "segmentation", ("adam", 300, 8, 0.9, False, 0.01, 2.0)),
    ],
)
def test_numbers_of_the_papers(name: str, task: Task, expected: tuple[object, ...]) -> None:
    r = recipe(name, task)
    found = (r.optimiser, r.epochs, r.batch, r.momentum, r.nesterov, r.weight_decay, r.focal)
    assert found == expected


def test_what_a_paper_leaves_open_is_said() -> None:
    papers = [r for task in RECIPES.values() for r in task.values() if r.name != "leanfield"]
    assert all(r.open for r in papers)
    assert all("section" in r.source for r in papers)


def test_another_number_of_epochs_keeps_the_form() -> None:
    short = recipe("lean", "classification", epochs=30, batch=8, learning_rate=0.5)
    assert (short.epochs, short.batch) == (30, 8)
    assert [rate(short, epoch) for epoch in (0, 7.4, 7.5, 15, 22.5)] == pytest.approx(
        [0.5, 0.5, 0.1, 0.05, 0.01]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("leen", "classification"),
            "no recipe 'leen' for classification; valid are leanfield, fog",
        ),
        (("fog", "segmentation"), "'fog' for segmentation, which is for another task; valid are l"),
    ],
)
def test_unknown_recipes(arguments: tuple[str, Task], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(*arguments)


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="batch is 1; it must be at least 2"):
        recipe("fog", "classification", batch=1)
    with pytest.raises(ValueError, match="learning_rate is nan; it must be positive"):
        recipe("fog", "classification", learning_rate=math.nan)


# ---- rates ---------------------------------------------------------------------------------------


def test_cosine_rises_then_falls_to_zero() -> None:
    rates = [Cosine(0.1).factor(step / 1000, []) for step in range(1000)]
    assert np.argmax(rates) == 100
    assert rates[100] == 1
    assert rates[50] == pytest.approx(0.5)
    assert rates[550] == pytest.approx(0.5)
    assert rates[-1] < 1e-4
    assert all(a > b for a, b in pairwise(rates[100:]))
    assert Cosine(0.0).factor(0, []) == 1


def test_a_plateau_is_more_than_patience_epochs_without_a_better_one() -> None:
    plateau = Plateau(patience=2, watched="score")
    scores = [0.1, 0.5, 0.5, 0.4, 0.3, 0.6, 0.2, 0.2, 0.2]
    factors = [plateau.factor(0, epochs(*scores[:count])) for count in range(len(scores) + 1)]
    assert factors == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])


def test_what_a_plateau_watches() -> None:
    falling, still = epochs(*np.linspace(0, 1, 9)), epochs(*[0.5] * 9)
    assert Plateau(2, "train_loss").factor(0, falling) == 1
    assert Plateau(2, "train_loss").factor(0, still) < 1
    assert Plateau(2, "score").factor(0, epochs(*[0.5] * 9, iou=True)) < 1
    rising = [epoch._replace(accuracy=0.5, mean_iou=epoch.accuracy) for epoch in falling]
    assert Plateau(2, "score").factor(0, rising) == 1


# ---- augmentation --------------------------------------------------------------------------------


def batch(count: int = 64, channels: int = 3, height: int = 12, width: int = 9) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_asked_nothing_done() -> None:
    images, labels = batch(), torch.arange(64)
    same, still = moved(images, labels, Augment(), False, seeded())
    assert torch.equal(same, images)
    assert torch.equal(still, labels)
    assert recoloured(images, 0.0, seeded()) is images


def test_half_of_the_images_are_mirrored() -> None:
    images = batch(400)
    found, _ = moved(images, torch.zeros(400, dtype=torch.long), Augment(), True, seeded())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(found, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 400
    assert 150 < sum(mirrored) < 250


def test_a_crop_after_padding_is_a_window_of_the_padded_image() -> None:
    images = batch(200, 1)
    labels = torch.randint(4, (200, 12, 9), generator=seeded())
    found, masks = moved(images, labels, Augment(pad=1 / 6), False, seeded(1))
    assert found.is_contiguous(memory_format=torch.channels_last)
    padded = np.pad(images.numpy()[:, 0], ((0, 0), (2, 2), (2, 2)))
    truth = np.pad(labels.numpy(), ((0, 0), (2, 2), (2, 2)), constant_values=IGNORED)
    seen = set()
    for row in range(200):
        (at,) = (
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(padded[row, y : y + 12, x : x + 9], found[row, 0])
        )
        window = truth[row, at[0] : at[0] + 12, at[1] : at[1] + 9]
        assert np.array_equal(window, masks[row])
        seen.add(at)
    assert len(seen) == 25


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    images = batch(5)
    labels = torch.randint(4, (5, 12, 9), generator=seeded())
    found, masks = moved(images, labels, Augment(area=(1.0, 1.0)), False, seeded())
    torch.testing.assert_close(found, images)
    assert torch.equal(masks, labels)


def test_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))
    images = batch(3, 2, 8, 8)
    labels = torch.randint(4, (3, 8, 8), generator=seeded())
    found, masks = moved(images, labels, Augment(rotate=90.0), False, seeded())
    torch.testing.assert_close(found, images.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(masks, labels.rot90(1, (1, 2)))


def test_a_resized_crop_has_the_area_asked_for() -> None:
    """On a ramp, the spread of a crop over that of the image is the share of its side."""
    ramp = torch.arange(64.0).expand(300, 1, 64, 64)
    how = Augment(area=(0.25, 0.49))
    found, _ = moved(ramp, torch.zeros(300, dtype=torch.long), how, False, seeded())
    share = (found.amax((1, 2, 3)) - found.amin((1, 2, 3))) / 63
    assert 0.48 < share.min() < 0.52
    assert 0.68 < share.max() < 0.72
    assert found.amin() < 3
    assert found.amax() > 60


def test_labels_turn_with_their_pixels() -> None:
    labels = torch.zeros(50, 40, 30, dtype=torch.long)
    labels[:, 10:30, 5:15] = 3
    images = labels[:, None].float()
    how = Augment(rotate=30.0, area=(0.5, 0.9), aspect=(3 / 4, 4 / 3))
    found, masks = moved(images, labels, how, True, seeded())
    counted = masks != IGNORED
    agree = ((found[:, 0] - masks).abs() < 1.5)[counted].float().mean()
    assert agree > 0.99
    assert ((images[:, 0] - masks).abs() < 1.5)[counted].float().mean() < 0.9
    assert 0 < counted.logical_not().sum() < 0.2 * masks.numel()


def test_colour_changes_each_image_in_its_own_way() -> None:
    images = 255 * batch(200)
    found = recoloured(images, 0.4, seeded())
    change = found.mean((1, 2, 3)) / images.mean((1, 2, 3))
    assert 0.59 < change.min() < 0.7
    assert 1.3 < change.max() < 1.41
    gray = images[:, :1].expand(-1, 3, -1, -1)
    still = recoloured(gray, 0.4, seeded())
    torch.testing.assert_close(still[:, 0], still[:, 1], rtol=1e-4, atol=1e-2)


# ---- losses --------------------------------------------------------------------------------------


def test_losses_are_their_formulas() -> None:
    scores = torch.randn(6, 5, 4, 3, generator=seeded(), dtype=torch.float64).float()
    labels = torch.randint(5, (6, 4, 3), generator=seeded())
    labels[0] = IGNORED
    torch.testing.assert_close(loss(scores, labels), cross_entropy(scores, labels))
    torch.testing.assert_close(
        loss(scores, labels, smoothing=0.1),
        cross_entropy(scores, labels, label_smoothing=0.1),
    )
    p = torch.softmax(scores, 1).gather(1, labels.clamp(min=0)[:, None])[:, 0][labels != IGNORED]
    torch.testing.assert_close(
        loss(scores, labels, gamma=2.0), (-((1 - p) ** 2) * p.log()).mean(), rtol=1e-4, atol=1e-6
    )


def test_a_batch_without_a_label_has_no_gradient() -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = loss(scores, torch.full((2, 4, 4), IGNORED), gamma=2.0)
    found.backward()
    assert float(found.detach()) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_the_focal_loss_has_finite_gradients_where_all_is_right() -> None:
    scores = torch.tensor([[100.0, 0.0]], requires_grad=True)
    loss(scores, torch.tensor([0]), gamma=0.5).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
