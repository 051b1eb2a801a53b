"""Handwritten digits that can rank designs: doubled to 16x16, each one warped, with noise.

    rotation within +/-0.8 rad, scale 0.7..1.2, shift within +/-2 pixels along each axis,
    normal noise whose deviation is a quarter of the range of the pixels

Each image is warped once, by a transformation that a fixed seed draws, so all have the same data.
On plain digits all designs are nearly perfect; here they differ by more than the seeds of
one design do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nas.datasets import Part, Shape, digits

NAME = "hard-digits"
ABOUT = "digits at 1x16x16, each rotated, scaled, shifted, with noise: hard enough to rank designs"

SIDE = 16
ANGLE = 0.8
SCALES = (0.7, 1.2)
SHIFT = 2.0
NOISE = 0.25 * 16  # the pixels of the digits are 0..16
SEED = 20
LEVELS = 8  # grey levels per level of the original digits

Floats = NDArray[np.float64]


def accepts(source: str) -> bool:
    return source == NAME


def describe(source: str) -> Shape:
    return Shape(channels=1, height=SIDE, width=SIDE, classes=10)


def read(source: str) -> Mapping[str, Part]:
    """Pixels are whole numbers, lest the last bit of a cosine change the fingerprint."""
    plain = digits.read(digits.NAME)["train"]
    random = np.random.RandomState(SEED)  # its stream is frozen; that of default_rng is not
    warped = warp(double(plain.images.astype(np.float64)), random)
    noisy = warped + NOISE * random.standard_normal(warped.shape)
    return {"train": Part(np.rint(LEVELS * noisy).astype(np.int16), plain.labels)}


def double(images: Floats) -> Floats:
    """(n, H, W) -> (n, 2H, 2W), bilinear; pixels are unit squares and the border repeats."""
    _, height, width = images.shape
    rows = np.clip((np.arange(2 * height) + 0.5) / 2 - 0.5, 0, height - 1)
    columns = np.clip((np.arange(2 * width) + 0.5) / 2 - 0.5, 0, width - 1)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return sample(
        images,
        np.broadcast_to(y, (len(images), *y.shape)),
        np.broadcast_to(x, (len(images), *x.shape)),
    )


def warp(images: Floats, random: np.random.RandomState) -> Floats:
    """(n, H, W) -> (n, H, W): each image turned about the centre, scaled and shifted."""
    count, height, width = images.shape
    angle = random.uniform(-ANGLE, ANGLE, (count, 1, 1))
    scale = random.uniform(*SCALES, (count, 1, 1))
    shift = random.uniform(-SHIFT, SHIFT, (2, count, 1, 1))
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y, x = np.meshgrid(np.arange(height) - centre_y, np.arange(width) - centre_x, indexing="ij")
    y, x = (y - shift[0]) / scale, (x - shift[1]) / scale
    cosine, sine = np.cos(angle), np.sin(angle)
    return sample(images, cosine * y - sine * x + centre_y, sine * y + cosine * x + centre_x)


def sample(images: Floats, y: Floats, x: Floats) -> Floats:
    """Bilinear values (n, h, w) of images (n, H, W) at positions y, x (n, h, w); zero outside."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    y, x = np.clip(y + 1, 0, padded.shape[1] - 1), np.clip(x + 1, 0, padded.shape[2] - 1)
    top = np.minimum(y.astype(int), padded.shape[1] - 2)
    left = np.minimum(x.astype(int), padded.shape[2] - 2)
    down, right = y - top, x - left
    image = np.arange(len(images))[:, None, None]
    upper = padded[image, top, left] * (1 - right) + padded[image, top, left + 1] * right
    lower = padded[image, top + 1, left] * (1 - right) + padded[image, top + 1, left + 1] * right
    result: Floats = upper * (1 - down) + lower * down
    return result
