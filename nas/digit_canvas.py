"""Digits pasted on a canvas, a label for each pixel: the smallest honest segmentation task.

Each canvas is 1 x 32 x 32 and holds up to `DIGITS` handwritten digits, doubled to 16 x 16, each at
a random place; where two meet, the later one covers the earlier. A pixel is 1 + the digit where
there is ink, 0 on the background; normal noise lies over all. The digits of train, validation and
test are different ones, so a net has to know the shapes and not the images.

    draw(1000, 200, 200)  ->  Dataset: images (n, 1, 32, 32), labels (n, 32, 32) in 0..10
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.datasets import SHARE, Dataset, Part, assembled, digits, stratified
from nas.datasets.hard_digits import double

SIDE = 32
DIGITS = 3
CLASSES = ("background", *"0123456789")
INK = 4.0  # of the pixels 0..16 of a digit: what is darker belongs to it
NOISE = 1.0
SEED = 21
LEVELS = 8  # grey levels per level of the original digits


def draw(train: int, validation: int, test: int) -> Dataset:
    """So many canvases for each split, the same ones each time.

    Raises ValueError where a split would have fewer than two.
    """
    counts = {"train": train, "validation": validation, "test": test}
    for name, count in counts.items():
        if count < 2:
            raise ValueError(f"{name} is {count} canvases; it must be at least 2")
    plain = digits.read(digits.NAME)["train"]
    parts = {}
    for seed, (name, rows) in enumerate(digit_rows(plain.labels).items(), start=SEED):
        random = np.random.RandomState(seed)  # its stream is frozen; that of default_rng is not
        images = double(plain.images[rows].astype(np.float64))
        parts[name] = paste(images, plain.labels[rows], counts[name], random)
    return assembled("digit-canvas", len(CLASSES), parts)


def digit_rows(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Which digits each split pastes: disjoint, the same share of each class."""
    validation, test, train = stratified(labels, [SHARE["validation"], SHARE["test"]])
    return {"train": train, "validation": validation, "test": test}


def paste(
    images: NDArray[np.float64],
    labels: NDArray[np.int64],
    count: int,
    random: np.random.RandomState,
) -> Part:
    """Canvases (count, SIDE, SIDE, 1) and their labels (count, SIDE, SIDE), from digits (n, h, w).

    Pixels are whole numbers, lest the last bit of an interpolation change the fingerprint.
    """
    _, height, width = images.shape
    canvases = np.zeros((count, SIDE, SIDE))
    truth = np.zeros((count, SIDE, SIDE), np.int64)
    for canvas, label in zip(canvases, truth, strict=True):
        for row in random.randint(len(images), size=random.randint(1, DIGITS + 1)):
            y, x = random.randint(SIDE - height + 1), random.randint(SIDE - width + 1)
            window = slice(y, y + height), slice(x, x + width)
            ink = images[row] > INK
            canvas[window][ink] = images[row][ink]
            label[window][ink] = 1 + labels[row]
    noisy = canvases + NOISE * random.standard_normal(canvases.shape)
    return Part(np.rint(LEVELS * noisy).astype(np.int16)[..., None], truth)
