"""CIFAR-10 in its binary version: 60,000 colour images of 32x32 in 10 classes.

    cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin

Each record is one byte of label, 0..9, and 3,072 bytes of pixels: red, then green, then blue, each
row by row. Validation is cut from train. The version for Python is a pickle, and refused.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nas.datasets import Part, Shape
from nas.datasets.records import check_range, home, records

NAME = "cifar10:FOLDER"
ABOUT = "CIFAR-10, binary version: data_batch_1.bin ... data_batch_5.bin and test_batch.bin"
CLASSES = 10
MIRRORS = True

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]
TEST = "test_batch.bin"
PIXELS = 3 * 32 * 32


def accepts(source: str) -> bool:
    return _home(source) is not None


def describe(source: str) -> Shape:
    _files(source)
    return Shape(3, 32, 32, CLASSES)


def read(source: str) -> Mapping[str, Part]:
    files = _files(source)
    train = [_batch(path) for path in files if path.name != TEST]
    images = np.concatenate([part.images for part in train])
    parts = {"train": Part(images, np.concatenate([part.labels for part in train]))}
    if files[-1].name == TEST:
        parts["test"] = _batch(files[-1])
    return parts


def _home(source: str) -> Path | None:
    names = [*BATCHES, TEST]
    pickles = [name.removesuffix(".bin") for name in names]
    return home(source, "cifar10", FOLDERS, [*names, *pickles])


def _files(source: str) -> list[Path]:
    """The batches that there are; raises DataError where one is torn or missing between others."""
    folder = _home(source) or Path(source)
    there = [name for name in BATCHES if (folder / name).is_file()]
    names = BATCHES[: max(1, len(there))]
    if (folder / TEST).is_file():
        names = [*names, TEST]
    for name in names:
        records(folder / name, 1 + PIXELS, ARCHIVE)
    return [folder / name for name in names]


def _batch(path: Path) -> Part:
    content = records(path, 1 + PIXELS, ARCHIVE)
    labels = content[:, 0]
    check_range(labels, 0, CLASSES - 1, path)
    images = content[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Part(np.ascontiguousarray(images), labels.astype(np.int64))
