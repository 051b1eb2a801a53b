"""Brief, deterministic training: the experiment by which candidates are ranked.

    with seeded(0):
        model = build(...)
    outcome = train(model, load("hard-digits"), BRIEF, seed=0)     ->  Outcome(accuracy=0.44, ...)

A run that diverges is a result like any other: an `Outcome` with its reason, not an exception.
On the CPU, with the same number of threads, the same model, data, schedule and seed give the same
bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from nas.datasets import Dataset, Split

EVALUATION_BATCH = 256
SETTLING = 8  # batches that give batch normalisation its statistics before an evaluation
DIVERGED = 100.0  # a training loss beyond this multiple of log(classes), that of guessing, is lost


@dataclass(frozen=True)
class Schedule:
    """How long and how to train; `dataclasses.asdict` gives its JSON.

    `learning_rate` is the peak of one cycle: the rate rises from 1/25 of it over the fraction
    `warmup` of all steps and falls to zero, both along a cosine. `momentum` is Nesterov's for "sgd"
    and beta_1 for "adamw". Weight decay spares vectors (biases, batch normalisation).
    """

    epochs: int
    batch: int = 64
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.05
    warmup: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if self.optimiser not in ("sgd", "adamw"):
            raise ValueError(f"unknown optimiser {self.optimiser!r}; valid are 'sgd' and 'adamw'")
        valid = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 2, "at least 2"),
            "learning_rate": (0 < self.learning_rate < math.inf, "positive and finite"),
            "warmup": (0 <= self.warmup <= 1, "between 0 and 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and less than 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "finite and not negative"),
        }
        for name, (fine, limits) in valid.items():
            if not fine:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {limits}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 <= step < steps."""
        rising = self.warmup * steps
        if step < rising:
            return self.learning_rate * (1 + 24 * _rise(step / rising)) / 25
        return self.learning_rate * (1 - _rise((step - rising) / (steps - rising)))


BRIEF = Schedule(epochs=3)
"""The schedule that ranks candidates; chosen on hard-digits among 16 schedules.

24 three-stage nets of 10,000 to 22,000 parameters (12 blocks, depths 1 and 2). Kendall tau between
the accuracy of one brief run and the mean of four runs of 20 epochs, average of two seeds, +/-0.06;
seconds on one thread:

    SGD    3 epochs, peak 0.025, 0.05, 0.1, 0.2      0.63  0.73  0.59  0.22      0.9 s a run
    AdamW  3 epochs, peak 0.0015, 0.003, 0.006       0.72  0.70  0.61            0.9 s a run
    SGD    2 epochs, peak 0.05, 0.1, 0.2             0.68  0.60  0.15            0.6 s a run
    parameters 0.09, depth 0.36, width -0.23; one run of 20 epochs with another 0.44 to 0.68

Without settling the statistics of batch normalisation, 0.54 in place of 0.60 (SGD, 2 epochs, 0.1).
"""


@dataclass(frozen=True)
class Outcome:
    """What a run showed on the validation split.

    `accuracy` and `loss` are those of the last epoch, and None exactly where `failure` says why.
    `curve` is the accuracy after each epoch. `seconds` is wall time and no part of equality.
    """

    accuracy: float | None
    loss: float | None
    curve: tuple[float, ...]
    seconds: float = field(compare=False)
    failure: str | None = None


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
    device: torch.device | str = "cpu",
) -> Outcome:
    """Train `model` in place and judge it on the validation split after each epoch.

    `seed` settles the order of the images and any dropout; initialisation is left to the caller,
    who has `seeded` for it.
    `progress(epoch, accuracy)` is called after each epoch, counted from 1. What it raises passes
    through, and so does KeyboardInterrupt. The model stays on `device`, in evaluation mode.
    """
    start = time.perf_counter()
    results: list[tuple[float, float]] = []
    failure: str | None = None
    try:
        with seeded(seed, device):
            for result in _epochs(model.to(device), data, schedule, seed, device):
                results.append(result)
                if progress is not None:
                    progress(len(results), result[0])
    except _DivergedError as reason:
        failure = str(reason)
    seconds = time.perf_counter() - start
    model.eval()
    curve = tuple(accuracy for accuracy, _ in results)
    accuracy, loss = results[-1] if failure is None else (None, None)
    return Outcome(accuracy, loss, curve, seconds, failure)


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """(accuracy, mean cross-entropy) in evaluation mode, in which the model stays, on `device`.

    The loss is NaN or infinite where an output is.
    """
    model.to(device).eval()
    right, loss = 0, 0.0
    images, labels = _tensors(split, device)
    for start in range(0, len(split), EVALUATION_BATCH):
        rows = slice(start, start + EVALUATION_BATCH)
        scores = model(images[rows])
        right += int((scores.argmax(1) == labels[rows]).sum())
        loss += float(cross_entropy(scores, labels[rows], reduction="sum"))
    return right / len(split), loss / len(split)


class _DivergedError(Exception):
    """Why a run ended early."""


def _epochs(
    model: nn.Module,
    data: Dataset,
    schedule: Schedule,
    seed: int,
    device: torch.device | str,
) -> Iterator[tuple[float, float]]:
    """Train; after each epoch give accuracy and loss on the validation split."""
    images, labels = _tensors(data.train, device)
    optimiser = _optimiser(model, schedule)
    order = torch.Generator().manual_seed(seed)
    pieces = _pieces(len(labels), schedule.batch)
    limit = DIVERGED * math.log(data.shape.classes)
    step, steps = 0, schedule.epochs * pieces
    for epoch in range(1, schedule.epochs + 1):
        model.train()
        batches = torch.randperm(len(labels), generator=order).to(device).tensor_split(pieces)
        for rows in batches:
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step, steps)
            step += 1
            loss = cross_entropy(model(images[rows]), labels[rows])
            if not loss.item() <= limit:
                raise _DivergedError(f"training loss {loss.item():.3g} at step {step} of {steps}")
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
        _settle(model, [images[rows] for rows in batches[:SETTLING]])
        accuracy, validation_loss = evaluate(model, data.validation, device)
        if not math.isfinite(validation_loss):
            raise _DivergedError(f"validation loss {validation_loss} after epoch {epoch}")
        yield accuracy, validation_loss


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


def _rise(fraction: float) -> float:
    """From 0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * fraction)) / 2


def _pieces(count: int, batch: int) -> int:
    """Into how many even batches `count` images fall; none has one image, which has no variance."""
    return max(1, min(math.ceil(count / batch), count // 2))


def _tensors(split: Split, device: torch.device | str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device)


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
