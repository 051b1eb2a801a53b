"""Any .npz file in the layout of MedMNIST (https://medmnist.com), gray or RGB, one label an image.

    train_images, val_images, test_images    (n, H, W), (n, H, W, 1) or (n, H, W, 3), any real type
    train_labels, val_labels, test_labels    (n,) or (n, 1), whole numbers 0..K-1

The val and test pairs may be missing; they are then cut from train. Other arrays are ignored.
Nothing in the file is ever unpickled: object arrays are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nas.datasets import DataError, Part, Shape, check_images, check_labels

NAME = "FILE.npz"
ABOUT = (
    "a file in the MedMNIST layout: train_images, train_labels and, if there are, val_ and test_"
)

PREFIXES = {"train": "train", "validation": "val", "test": "test"}


def accepts(source: str) -> bool:
    return source.endswith(".npz")


def describe(source: str) -> Shape:
    with _opened(source) as archive:
        keys = _keys(archive)
        shapes = [check_images(*_header(archive, keys[part][0]), part) for part in keys]
        classes = check_labels({part: _array(archive, keys[part][1]) for part in keys})
    return Shape(*shapes[0], classes)


def read(source: str) -> Mapping[str, Part]:
    with _opened(source) as archive:
        return {
            name: Part(_array(archive, images), _array(archive, labels))
            for name, (images, labels) in _keys(archive).items()
        }


@contextmanager
def _opened(source: str) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever is wrong with the file becomes a DataError."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise DataError(
            "there is no such file; valid is the path of a .npz file in the MedMNIST layout"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"not readable as a .npz file ({error}); numpy.savez writes valid ones"
        ) from error


def _keys(archive: zipfile.ZipFile) -> dict[str, tuple[str, str]]:
    """The names of the images and labels of each part that the file holds."""
    there = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
    keys = {}
    for name, prefix in PREFIXES.items():
        pair = f"{prefix}_images", f"{prefix}_labels"
        missing = [key for key in pair if key not in there]
        if missing and (name == "train" or len(missing) == 1):
            raise DataError(
                f"no array {' and no '.join(missing)}; found {', '.join(sorted(there)) or 'none'}; "
                "valid are train_images with train_labels, and the like for val_ and test_"
            )
        if not missing:
            keys[name] = pair
    return keys


def _header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without its content."""
    with archive.open(f"{key}.npy") as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(
                f"{key} is stored in npy version {version}; valid are (1, 0) and (2, 0)"
            )
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.hasobject:
        raise DataError(
            f"{key} is an array of Python objects, which are never unpickled; "
            "valid are arrays of numbers"
        )
    return shape, dtype


def _array(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    _header(archive, key)
    with archive.open(f"{key}.npy") as file:
        return npy.read_array(file, allow_pickle=False)
