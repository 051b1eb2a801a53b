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

from nas.datasets import DataError, Part, Shape
from nas.datasets.pictures import SUFFIXES, picture_files, pixels, stacked

NAME = "FOLDER"
ABOUT = "a folder of images: FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png"
GENERAL = True

FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def accepts(source: str) -> bool:
    return Path(source).expanduser().is_dir()


def describe(source: str) -> Shape:
    files = _files(source)
    classes = list(files["train"])
    height, width, channels = _opened(files["train"][classes[0]][0])[1].shape
    return Shape(channels, height, width, len(classes))


def read(source: str) -> Mapping[str, Part]:
    files = _files(source)
    classes = {name: label for label, name in enumerate(files["train"])}
    model = _opened(next(iter(files["train"].values()))[0])
    parts = {}
    for part, folders in files.items():
        paths = [path for found in folders.values() for path in found]
        labels = [classes[name] for name, found in folders.items() for _ in found]
        images = stacked(map(_opened, paths), len(paths), model)
        parts[part] = Part(images, np.array(labels))
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
        images = picture_files(folder)
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


def _opened(path: Path) -> tuple[str, NDArray[Any]]:
    return str(path), pixels(path, str(path))
