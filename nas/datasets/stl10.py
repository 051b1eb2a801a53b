"""STL-10 in its binary files: 5,000 + 8,000 colour images of 96x96 in 10 classes.

    stl10_binary/train_X.bin, train_y.bin, test_X.bin, test_y.bin

An image is 27,648 bytes: red, then green, then blue, each column by column. Labels are bytes 1..10,
and here 0..9. Validation is cut from train. The 100,000 images of unlabeled_X.bin (2.8 GB) are
left on the disk.

Source: Coates, Ng and Lee 2011, https://cs.stanford.edu/~acoates/stl10/.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nas.datasets import DataError, Part, Shape
from nas.datasets.records import check_range, home, records

NAME = "stl10:FOLDER"
ABOUT = "STL-10, binary files: train_X.bin, train_y.bin, test_X.bin and test_y.bin"
CLASSES = 10
MIRRORS = True

SIDE = 96
ARCHIVE = "stl10_binary.tar.gz"


def accepts(source: str) -> bool:
    return _home(source) is not None


def describe(source: str) -> Shape:
    folder = _home(source) or Path(source)
    for name in ("train_X.bin", "train_y.bin"):
        records(folder / name, 1 if name.endswith("y.bin") else 3 * SIDE * SIDE, ARCHIVE)
    return Shape(3, SIDE, SIDE, CLASSES)


def read(source: str) -> Mapping[str, Part]:
    folder = _home(source) or Path(source)
    parts = {"train": _part(folder, "train")}
    if (folder / "test_X.bin").is_file():
        parts["test"] = _part(folder, "test")
    return parts


def _home(source: str) -> Path | None:
    return home(source, "stl10", ("stl10_binary",), ["train_X.bin", "test_X.bin"])


def _part(folder: Path, name: str) -> Part:
    path = folder / f"{name}_y.bin"
    labels = records(path, 1, ARCHIVE)[:, 0]
    check_range(labels, 1, CLASSES, path)
    content = records(folder / f"{name}_X.bin", 3 * SIDE * SIDE, ARCHIVE)
    if len(content) != len(labels):
        raise DataError(
            f"{folder / f'{name}_X.bin'} has {len(content)} images and {path} {len(labels)} "
            "labels; every image needs one label"
        )
    images = content.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)
    return Part(np.ascontiguousarray(images), labels.astype(np.int64) - 1)
