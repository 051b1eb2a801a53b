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


BRIEF = Schedule(epochs=8, batch=32, learning_rate=0.2)
"""The schedule that ranks candidates, chosen on half A of SparseKernelBench at its first budget.

`python -m benchmarks ranking` prints how far it can be believed, against epochs, rates, batches,
optimisers, seeds, half of the images and half of the resolution. On the 29 designs of the choice,
Kendall's tau with the mean of two trainings by `LONG` is 0.65 for one seed and 0.67 for three,
where one long training agrees with the other at 0.70; 6 epochs have 0.59, 4 epochs 0.45, batches of
16 have 0.63 and take a third longer.
"""

LONG = Schedule(epochs=80, learning_rate=0.4, augment=2)
"""The reference that brief training is to predict: ten times as many epochs.

Rates and shifts were chosen on STD, PW+DW(k=5)+PW@1/2 and GC(4)+PWG(4) at 15,000 parameters on
hard-digits, validation accuracy of one run each:

    without shifts, 30 epochs, peak 0.2 (STD)       0.76
    40 epochs, shifts of 2 pixels, peak 0.4         0.87  0.88  0.79
    60 epochs                                       0.88  0.90  0.83
    120 epochs, peak 0.2, 0.4 and 0.2               0.85  0.89  0.80
    60 epochs, peak 0.2: batch 32, decay 0.001      0.88  0.89  0.80    0.89  0.88  0.82
"""


def _rise(fraction: float) -> float:
    """From 0 to 1 along half a cosine."""
    return (1 - math.cos(math.pi * fraction)) / 2
