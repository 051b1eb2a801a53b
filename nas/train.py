"""Brief, deterministic training: the experiment by which candidates are ranked.

    with seeded(0):
        model = build(...)
    outcome = train(model, load("hard-digits"), BRIEF, seed=0)     ->  Outcome(accuracy=0.44, ...)

A run that diverges is a result like any other: an `Outcome` with its reason, not an exception.
The labels may be one an image, (n,) for scores (n, classes), or one a pixel, (n, H, W) for scores
(n, classes, H, W); accuracy and loss are means over all labels.

On the CPU, with the same number of threads, the same model, data, schedule and seed give the same
bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from nas.datasets import Dataset, Split
from nas.schedule import Schedule

EVALUATION_BATCH = 256
SETTLING = 8  # batches that give batch normalisation its statistics before an evaluation
DIVERGED = 100.0  # a training loss beyond this multiple of log(classes), that of guessing, is lost


@dataclass(frozen=True)
class Outcome:
    """What a run showed on the validation split.

    `accuracy` and `loss` are those of the last epoch, and None exactly where `failure` says why.
    `curve` is the accuracy after each epoch that was judged. `stopped` is the epoch after which the
    run lay below its floor, then the last; None where it went on to the end. `seconds` is wall
    time, `busy` the processor time of the calling thread, `judging` as much of it as went into
    judging; they are no part of equality.
    """

    accuracy: float | None
    loss: float | None
    curve: tuple[float, ...]
    seconds: float = field(compare=False)
    failure: str | None = None
    busy: float = field(default=0.0, compare=False)
    judging: float = field(default=0.0, compare=False)
    stopped: int | None = None


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Draw torch's random numbers from `seed`; afterwards its generators are as before."""
    device = torch.device(device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def train(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    seed: int,
    *,
    progress: Callable[[int, float], None] | None = None,
    every: int = 1,
    floors: Mapping[int, float] = MappingProxyType({}),
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.channels_last,
) -> Outcome:
    """Train `model` in place and judge it on the validation split.

    `seed` settles the order of the images and any dropout; initialisation is left to the caller,
    who has `seeded` for it. Maps are kept channels last, about twice as fast on a CPU where
    convolutions are grouped; a module that calls `view` on them needs `torch.contiguous_format`.
    `progress(epoch, accuracy)` is called after each epoch that is a multiple of `every`, counted
    from 1, and after the last; without it only the last epoch is judged, which saves a fifth of a
    brief training. What it raises passes through, and so does KeyboardInterrupt. After each epoch
    of `floors` too the model is judged, and training ends where its accuracy lies below the floor
    (`nas.stopping`). The model stays on `device`, in evaluation mode.
    """
    where = _Where(device, memory_format)
    start, began, judging = time.perf_counter(), time.thread_time(), 0.0
    results: list[tuple[float, float]] = []
    failure: str | None = None
    stopped: int | None = None
    try:
        with seeded(seed, device):
            told = {schedule.epochs, *range(every, schedule.epochs, every)} if progress else ()
            judged = {schedule.epochs}.union(floors, told)
            for epoch, accuracy, loss, spent in _epochs(model, data, schedule, seed, where, judged):
                results.append((accuracy, loss))
                judging += spent
                if progress is not None and epoch in told:
                    progress(epoch, accuracy)
                if epoch < schedule.epochs and accuracy < floors.get(epoch, -math.inf):
                    stopped = epoch
                    break
    except _DivergedError as reason:
        failure = str(reason)
    seconds, busy = time.perf_counter() - start, time.thread_time() - began
    model.eval()
    curve = tuple(accuracy for accuracy, _ in results)
    accuracy_now, loss_now = results[-1] if failure is None else (None, None)
    return Outcome(accuracy_now, loss_now, curve, seconds, failure, busy, judging, stopped)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.channels_last,
) -> tuple[float, float]:
    """(accuracy, mean cross-entropy) in evaluation mode, in which the model stays, on `device`.

    The loss is NaN or infinite where an output is.
    """
    right, loss = 0, 0.0
    for scores, labels in _scored(model, split, _Where(device, memory_format)):
        right += int((scores.argmax(1) == labels).sum())
        loss += float(cross_entropy(scores, labels, reduction="sum"))
    return right / split.labels.size, loss / split.labels.size


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.channels_last,
) -> NDArray[np.int64]:
    """The class of the highest score for each label, in evaluation mode, as `evaluate`."""
    scored = _scored(model, split, _Where(device, memory_format))
    return torch.cat([scores.argmax(1) for scores, _ in scored]).cpu().numpy()


class _Where(NamedTuple):
    """Where and in which memory format maps are kept."""

    device: torch.device | str
    memory_format: torch.memory_format

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(split.images).to(self.device, memory_format=self.memory_format)
        return images, torch.from_numpy(split.labels).to(self.device)

    def model(self, model: nn.Module) -> nn.Module:
        return model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]


def _scored(model: nn.Module, split: Split, where: _Where) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and labels, batch by batch, of the model in evaluation mode."""
    where.model(model).eval()
    images, labels = where.tensors(split)
    for start in range(0, len(split), EVALUATION_BATCH):
        rows = slice(start, start + EVALUATION_BATCH)
        yield model(images[rows]), labels[rows]


class _DivergedError(Exception):
    """Why a run ended early."""


def _epochs(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    seed: int,
    where: _Where,
    judged: Container[int],
) -> Iterator[tuple[int, float, float, float]]:
    """Train; after each judged epoch give its number, accuracy and loss on the validation split,
    and the processor time that judging took."""
    images, labels = where.tensors(data.train)
    optimiser = _optimiser(where.model(model), schedule)
    order = torch.Generator().manual_seed(seed)
    pieces = _pieces(len(labels), schedule.batch)
    limit = DIVERGED * math.log(data.shape.classes)
    step, steps = 0, schedule.epochs * pieces
    for epoch in range(1, schedule.epochs + 1):
        model.train()
        batches = torch.randperm(len(labels), generator=order).to(where.device).tensor_split(pieces)
        for rows in batches:
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step, steps)
            step += 1
            inputs, targets = images[rows], labels[rows]
            if schedule.augment:
                inputs, targets = shifted(inputs, targets, schedule.augment, order)
            loss = cross_entropy(model(inputs), targets)
            if not loss.item() <= limit:
                raise _DivergedError(f"training loss {loss.item():.3g} at step {step} of {steps}")
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
        if epoch not in judged:
            continue
        began = time.thread_time()
        _settle(model, [images[rows] for rows in batches[:SETTLING]])
        accuracy, validation_loss = evaluate(model, data.validation, *where)
        if not math.isfinite(validation_loss):
            raise _DivergedError(f"validation loss {validation_loss} after epoch {epoch}")
        yield epoch, accuracy, validation_loss, time.thread_time() - began


def shifted(
    images: Tensor, labels: Tensor, pixels: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each image (n, C, H, W) moved by up to `pixels` along each axis; the border is mirrored.

    Labels a pixel, (n, H, W), move along; the result is channels last. Raises ValueError where
    the map is too small for its mirror image.
    """
    count, _, height, width = images.shape
    if pixels >= min(height, width):
        raise ValueError(
            f"augment is {pixels}; images of {height} x {width} can be shifted by at most "
            f"{min(height, width) - 1} pixels"
        )
    moves = torch.randint(-pixels, pixels + 1, (2, count, 1), generator=random)
    rows, columns = (
        _mirrored(torch.arange(size) + move, size).to(images.device)
        for size, move in zip((height, width), moves, strict=True)
    )
    at = (
        torch.arange(count, device=images.device)[:, None, None],
        rows[:, :, None],
        columns[:, None],
    )
    moved = images.permute(0, 2, 3, 1)[at].permute(0, 3, 1, 2)
    return moved, labels[at] if labels.ndim == 3 else labels


def _mirrored(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0 .. size - 1 reflected at the border pixel, which is not repeated."""
    last = size - 1
    return last - (last - positions.abs()).abs()


@torch.no_grad()
def _settle(model: nn.Module, batches: list[Tensor]) -> None:
    """Set the statistics of batch normalisation to the average over `batches`.

    The running averages of a short training still remember the untrained network.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.train()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches that follow
        for images in batches if norms else ():
            model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _pieces(count: int, batch: int) -> int:
    """Into how many even batches `count` images fall; none has one image, which has no variance."""
    return max(1, min(math.ceil(count / batch), count // 2))


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if schedule.optimiser == "adamw":
        return torch.optim.AdamW(
            groups, lr=schedule.learning_rate, betas=(schedule.momentum, 0.999)
        )
    nesterov = schedule.momentum > 0
    return torch.optim.SGD(
        groups, lr=schedule.learning_rate, momentum=schedule.momentum, nesterov=nesterov
    )
