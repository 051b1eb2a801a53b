"""How briefly candidates are trained. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How long and how to train; `dataclasses.asdict` gives its JSON.

    `learning_rate` is the peak of one cycle: the rate rises from 1/25 of it over the fraction
    `warmup` of all steps and falls to zero, both along a cosine. `momentum` is Nesterov's for "sgd"
    and beta_1 for "adamw". Weight decay spares vectors (biases, batch normalisation). `augment`:
    each training image is shifted by up to so many pixels along each axis, anew in each epoch.
    """

    epochs: int
    batch: int = 64
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.05
    warmup: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: int = 0

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
            "augment": (self.augment >= 0, "a number of pixels, at least 0"),
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


BRIEF = Schedule(epochs=4, batch=32, learning_rate=0.2)
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

LONG = Schedule(epochs=40, learning_rate=0.4, augment=2)
"""The reference that brief training is to predict."""


def _rise(fraction: float) -> float:
    """From 0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * fraction)) / 2
