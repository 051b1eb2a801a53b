"""How the designs of SparseKernelBench are trained: schedules by name.

`long` is the reference, `brief` what a search does. The others differ from `brief` in one thing or
two, so that the table tells what each buys: epochs, rate, batch, optimiser, shifted images, half
of the images, half of the resolution.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from nas.datasets import Dataset, Shape, Split, load
from nas.schedule import BRIEF, LONG, Schedule

DATA = "hard-digits"
BRIEF_SEEDS = (0, 1, 2)
LONG_SEEDS = (
    100,
    101,
)  # none of the brief ones: initial weights in common would look like agreement


@dataclass(frozen=True)
class Protocol:
    """A schedule on a share of the training images, pooled `pooling` x `pooling`; `seeds` of the
    trainings, judged after every `every`-th epoch and the last."""

    schedule: Schedule
    seeds: tuple[int, ...] = BRIEF_SEEDS
    share: float = 1.0
    pooling: int = 1
    every: int = 1

    @property
    def images(self) -> float:
        """Epochs, counted in whole training sets at full resolution."""
        return self.schedule.epochs * self.share / self.pooling**2

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what the file of the table records."""
        return asdict(self)


def _sgd(epochs: int, batch: int, rate: float, seeds: int, augment: int = 0) -> Protocol:
    schedule = Schedule(epochs, batch, learning_rate=rate, augment=augment)
    return Protocol(schedule, BRIEF_SEEDS[:seeds])


PROTOCOLS: dict[str, Protocol] = {
    "long": Protocol(LONG, LONG_SEEDS, every=5),
    "brief": Protocol(BRIEF),
    "e8-b16-r0.2": _sgd(8, 16, 0.2, 3),
    "e8-b32-r0.4": _sgd(8, 32, 0.4, 1),
    "e8-b64-r0.2": _sgd(8, 64, 0.2, 1),
    "e8-b32-r0.2-a1": _sgd(8, 32, 0.2, 1, augment=1),
    "e16-b32-r0.2-half": replace(_sgd(16, 32, 0.2, 1), share=0.5),
    "e6-b32-r0.2": _sgd(6, 32, 0.2, 3),
    "e4-b32-r0.2": _sgd(4, 32, 0.2, 3),
    "e3-b64-r0.05": _sgd(3, 64, 0.05, 1),
    "e3-b32-r0.2": _sgd(3, 32, 0.2, 3),
    "e2-b32-r0.2": _sgd(2, 32, 0.2, 1),
    "e4-b32-r0.4": _sgd(4, 32, 0.4, 1),
    "e4-b16-r0.2": _sgd(4, 16, 0.2, 1),
    "e4-b8-r0.1": _sgd(4, 8, 0.1, 1),
    "e40-b64-r0.4-a2": Protocol(replace(LONG, epochs=40), LONG_SEEDS, every=4),
    "e8-b32-r0.2-half": replace(_sgd(8, 32, 0.2, 1), share=0.5),
    "e4-b32-r0.2-8x8": replace(_sgd(4, 32, 0.2, 1), pooling=2),
    "e16-b64-r0.4-8x8-a1": replace(_sgd(16, 64, 0.4, 1, augment=1), pooling=2),
    "e4-b32-r0.1": _sgd(4, 32, 0.1, 3),
    "e4-b64-r0.1": _sgd(4, 64, 0.1, 1),
    "e4-b32-r0.2-a1": _sgd(4, 32, 0.2, 1, augment=1),
    "e4-b32-adamw": Protocol(Schedule(4, 32, "adamw", 0.006, weight_decay=0.01), (0,)),
    "e1-b32-r0.2": _sgd(1, 32, 0.2, 1),
}
FIRST = ("long", "brief", "e8-b16-r0.2")
"""Those that are run before the others."""


@cache
def data_for(share: float, pooling: int) -> Dataset:
    """hard-digits with the first share of its training images, each 2 x 2 pixels averaged."""
    whole = load(DATA)
    if share == 1.0 and pooling == 1:
        return whole
    channels, height, width = whole.train.images.shape[1:]
    shape = Shape(channels, height // pooling, width // pooling, whole.shape.classes)
    first = np.random.RandomState(0).permutation(len(whole.train))[
        : round(share * len(whole.train))
    ]
    train = Split(whole.train.images[first], whole.train.labels[first])
    train, validation, test = (
        _pooled(split, pooling) for split in (train, whole.validation, whole.test)
    )
    return Dataset(whole.name, shape, train, validation, test, whole.fingerprint)


def _pooled(split: Split, pooling: int) -> Split:
    count, channels, height, width = split.images.shape
    cells = split.images.reshape(
        count, channels, height // pooling, pooling, width // pooling, pooling
    )
    return Split(cells.mean(axis=(3, 5), dtype=np.float32), split.labels)
