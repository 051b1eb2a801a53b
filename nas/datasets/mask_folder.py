"""Images with a mask each, for segmentation: not a source of `search`, which ranks classifiers.

    FOLDER/images/a.jpg, FOLDER/masks/a.png                split 60 : 20 : 20
    FOLDER/train/images, FOLDER/train/masks                and, if there are, val and test

A mask has its image's stem and size; its pixels, gray or of a palette, are class numbers 0..K-1,
and 255 where a pixel is not to count, as in PASCAL VOC. All images have one size.

    store("segmentation:FOLDER")  ->  Stored with labels (n, H, W), IGNORED where a pixel is void
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.datasets.labelled import (
    IGNORED,
    PARTS,
    SHARE,
    SPLIT_SEED,
    DataError,
    Part,
    Stored,
    check_labels,
    stored,
)
from nas.datasets.pictures import SUFFIXES, numbers, picture_files, pixels, stacked

PREFIX = "segmentation:"
VOID = 255
MOST = 32767
FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}

Pair = tuple[Path, Path]


def store(source: str) -> Stored:
    """The images and masks of `segmentation:FOLDER`. Raises DataError."""
    root = Path(source.removeprefix(PREFIX)).expanduser()
    pairs = _pairs(root)
    first = pairs["train"][0][0]
    model = str(first), pixels(first, str(first))
    parts = {name: _part(found, model) for name, found in pairs.items()}
    classes = _classes(root, parts)
    parts, notes = _complete(root, parts)
    return stored(source, classes, parts, notes)


def _pairs(root: Path) -> dict[str, list[Pair]]:
    """Image and mask of each part."""
    if (root / "images").is_dir():
        return {"train": _matched(root)}
    found = {part: root / name for name, part in FOLDERS.items() if (root / name).is_dir()}
    if "train" not in found:
        raise DataError(
            f"{root} holds no images and masks; valid are FOLDER/images with FOLDER/masks, and "
            "FOLDER/train/images with FOLDER/train/masks"
        )
    return {part: _matched(folder) for part, folder in found.items()}


def _matched(folder: Path) -> list[Pair]:
    """Each image with the mask of its stem. Raises DataError where one has no partner."""
    files = {}
    for name in ("images", "masks"):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} has no folder {name}; valid are images and masks side by side"
            )
        files[name] = {path.stem: path for path in picture_files(folder / name)}
    images, masks = files["images"], files["masks"]
    if not images:
        raise DataError(f"{folder / 'images'} has no image; valid suffixes are {SUFFIXES}")
    if alone := sorted(images.keys() ^ masks.keys()):
        stem = alone[0]
        there, lacking = (images, "masks") if stem in images else (masks, "images")
        raise DataError(
            f"{there[stem]} has no partner in {folder / lacking}; each image needs one mask of "
            f"the same stem ({len(alone)} are alone)"
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _part(pairs: list[Pair], model: tuple[str, NDArray[Any]]) -> Part:
    images = stacked(((str(path), pixels(path, str(path))) for path, _ in pairs), len(pairs), model)
    size = images.shape[1:3]
    labels = np.empty((len(pairs), *size), np.int16)
    for row, (image, path) in enumerate(pairs):
        mask = numbers(path)
        if mask.shape != size:
            raise DataError(
                f"{path} has {mask.shape[1]}x{mask.shape[0]} pixels and its image {image} "
                f"{size[1]}x{size[0]}; a mask has the size of its image"
            )
        if mask.max() > MOST:
            raise DataError(f"{path} has class {mask.max()}; valid are 0 to {MOST} and {VOID}")
        labels[row] = np.where(mask == VOID, IGNORED, mask)
    return Part(images, labels)


def _classes(root: Path, parts: Mapping[str, Part]) -> int:
    """How many classes the masks hold. Raises DataError as for labels of images."""
    try:
        return check_labels({name: p.labels[p.labels != IGNORED] for name, p in parts.items()})
    except DataError as error:
        raise DataError(
            f"{root}: {error} (pixels of {VOID} do not count: write classes as 0, 1, 2 ...)"
        ) from None


def _complete(root: Path, parts: dict[str, Part]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """All three parts, those missing cut from train at random, the same ones each time."""
    missing = [name for name in PARTS if name not in parts]
    if not missing:
        return parts, ()
    whole = parts["train"]
    count, share = len(whole.images), SHARE["train"] + sum(SHARE[name] for name in missing)
    sizes = [max(1, round(count * SHARE[name] / share)) for name in missing]
    if count - sum(sizes) < 2:
        raise DataError(f"{root} has {count} images of train; at least 4 are needed to cut parts")
    order = np.random.RandomState(SPLIT_SEED).permutation(count)
    cut = np.split(order, np.cumsum(sizes))
    parts = dict(parts)
    for name, rows in zip([*missing, "train"], cut, strict=True):
        rows = np.sort(rows)
        parts[name] = Part(whole.images[rows], whole.labels[rows])
    words = " and ".join(f"{name} ({len(parts[name].images)} images)" for name in missing)
    return parts, (f"{words} cut from the {count} training images",)
