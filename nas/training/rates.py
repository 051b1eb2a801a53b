"""How the learning rate changes: a factor of the first rate, as a function of what has happened.

Nothing is remembered between calls, so a training that is resumed has the rates of one that was
not interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Epoch(NamedTuple):
    """One line of the log. `score` is what a training is judged by: accuracy or mean IoU."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    accuracy: float
    mean_iou: float | None
    seconds: float

    @property
    def score(self) -> float:
        return self.accuracy if self.mean_iou is None else self.mean_iou


@dataclass(frozen=True)
class Cosine:
    """Linear rise over the share `warmup` of all steps, then half a cosine to zero.

    Source: Loshchilov and Hutter 2017 (SGDR), equation 5 without restarts; warm-up: Goyal et al.
    2017, section 2.2.
    """

    warmup: float = 0.05

    def factor(self, progress: float, past: Sequence[Epoch]) -> float:
        """`progress`: the share of all steps that is done, 0 <= progress < 1."""
        if progress < self.warmup:
            return max(progress / self.warmup, 0.01)
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


@dataclass(frozen=True)
class Steps:
    """`falls`: (share of all steps from which, factor) in ascending order; before them 1."""

    falls: tuple[tuple[float, float], ...]

    def factor(self, progress: float, past: Sequence[Epoch]) -> float:
        return next((f for start, f in reversed(self.falls) if progress >= start), 1.0)


@dataclass(frozen=True)
class Plateau:
    """Times `fall` each time that more than `patience` epochs bring no better `watched`."""

    patience: int
    watched: Literal["train_loss", "score"]
    fall: float = 0.1

    def factor(self, progress: float, past: Sequence[Epoch]) -> float:
        best, waiting, falls = -math.inf, 0, 0
        for epoch in past:
            value = epoch.score if self.watched == "score" else -epoch.train_loss
            waiting = 0 if value > best else waiting + 1
            best = max(best, value)
            if waiting > self.patience:
                waiting, falls = 0, falls + 1
        return self.fall**falls


Rate = Cosine | Steps | Plateau
