"""Real training: as many epochs as a recipe asks, resumed bit for bit after any interruption.

    data = store("cifar10:data")
    train_long(model, data, recipe("lean", "classification"), Path("out"))  ->  [Epoch(...), ...]

Each step draws its random numbers (order, augmentation, dropout) from a seed of its own, made of
the seed, the epoch and the step; nothing is carried over but weights and optimiser. On the CPU,
with the same number of threads, a training that was killed and resumed ends with the bits of one
that was not; on a GPU up to the order in which its kernels add.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from nas.datasets.labelled import IGNORED, Stored
from nas.segmentation import confusion, mean_iou
from nas.train import seeded
from nas.training import checkpoint
from nas.training.augment import moved, recoloured
from nas.training.feed import Feed
from nas.training.losses import loss
from nas.training.rates import Epoch
from nas.training.recipes import Recipe

Precision = Literal["float32", "bf16"]
LAST, BEST = "last.safetensors", "best.safetensors"
EVALUATION_BATCH = 256
EVALUATION_PIXELS = 2**22
"""Images are judged 256 at a time, fewer where they are large."""


class TrainingError(ValueError):
    """A training that cannot go on; the message says where it stood."""


class Measured(NamedTuple):
    """What a part shows: loss, share of labels that are right, mean IoU for labels of pixels."""

    loss: float
    accuracy: float
    mean_iou: float | None


@dataclass(frozen=True)
class Conditions:
    """Where and how the arithmetic is done, and whether images may be mirrored."""

    seed: int = 0
    device: str = "cpu"
    precision: Precision = "float32"
    flip: bool = False
    memory_format: torch.memory_format = torch.channels_last

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in bfloat16; its exponent is that of float32, so nothing is scaled.

        Source: Micikevicius et al. 2018, "Mixed precision training", section 3.
        """
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)


def train_long(
    model: nn.Module,
    data: Stored,
    recipe: Recipe,
    folder: Path,
    conditions: Conditions | None = None,
    *,
    watch: Callable[[Epoch], None] | None = None,
    check: Callable[[], None] | None = None,
) -> list[Epoch]:
    """Train `model` in place, from the checkpoint in `folder` where there is one.

    After each epoch `folder` holds last.safetensors (the checkpoint) and best.safetensors (the
    weights of the best epoch on the validation split); then `watch` is called. `check` is called
    before each step and may raise to stop. At the end the model has the weights of the best epoch.

    Raises TrainingError where the loss is no longer finite, RunError for a damaged checkpoint.
    """
    conditions = conditions or Conditions()
    device = torch.device(conditions.device)
    model.to(device, memory_format=conditions.memory_format)  # type: ignore[call-overload]
    optimiser = _optimiser(model, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    past: list[Epoch] = []
    if (folder / LAST).is_file():
        state = checkpoint.read(folder / LAST, model, optimiser)
        past = [Epoch(*line) for line in state["past"]]
    train, validation = (Feed(data, name, device) for name in ("train", "validation"))
    for number in range(len(past) + 1, recipe.epochs + 1):
        start = time.perf_counter()
        rate, train_loss = _epoch(
            model, train, recipe, conditions, optimiser, past, check or (lambda: None)
        )
        found = measure(model, validation, data.shape.classes, conditions)
        if not (math.isfinite(train_loss) and math.isfinite(found.loss)):
            raise TrainingError(
                f"epoch {number} of {recipe.epochs} ended with a training loss of {train_loss} and "
                f"a validation loss of {found.loss}; try a lower learning rate than "
                f"{recipe.learning_rate:g}"
            )
        seconds = time.perf_counter() - start
        epoch = Epoch(number, rate, train_loss, *found, seconds)
        if all(epoch.score > before.score for before in past):
            checkpoint.write_weights(folder / BEST, model)
        past.append(epoch)
        checkpoint.write(folder / LAST, model, optimiser, {"past": past})
        if watch is not None:
            watch(epoch)
    checkpoint.read_weights(folder / BEST, model)
    return past


@torch.no_grad()
def measure(model: nn.Module, feed: Feed, classes: int, conditions: Conditions) -> Measured:
    """Cross-entropy, accuracy and mean IoU in evaluation mode, without augmentation."""
    model.eval()
    total, right, counted = 0.0, 0, 0
    matrix = np.zeros((classes, classes), np.int64)
    pixelwise = False
    size = max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // feed.pixels))
    for start in range(0, len(feed), size):
        images, labels = feed.raw(torch.arange(start, min(start + size, len(feed))))
        with conditions.autocast():
            scores = model(feed.normalised(images)).float()
        there = labels != IGNORED
        called = scores.argmax(1)
        right += int((called == labels)[there].sum())
        number = int(there.sum())
        counted += number
        total += float(loss(scores, labels)) * number
        pixelwise = labels.ndim == 3
        if pixelwise:
            truth, found = labels[there].cpu().numpy(), called[there].cpu().numpy()
            matrix += confusion(truth, found, classes)
    return Measured(total / counted, right / counted, mean_iou(matrix) if pixelwise else None)


def _epoch(
    model: nn.Module,
    feed: Feed,
    recipe: Recipe,
    conditions: Conditions,
    optimiser: torch.optim.Optimizer,
    past: list[Epoch],
    check: Callable[[], None],
) -> tuple[float, float]:
    """(last learning rate, mean training loss)."""
    model.train()
    total = torch.zeros((), device=feed.device)
    rate = 0.0
    batches = list(_batches(len(feed), recipe.batch, _seed(conditions.seed, len(past))))
    for step, rows in enumerate(batches):
        check()
        progress = (len(past) + step / len(batches)) / recipe.epochs
        rate = recipe.learning_rate * recipe.rate.factor(progress, past)
        for group in optimiser.param_groups:
            group["lr"] = rate
        seed = _seed(conditions.seed, len(past), step)
        random = torch.Generator().manual_seed(seed)
        images, labels = feed.raw(rows)
        images = feed.normalised(recoloured(images, recipe.augment.colour, random))
        flip = recipe.augment.flip and conditions.flip
        images, labels = moved(images, labels, recipe.augment, flip, random)
        with seeded(seed, feed.device), conditions.autocast():
            scores = model(images.contiguous(memory_format=conditions.memory_format))
        found = loss(scores, labels, recipe.label_smoothing, recipe.focal)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found)
        optimiser.step()
        total += found.detach() * len(rows)
    return rate, float(total) / len(feed)


def _batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Rows in random order, in even batches; none has one image, which has no variance."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    yield from order.tensor_split(max(1, min(math.ceil(count / size), count // 2)))


def _seed(*numbers: int) -> int:
    """One seed for a tuple of numbers, so that no two steps share theirs."""
    digest = hashlib.sha256(json.dumps(numbers).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    spared = [] if recipe.decay_vectors else [p for p in trained if p.ndim <= 1]
    decayed = trained if recipe.decay_vectors else [p for p in trained if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            groups,
            lr=rate,
            momentum=recipe.momentum,
            weight_decay=decay,
            nesterov=recipe.nesterov,
        )
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(recipe.momentum, 0.999), weight_decay=decay)
