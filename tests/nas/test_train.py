"""Training is deterministic, ends a lost run with its reason, and learns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.datasets import Dataset, Shape, Split, load
from nas.schedule import BRIEF, Schedule
from nas.train import Outcome, _optimiser, _pieces, evaluate, seeded, shifted, train


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such small nets are slower on several threads, and much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(train: int = 40, validation: int = 20) -> Dataset:
    """Two classes told apart by brightness, 1x4x4."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 2
        images = random.standard_normal((count, 1, 4, 4)) + 2 * labels[:, None, None, None]
        return Split(images.astype(np.float32), labels.astype(np.int64))

    return Dataset("blobs", Shape(1, 4, 4, 2), split(train), split(validation), split(10), "")


def small(classes: int = 2, width: int = 8, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class Residual(nn.Module):
    """A three-stage net of dense 3x3 convolutions, about 20,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in (12, 24, 48):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def run(seed: int, schedule: Schedule, dropout: float = 0.3) -> tuple[Outcome, list[Tensor]]:
    with seeded(seed):
        model = small(dropout=dropout)
    outcome = train(model, blobs(), schedule, seed)
    return outcome, list(model.state_dict().values())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_seed_settles_every_bit(optimiser: str) -> None:
    rate = 0.1 if optimiser == "sgd" else 0.01
    schedule = Schedule(3, 16, optimiser, rate)  # type: ignore[arg-type]
    first, weights = run(3, schedule)
    torch.rand(7)
    again, same = run(3, schedule)
    other, _ = run(4, schedule)
    assert first == again
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert first.loss != other.loss
    assert first.failure is None
    assert first.accuracy == first.curve[-1]
    assert len(first.curve) == 1


def test_listening_gives_the_curve_and_changes_nothing() -> None:
    heard: list[float] = []
    models = [small(), small()]
    models[1].load_state_dict(models[0].state_dict())
    deaf = train(models[0], blobs(), Schedule(3, 16), 0)
    listened = train(
        models[1], blobs(), Schedule(3, 16), 0, progress=lambda _, accuracy: heard.append(accuracy)
    )
    assert (listened.accuracy, listened.loss) == (deaf.accuracy, deaf.loss)
    assert listened.curve == tuple(heard) and len(heard) == 3


def test_the_order_depends_on_the_seed_of_training_alone() -> None:
    losses = set()
    for seed in (1, 1, 2):
        with seeded(0):
            model = small()
        losses.add(train(model, blobs(), Schedule(1, 8), seed).loss)
    assert len(losses) == 2


def test_seeded_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        inside = torch.rand(3)
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    train(small(dropout=0.5), blobs(), Schedule(1), 0)
    # the initialisation of `small` above is the only draw outside
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(3), inside)


def test_training_leaves_the_generator_alone() -> None:
    model = small(dropout=0.5)
    before = torch.random.get_rng_state()
    train(model, blobs(), Schedule(1), 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_rate_that_is_too_high_is_an_outcome() -> None:
    with seeded(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
    outcome = train(model, blobs(), Schedule(50, 8, learning_rate=1e4), 0)
    assert outcome.accuracy is None
    assert outcome.loss is None
    assert outcome.failure is not None
    assert "loss" in outcome.failure
    assert len(outcome.curve) < 50


class Broken(nn.Module):
    """Gives `value` in place of its scores, in training, in evaluation or in both."""

    def __init__(self, value: float, training: bool = True, evaluation: bool = True) -> None:
        super().__init__()
        self.body = small()
        self.value, self.when = value, {True: training, False: evaluation}

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        return scores * self.value if self.when[self.training] else scores


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_a_broken_loss_ends_the_run_at_once(value: float) -> None:
    outcome = train(Broken(value), blobs(), Schedule(2, 8), 0)
    assert (outcome.accuracy, outcome.loss, outcome.curve) == (None, None, ())
    assert str(outcome.failure).startswith("training loss")
    assert str(outcome.failure).endswith("at step 1 of 10")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_net_that_is_broken_in_evaluation_fails(value: float) -> None:
    outcome = train(Broken(value, training=False), blobs(), Schedule(2, 8), 0)
    assert outcome.accuracy is None
    assert outcome.failure == "validation loss nan after epoch 2"


def test_nan_in_the_data_is_an_outcome() -> None:
    data = blobs()
    data.train.images[3, 0, 1, 1] = np.nan
    outcome = train(small(), data, Schedule(1, 8), 0)
    assert "training loss nan" in str(outcome.failure)


def test_progress_hears_of_each_epoch_and_can_stop_the_run() -> None:
    heard: list[tuple[int, float]] = []
    outcome = train(small(), blobs(), Schedule(3), 0, progress=lambda *epoch: heard.append(epoch))
    assert heard == list(enumerate(outcome.curve, 1))

    def stop(epoch: int, accuracy: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), blobs(), Schedule(3), 0, progress=stop)


@pytest.mark.parametrize("batch", [2, 3, 8, 64])
def test_no_batch_has_one_image(batch: int) -> None:
    for count in range(2, 200):
        sizes = [len(piece) for piece in torch.arange(count).tensor_split(_pieces(count, batch))]
        assert min(sizes) >= 2
        assert max(sizes) <= max(batch, 3)
    data = blobs(train=2 * batch + 1)
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2))
    assert train(flat, data, Schedule(1, batch), 0).failure is None


def test_evaluate_counts_over_batches() -> None:
    data = blobs(validation=601)
    with seeded(0):
        model = small()
    accuracy, loss = evaluate(model, data.validation)
    scores = model(torch.from_numpy(data.validation.images))
    labels = torch.from_numpy(data.validation.labels)
    assert not model.training
    assert accuracy == (scores.argmax(1) == labels).double().mean().item()
    assert loss == pytest.approx(nn.functional.cross_entropy(scores, labels).item(), rel=1e-5)


def test_statistics_of_normalisation_are_those_of_the_trained_net() -> None:
    data = blobs(train=16)
    with seeded(0):
        model = small()
    train(model, data, Schedule(1, 16), 0)
    convolution, norm = model[0], model[1]  # type: ignore[index]
    features = convolution(torch.from_numpy(data.train.images))
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)))


def test_weight_decay_spares_vectors() -> None:
    model = small()
    decay = {
        id(p): group["weight_decay"]
        for group in _optimiser(model, Schedule(1, weight_decay=0.1)).param_groups
        for p in group["params"]
    }
    assert [decay[id(p)] for p in model.parameters()] == [0.1, 0, 0, 0.1, 0]


def test_the_rate_is_one_cycle() -> None:
    schedule = Schedule(1, learning_rate=0.5, warmup=0.3)
    rates = [schedule.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 / 25)
    assert int(np.argmax(rates)) == 30
    assert max(rates) == 0.5
    assert np.all(np.diff(rates[:31]) > 0)
    assert np.all(np.diff(rates[30:]) < 0)
    assert 0 < rates[-1] < 0.001
    assert replace(schedule, warmup=0).rate(0, 10) == 0.5
    assert replace(schedule, warmup=1).rate(9, 10) > 0.4


def test_schedule_is_json_and_refuses_nonsense() -> None:
    assert Schedule(**json.loads(json.dumps(asdict(BRIEF)))) == BRIEF
    with pytest.raises(ValueError, match="epochs is 0; it must be at least 1"):
        Schedule(0)
    with pytest.raises(ValueError, match="batch is 1; it must be at least 2"):
        Schedule(1, batch=1)
    with pytest.raises(ValueError, match="unknown optimiser 'lion'; valid are"):
        Schedule(1, optimiser="lion")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learning_rate is nan"):
        Schedule(1, learning_rate=math.nan)


def test_hard_digits_are_learnable_and_harder_than_digits() -> None:
    accuracy = {}
    for name in ("digits", "hard-digits"):
        with seeded(0):
            model = Residual()
        accuracy[name] = train(model, load(name), replace(BRIEF, epochs=5), 0).accuracy or 0
    assert accuracy["hard-digits"] > 0.3  # chance is 0.1
    assert accuracy["digits"] > accuracy["hard-digits"] + 0.2


def dense_blobs() -> Dataset:
    """One label a pixel: whether it is bright, 1x4x4."""
    plain = blobs()

    def split(whole: Split) -> Split:
        return Split(whole.images, (whole.images[:, 0] > 1).astype(np.int64))

    parts = map(split, (plain.train, plain.validation, plain.test))
    return Dataset("dense blobs", plain.shape, *parts, "")


def test_each_image_is_shifted_by_itself_and_mirrored_at_its_border() -> None:
    side, pixels, count = 6, 2, 200
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count)
    found, same = shifted(images, labels, pixels, torch.Generator().manual_seed(1))
    assert torch.equal(same, labels)
    assert found.is_contiguous(memory_format=torch.channels_last)
    padded = nn.functional.pad(images, (pixels,) * 4, mode="reflect")
    moves = set()
    for image, shift in zip(found, padded, strict=True):
        (at,) = (
            (row, column)
            for row in range(2 * pixels + 1)
            for column in range(2 * pixels + 1)
            if torch.equal(image, shift[:, row : row + side, column : column + side])
        )
        moves.add(at)
    assert len(moves) == (2 * pixels + 1) ** 2


def test_labels_a_pixel_move_with_their_image() -> None:
    data = dense_blobs()
    images, labels = torch.from_numpy(data.train.images), torch.from_numpy(data.train.labels)
    moved, moved_labels = shifted(images, labels, 2, torch.Generator().manual_seed(0))
    assert torch.equal(moved_labels, (moved[:, 0] > 1).long())
    assert not torch.equal(moved_labels, labels)


def test_shifts_are_settled_by_the_seed_and_change_the_training() -> None:
    still, moving = (Schedule(2, 16, augment=pixels) for pixels in (0, 2))
    assert run(3, moving)[0] == run(3, moving)[0]
    assert run(3, moving)[0].loss != run(3, still)[0].loss
    assert run(3, moving)[0].loss != run(4, moving)[0].loss


def test_a_shift_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="augment is 4; images of 4 x 4 can be shifted by at most"):
        run(0, Schedule(1, augment=4))
    with pytest.raises(ValueError, match="augment is -1; it must be a number of pixels"):
        Schedule(1, augment=-1)


def test_every_other_epoch_is_judged_and_the_last() -> None:
    heard: list[int] = []
    outcome = train(
        small(), blobs(), Schedule(5, 16), 0, progress=lambda epoch, _: heard.append(epoch), every=2
    )
    assert heard == [2, 4, 5]
    assert len(outcome.curve) == 3
    assert 0 < outcome.judging < outcome.busy
