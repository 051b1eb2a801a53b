"""Handwritten digits: 1,797 gray images of 8x8 in 10 classes, as scikit-learn ships them.

A quick check that training works, not a ground for ranking designs, because it saturates: two
epochs reach an accuracy of 0.97, twenty 0.998, so designs differ by one or two test images. Over
16 designs, two epochs agreed with twenty at Kendall tau 0.59; counting parameters did too (0.62).
`hard-digits` is the same handwriting, made hard enough to tell designs apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nas.datasets import Part, Shape

NAME = "digits"
ABOUT = "handwritten digits of scikit-learn, 1x8x8, 10 classes (too easy to rank designs)"


def accepts(source: str) -> bool:
    return source == NAME


def describe(source: str) -> Shape:
    return Shape(channels=1, height=8, width=8, classes=10)


def read(source: str) -> Mapping[str, Part]:
    """Pixels are whole numbers 0..16."""
    from sklearn.datasets import (
        load_digits,
    )  # here, because `describe` must not pay its second of import

    images, labels = load_digits(return_X_y=True)
    return {"train": Part(images.reshape(-1, 8, 8).astype(np.uint8), labels)}
