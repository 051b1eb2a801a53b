"""Labelled images: what must hold for each data set, whatever it is read from.

Labels 0..K-1, finite pixels of one shape, disjoint splits, normalisation, fingerprint. Images are
kept as they were read (uint8 in most formats, a quarter of float32) in `Stored`; `Dataset` is the
same as normalised float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
SHARE = {"train": 0.6, "validation": 0.2, "test": 0.2}
SPLIT_SEED = 0
IGNORED = -100
"""The label of a pixel that counts neither in the loss nor in the measure."""
CHUNK = 256
"""Images that are counted, or whose labels are widened, at a time: numpy takes 8 bytes a number."""


class DataError(ValueError):
    """The data asked for cannot be used; the message says why and what would be valid."""


@dataclass(frozen=True)
class Shape:
    """What a network must know of a data set: one image is (channels, height, width)."""

    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True, eq=False)
class Split:
    """Images (n, C, H, W) in float32, normalised by the train statistics; labels in int64.

    Labels are (n,), one an image, or (n, H, W), one a pixel.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits.

    `fingerprint` changes with any pixel, label or split; `notes` tell what was cut from train.
    """

    name: str
    shape: Shape
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """One part as a source reads it: images (n, H, W) or (n, H, W, C), labels (n,) or (n, 1)."""

    images: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stored:
    """The three parts as they were read: images (n, H, W, C), labels (n,) or (n, H, W).

    `mean` and `spread` (C,) are those of the train pixels; `mirrors` says that the mirror image of
    an image keeps its label.
    """

    name: str
    shape: Shape
    parts: Mapping[str, Part]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    fingerprint: str
    notes: tuple[str, ...] = ()
    mirrors: bool = False

    def normalised(self) -> Dataset:
        """Each part as float32 (n, C, H, W); in train every channel has mean 0 and deviation 1."""
        train, validation, test = (self._split(self.parts[name]) for name in PARTS)
        return Dataset(self.name, self.shape, train, validation, test, self.fingerprint, self.notes)

    def _split(self, part: Part) -> Split:
        scaled = (part.images.astype(np.float32) - self.mean) / self.spread
        images = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        return Split(images, part.labels.astype(np.int64))


def stored(
    name: str,
    classes: int,
    parts: Mapping[str, Part],
    notes: tuple[str, ...] = (),
    mirrors: bool = False,
) -> Stored:
    """The data set of three parts, images (n, H, W, C).

    Raises DataError unless each pixel is finite in float32.
    """
    for part in PARTS:
        _check_finite(part, parts[part].images)
    mean, spread = _statistics(parts["train"].images)
    _, height, width, channels = parts["train"].images.shape
    shape = Shape(channels, height, width, classes)
    return Stored(name, shape, parts, mean, spread, _fingerprint(parts), notes, mirrors)


def check_labels(labels: Mapping[str, NDArray[Any]], declared: int | None = None) -> int:
    """The number of classes K of the labels of each part, which must be whole numbers 0..K-1.

    Every class must occur in "train"; a stray label would widen the classifier unlearned. Where
    the format declares K, classes may be missing. Raises DataError.
    """
    for name, found in labels.items():
        if found.dtype.kind not in "iub":
            raise DataError(f"the {name} labels are of type {found.dtype}; valid are integer types")
        if found.ndim == 0 or found.shape[1:] not in ((), (1,)):
            raise DataError(
                f"the {name} labels have shape {found.shape}; valid are (n,) and (n, 1), "
                "one label an image"
            )
        if found.size == 0:
            raise DataError(f"the {name} part has no labels; at least one image is needed")
        if int(found.min()) < 0:
            raise DataError(f"the {name} labels reach down to {found.min()}; the lowest must be 0")
    present = np.unique(labels["train"])
    if len(present) < 2:
        raise DataError(f"train has one class only ({present[0]}); at least 2 classes are needed")
    classes = declared or int(present[-1]) + 1
    if not declared and len(present) < classes:
        gap = next(i for i, label in enumerate(present) if label != i)
        raise DataError(
            f"the train labels run up to {classes - 1}, but no image has label {gap}; "
            "labels must run from 0 to classes - 1 with each class present"
        )
    for name, found in labels.items():
        if int(found.max()) >= classes:
            raise DataError(
                f"the {name} labels reach {found.max()}; "
                f"{'valid are' if declared else 'train has'} classes 0 to {classes - 1} only"
            )
    return classes


def check_images(shape: tuple[int, ...], dtype: np.dtype[Any], part: str) -> tuple[int, int, int]:
    """(channels, height, width) of an array of images; raises DataError where it cannot be one."""
    if dtype.kind not in "iubf":
        raise DataError(f"the {part} images are of type {dtype}; valid are integers and reals")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise DataError(
            f"the {part} images have shape {shape}; valid are (n, height, width) in gray and "
            "(n, height, width, 1 or 3) with the channels last"
        )
    if 0 in shape:
        raise DataError(f"the {part} images have shape {shape}, so no pixels; none may be empty")
    return (shape[3] if len(shape) == 4 else 1), shape[1], shape[2]


def checked(given: Mapping[str, Part], declared: int | None = None) -> tuple[dict[str, Part], int]:
    """The parts with images (n, H, W, C) and labels (n,), and the number of classes."""
    parts = {}
    for name, part in given.items():
        images = part.images
        channels, height, width = check_images(images.shape, images.dtype, name)
        parts[name] = Part(images.reshape(-1, height, width, channels), part.labels.reshape(-1))
    classes = check_labels({name: part.labels for name, part in given.items()}, declared)
    expected = parts["train"].images.shape[1:]
    for name, part in parts.items():
        if len(part.images) != len(part.labels):
            raise DataError(
                f"the {name} part has {len(part.images)} images and {len(part.labels)} labels; "
                "every image needs one label"
            )
        if part.images.shape[1:] != expected:
            raise DataError(
                f"a {name} image has (height, width, channels) {part.images.shape[1:]} and a train "
                f"image {expected}; all parts must have one shape"
            )
    return parts, classes


def complete(parts: dict[str, Part]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """All three parts, those missing cut from train; and a note where that was done."""
    missing = [name for name in PARTS if name not in parts]
    if not missing:
        return parts, ()
    share = SHARE["train"] + sum(SHARE[name] for name in missing)
    labels = parts["train"].labels
    cut = stratified(labels, [SHARE[name] / share for name in missing])
    pieces = dict(zip([*missing, "train"], cut, strict=True))
    whole = parts["train"]
    parts = parts | {name: Part(whole.images[rows], labels[rows]) for name, rows in pieces.items()}
    sizes = " and ".join(f"{name} ({len(pieces[name])} images)" for name in missing)
    note = f"{sizes} cut from the {len(labels)} training images, the same share of each class"
    return {name: parts[name] for name in PARTS}, (note,)


def stratified(labels: NDArray[Any], shares: list[float]) -> list[NDArray[np.int64]]:
    """Disjoint ascending rows: one array a share, then the rest, each with every class of `labels`.

    The split depends on the arguments only. Raises DataError where a class has too few images.
    """
    rows: list[list[NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    random = np.random.RandomState(SPLIT_SEED)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count <= len(shares):
            raise DataError(
                f"class {label} has {count} of the images of train; at least {len(shares) + 1} of "
                "each class are needed to cut the missing parts from train"
            )
        sizes = [max(1, round(share * int(count))) for share in shares]
        pieces = np.split(random.permutation(np.flatnonzero(labels == label)), np.cumsum(sizes))
        for piece, taken in zip(pieces, rows, strict=True):
            taken.append(piece)
    return [np.sort(np.concatenate(taken)) for taken in rows]


def _statistics(images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each channel of (n, H, W, C), 1 where a channel is constant.

    Bytes are counted: 256 numbers a channel say all, and 50,000 images of 32 x 32 take no GB.
    """
    if images.dtype == np.uint8:
        values = np.arange(256, dtype=np.float64)
        counts = _histograms(images)
        means = counts @ values / counts.sum(axis=1)
        squares = (counts * (values - means[:, None]) ** 2).sum(axis=1)
        deviations = np.sqrt(squares / counts.sum(axis=1))
    else:
        pixels = images.astype(np.float64)
        means, deviations = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    spread = deviations.astype(np.float32)
    spread[spread == 0] = 1.0
    return means.astype(np.float32), spread


def _histograms(images: NDArray[Any]) -> NDArray[np.int64]:
    """How often each channel has each of the values 0 to 255: (C, 256)."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), CHUNK):
        piece = images[start : start + CHUNK]
        for channel, row in enumerate(counts):
            row += np.bincount(piece[..., channel].reshape(-1), minlength=256)
    return counts


def _check_finite(part: str, images: NDArray[Any]) -> None:
    """Raises DataError unless each pixel is finite in float32, as all integers are."""
    if images.dtype.kind in "iub":
        return
    with np.errstate(over="ignore"):
        pixels = images.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(images)} {part} images hold NaN or infinite pixels "
            f"(the first is image {broken[0]}); all must be finite in float32"
        )


def _fingerprint(parts: Mapping[str, Part]) -> str:
    """SHA-256 of pixels (as stored, before normalisation) and labels of each part, in order."""
    digest = hashlib.sha256()
    for name in PARTS:
        images = parts[name].images
        digest.update(f"{name} {images.shape} {images.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(images).data)
        for start in range(0, len(images), CHUNK):
            labels = parts[name].labels[start : start + CHUNK]
            digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()
