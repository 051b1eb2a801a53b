"""Labels for each pixel: the data, the measure, and a training on them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nas import digit_canvas
from nas.datasets import Dataset, Shape, digits
from nas.digit_canvas import CLASSES, draw, paste
from nas.schedule import Schedule
from nas.segmentation import class_iou, confusion, constant_mean_iou, mean_iou
from nas.train import Outcome, evaluate, predict, seeded, train
from spaces.layout import network

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def canvases() -> Dataset:
    return draw(64, 12, 12)


# ---- the data ------------------------------------------------------------------------------------


def test_the_splits_paste_different_digits() -> None:
    labels = digits.read("digits")["train"].labels
    rows = digit_canvas.digit_rows(labels)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(labels)))
    for part in rows.values():
        share = np.bincount(labels[part], minlength=10) / np.bincount(labels)
        assert np.ptp(share) < 0.01


def test_canvases_hold_digits_and_their_labels(canvases: Dataset) -> None:
    assert canvases.shape == Shape(1, 32, 32, 11)
    for split, count in ((canvases.train, 64), (canvases.validation, 12), (canvases.test, 12)):
        assert split.images.shape == (count, 1, 32, 32)
        assert split.labels.shape == (count, 32, 32)
        assert len(split) == count
        assert all(image.any() for image in split.labels)
    assert set(np.unique(canvases.train.labels)) == set(range(len(CLASSES)))
    assert canvases.train.images.mean() == pytest.approx(0, abs=1e-4)
    pixels, inked = canvases.train.images[:, 0], canvases.train.labels > 0
    ink, paper = pixels[inked], pixels[~inked]
    assert ink.mean() > paper.mean() + 5 * paper.std()


def test_a_canvas_is_its_digits_where_they_were_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dark square of class 7 on each canvas, without noise."""
    monkeypatch.setattr(digit_canvas, "NOISE", 0.0)
    monkeypatch.setattr(digit_canvas, "DIGITS", 1)
    image = np.zeros((1, 6, 4))
    image[0, 1:5, 1:3] = 16
    part = paste(image, np.array([7]), 30, np.random.RandomState(0))
    for canvas, label in zip(part.images[..., 0], part.labels, strict=True):
        assert np.array_equal(canvas, np.where(label == 8, 128, 0))
        rows, columns = np.nonzero(label)
        assert len(rows) == 8
        assert [int(np.ptp(rows)), int(np.ptp(columns))] == [3, 1]
    assert len({label.tobytes() for label in part.labels}) > 20


def test_the_same_canvases_each_time(canvases: Dataset) -> None:
    again = draw(64, 12, 12)
    assert again.fingerprint == canvases.fingerprint
    assert np.array_equal(again.test.images, canvases.test.images)
    assert draw(64, 12, 13).fingerprint != canvases.fingerprint


def test_too_few_canvases_are_refused() -> None:
    with pytest.raises(ValueError, match="validation is 1 canvases; it must be at least 2"):
        draw(10, 1, 10)


# ---- the measure ---------------------------------------------------------------------------------


def test_iou_is_that_of_sets_of_pixels() -> None:
    random = np.random.default_rng(0)
    truth, called = random.integers(0, 5, (2, 4, 7, 6))
    called[random.random(called.shape) < 0.5] = 2
    matrix = confusion(truth, called, 6)
    pixels = list(np.ndindex(truth.shape))
    expected = []
    for label in range(5):
        there = {at for at in pixels if truth[at] == label}
        said = {at for at in pixels if called[at] == label}
        expected.append(len(there & said) / len(there | said))
    assert class_iou(matrix)[:5].tolist() == expected
    assert math.isnan(class_iou(matrix)[5])
    assert mean_iou(matrix) == pytest.approx(sum(expected) / 5)
    assert mean_iou(confusion(truth, truth, 6)) == 1


def test_the_constant_predictor_is_the_best_of_all_constants(canvases: Dataset) -> None:
    truth = canvases.test.labels
    each = [mean_iou(confusion(truth, np.full_like(truth, label), 11)) for label in range(11)]
    assert constant_mean_iou(truth) == pytest.approx(max(each))


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="truth has shape"):
        confusion(np.zeros((2, 3), int), np.zeros((3, 2), int), 4)
    with pytest.raises(ValueError, match="called has labels 0 to 4; valid are 0 to 3"):
        confusion(np.zeros(2, int), np.array([0, 4]), 4)


# ---- training ------------------------------------------------------------------------------------


def run(data: Dataset, seed: int, epochs: int = 2) -> tuple[Outcome, list[Tensor], np.ndarray]:
    with seeded(seed):
        module = network("UNet(small, DW+PW)", (1, 32, 32), len(CLASSES)).module()
    outcome = train(module, data, Schedule(epochs, 16, "adamw", 0.01), seed)
    return outcome, list(module.state_dict().values()), predict(module, data.validation)


def test_a_seed_settles_every_bit_of_a_segmentation(canvases: Dataset) -> None:
    outcome, weights, called = run(canvases, 3)
    again, same, recalled = run(canvases, 3)
    other, _, _ = run(canvases, 4)
    assert outcome == again
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert np.array_equal(called, recalled)
    assert other.loss != outcome.loss


def test_a_few_steps_tell_ink_from_paper(canvases: Dataset) -> None:
    """More pixels are right than by calling all background."""
    outcome, _, called = run(canvases, 0, epochs=8)
    truth = canvases.validation.labels
    assert outcome.failure is None
    assert outcome.accuracy == (called == truth).mean() > (truth == 0).mean()
    assert ((called > 0) == (truth > 0)).mean() > 0.9


def test_accuracy_and_loss_are_means_over_pixels(canvases: Dataset) -> None:
    with seeded(0):
        module = network("UNet(small, DW+PW)", (1, 32, 32), len(CLASSES)).module()
    accuracy, loss = evaluate(module, canvases.test)
    scores = module(torch.from_numpy(canvases.test.images))
    labels = torch.from_numpy(canvases.test.labels)
    assert scores.shape == (12, 11, 32, 32)
    assert accuracy == (predict(module, canvases.test) == canvases.test.labels).mean()
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(scores, labels).item(), rel=1e-4)


@pytest.mark.slow
def test_segmentation_benchmark(tmp_path: Path) -> None:
    """A sixth of its schedule: enough for twice the constant, not yet for 0.9 of the dense net."""
    command = [sys.executable, "-m", "benchmarks", "segmentation", "--out", str(tmp_path)]
    options = ["--canvases", "400", "--epochs", "10"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    result = json.loads((tmp_path / "segmentation.json").read_text())
    assert result["ratios"]["params"] <= 0.2
    assert result["ratios"]["constant"] >= 2
    assert done.returncode == (0 if result["ratios"]["mean IoU"] >= 0.9 else 1)
    assert [len(net["iou"]) for net in result["networks"].values()] == [11, 11]
    assert all(f"IoU {name}" in done.stdout for name in CLASSES)
