"""Encoded images (PNG, JPEG and whatever else Pillow reads) as arrays of one shape and depth."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.datasets.labelled import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
GRAY = {"1", "L", "LA", "La"}
GRAY_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
PALETTE = {"1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"}


def picture_files(folder: Path) -> list[Path]:
    """The images of a folder by their suffix, sorted; hidden files are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def pixels(file: Path | bytes, name: str) -> NDArray[Any]:
    """One image as (height, width, 1 or 3); transparency is dropped. Raises DataError."""
    with _opened(file, name) as image:
        try:
            if image.mode in GRAY_DEEP:
                return np.asarray(image)[..., None]
            return np.atleast_3d(np.asarray(image.convert("L" if image.mode in GRAY else "RGB")))
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(name, error) from error


def numbers(path: Path) -> NDArray[Any]:
    """An image whose pixels are class numbers, gray or palette, as (height, width).

    Raises DataError for one in colour.
    """
    with _opened(path, str(path)) as image:
        if image.mode not in PALETTE:
            raise DataError(
                f"{path} is a mask in mode {image.mode}; valid are gray (L, I;16) and palette (P) "
                "images whose pixels are class numbers"
            )
        try:
            return np.asarray(image).astype(np.int64)
        except (OSError, ValueError, SyntaxError) as error:
            raise _unreadable(str(path), error) from error


def stacked(
    images: Iterable[tuple[str, NDArray[Any]]], count: int, model: tuple[str, NDArray[Any]]
) -> NDArray[Any]:
    """`count` named images (height, width, channels) as one array, filled as they come.

    `model` is the first image of train, and decides: gray images among RGB ones are widened; a
    coloured one among gray ones, another size or another depth raises DataError.
    """
    result = np.empty((count, *model[1].shape), model[1].dtype)
    for row, (name, image) in enumerate(images):
        _check_alike(name, image, *model)
        result[row] = image
    return result


def _opened(file: Path | bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: not readable as an image ({error}); mend or remove it")


def _check_alike(name: str, image: NDArray[Any], first: str, model: NDArray[Any]) -> None:
    """Raises DataError unless `image` fits the array of `model`, which is the image `first`."""
    if image.shape[:2] != model.shape[:2]:
        (h, w), (h1, w1) = image.shape[:2], model.shape[:2]
        raise DataError(
            f"images of two sizes: {first} has {w1}x{h1} pixels and {name} has {w}x{h}; "
            "all images must have one size"
        )
    if image.shape[2] > model.shape[2]:
        raise DataError(
            f"{name} is in colour and {first}, the first image, in gray; "
            "valid are all gray or all RGB"
        )
    if image.dtype != model.dtype:
        raise DataError(
            f"{name} has pixels of type {image.dtype} and {first} of {model.dtype}; "
            "all images must have one depth"
        )
