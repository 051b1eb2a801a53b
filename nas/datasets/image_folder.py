"""A folder of images, one sub-folder a class, in alphabetical order; with or without given parts.

    FOLDER/CLASS/*.png          split 60 : 20 : 20 within each class
    FOLDER/train/CLASS/*.png    and, if there are, FOLDER/val (or validation) and FOLDER/test

All images have one size. The first one decides between gray and RGB: gray images among RGB ones are
widened, a coloured one among gray ones is refused. Transparency is dropped. Hidden files, and files
that by their suffix are no images, are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.datasets import DataError, Part, Shape

NAME = "FOLDER"
ABOUT = "a folder of images: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png"

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
GRAY = {"1", "L", "LA", "La"}
GRAY_DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def accepts(source: str) -> bool:
    return Path(source).expanduser().is_dir()


def describe(source: str) -> Shape:
    files = _files(source)
    classes = list(files["train"])
    height, width, channels = _pixels(files["train"][classes[0]][0]).shape
    return Shape(channels, height, width, len(classes))


def read(source: str) -> Mapping[str, Part]:
    files = _files(source)
    classes = {name: label for label, name in enumerate(files["train"])}
    first = next(iter(files["train"].values()))[0]
    model = _pixels(first)
    parts = {}
    for part, folders in files.items():
        images = [_alike(path, first, model) for paths in folders.values() for path in paths]
        labels = [classes[name] for name, paths in folders.items() for _ in paths]
        parts[part] = Part(np.stack(images), np.array(labels))
    return parts


def _files(source: str) -> dict[str, dict[str, list[Path]]]:
    """The images of each class of each part."""
    root = Path(source).expanduser()
    inside = {folder.name: folder for folder in _folders(root)}
    if "train" not in inside:
        return {"train": _classes(root)}
    other = [name for name in inside if name not in FOLDERS]
    if other or {"val", "validation"} <= set(inside):
        found = ", ".join(inside)
        raise DataError(
            f"beside train, valid are test and one of val and validation; found {found}"
        )
    files = {FOLDERS[name]: _classes(folder) for name, folder in inside.items()}
    for part, classes in files.items():
        unknown = [name for name in classes if name not in files["train"]]
        if unknown:
            raise DataError(
                f"the {part} part has a class {unknown[0]!r}; train has {', '.join(files['train'])}"
            )
    return files


def _classes(root: Path) -> dict[str, list[Path]]:
    folders = _folders(root)
    if len(folders) < 2:
        found = f"one ({folders[0].name})" if folders else "none"
        raise DataError(f"{root}: at least two sub-folders, one a class, are needed; found {found}")
    classes = {}
    for folder in folders:
        images = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        )
        if not images:
            raise DataError(
                f"{folder}: no image in this class folder; "
                f"valid suffixes are {', '.join(sorted(SUFFIXES))}"
            )
        classes[folder.name] = images
    return classes


def _folders(root: Path) -> list[Path]:
    return sorted(
        path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _pixels(path: Path) -> NDArray[Any]:
    """One image as (height, width, 1 or 3)."""
    try:
        with Image.open(path) as image:
            if image.mode in GRAY_DEEP:
                return np.asarray(image)[..., None]
            return np.atleast_3d(np.asarray(image.convert("L" if image.mode in GRAY else "RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not readable as an image ({error}); mend or remove it") from error


def _alike(path: Path, first: Path, model: NDArray[Any]) -> NDArray[Any]:
    """The pixels of `path` in the size and channels of `first`, whose pixels are `model`."""
    pixels = _pixels(path)
    if pixels.shape[:2] != model.shape[:2]:
        (h, w), (h1, w1) = pixels.shape[:2], model.shape[:2]
        raise DataError(
            f"images of two sizes: {first} has {w1}x{h1} pixels and {path} has {w}x{h}; "
            "all images must have one size"
        )
    if pixels.shape[2] > model.shape[2]:
        raise DataError(
            f"{path} is in colour and {first}, the first image, in gray; "
            "valid are all gray or all RGB"
        )
    if pixels.dtype != model.dtype:
        raise DataError(
            f"{path} has pixels of type {pixels.dtype} and {first} of {model.dtype}; "
            "all images must have one depth"
        )
    return np.broadcast_to(pixels, model.shape)
