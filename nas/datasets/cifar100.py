"""CIFAR-100 in its binary version: 60,000 colour images of 32x32 in 100 classes.

    cifar-100-binary/train.bin, test.bin

Each record is a byte of coarse label, 0..19, a byte of fine label, 0..99, which is the class, and
3,072 bytes of pixels as in CIFAR-10. Validation is cut from train.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nas.datasets import Part, Shape
from nas.datasets.records import check_range, home, records

NAME = "cifar100:FOLDER"
ABOUT = "CIFAR-100, binary version: train.bin and test.bin"
CLASSES = 100
MIRRORS = True

COARSE = 20
ARCHIVE = "cifar-100-binary.tar.gz"
FOLDERS = ("cifar-100-binary", "cifar-100-python")
PIXELS = 3 * 32 * 32


def accepts(source: str) -> bool:
    return _home(source) is not None


def describe(source: str) -> Shape:
    records(_home_of(source) / "train.bin", 2 + PIXELS, ARCHIVE)
    return Shape(3, 32, 32, CLASSES)


def read(source: str) -> Mapping[str, Part]:
    folder = _home_of(source)
    parts = {"train": _batch(folder / "train.bin")}
    if (folder / "test.bin").is_file():
        parts["test"] = _batch(folder / "test.bin")
    return parts


def _home(source: str) -> Path | None:
    return home(source, "cifar100", FOLDERS, ["train.bin", "train"])


def _home_of(source: str) -> Path:
    return _home(source) or Path(source)


def _batch(path: Path) -> Part:
    content = records(path, 2 + PIXELS, ARCHIVE)
    check_range(content[:, 0], 0, COARSE - 1, path, "coarse label")
    check_range(content[:, 1], 0, CLASSES - 1, path, "fine label")
    images = content[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Part(np.ascontiguousarray(images), content[:, 1].astype(np.int64))
