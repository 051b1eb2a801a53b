"""Labelled images for ranking designs: one source a module of this folder.

A source is a module with the five names of `Source`; adding a data set is adding a file here, and
nothing else. A source only reads. What must hold for each data set (labels 0..K-1, finite pixels,
disjoint splits, normalisation, fingerprint) is decided once, in this file.

    describe("hard-digits")  ->  Shape(channels=1, height=16, width=16, classes=10), in milliseconds
    load("hard-digits")      ->  Dataset with train, validation and test splits

Errors: `DataError`, a sentence that says what was asked, what was found and what would be valid.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")
SHARE = {"train": 0.6, "validation": 0.2, "test": 0.2}
SPLIT_SEED = 0


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


class Source(Protocol):
    """What a module of this folder declares."""

    NAME: str  # what the user types: "digits", or a pattern such as "FILE.npz"
    ABOUT: str  # one line of help

    def accepts(self, source: str) -> bool:
        """Whether this module reads `source`."""

    def describe(self, source: str) -> Shape:
        """The shape, from headers and labels only."""

    def read(self, source: str) -> Mapping[str, Part]:
        """The parts that there are: "train", from which missing "validation" and "test" are cut."""


def describe(source: str) -> Shape:
    """Image shape and number of classes of `source`, without reading its pixels.

    Raises DataError where the source is unknown or its labels or headers already rule it out.
    """
    reader = _find(source)
    with _naming(source):
        return reader.describe(source)


def load(source: str) -> Dataset:
    """The data set that `source` names, split and normalised; the same arrays each time.

    Raises DataError where the data cannot serve to train and compare classifiers.
    """
    reader = _find(source)
    with _naming(source):
        given, classes = _checked(reader.read(source))
        parts, notes = _complete(given)
        return assembled(source, classes, parts, notes)


def assembled(
    name: str, classes: int, parts: Mapping[str, Part], notes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of three parts, images (n, H, W, C), normalised by the train statistics.

    Raises DataError unless each pixel is finite in float32.
    """
    train, validation, test = _normalised(parts)
    _, channels, height, width = train.images.shape
    shape = Shape(channels, height, width, classes)
    return Dataset(name, shape, train, validation, test, _fingerprint(parts), notes)


def names() -> dict[str, str]:
    """What can be asked for, each with its line of help; the order is that of the files."""
    return {source.NAME: source.ABOUT for source in _sources()}


def _sources() -> Iterator[Source]:
    for module in pkgutil.iter_modules(__path__):
        yield cast(Source, importlib.import_module(f"{__name__}.{module.name}"))


def _find(source: str) -> Source:
    for candidate in _sources():
        if candidate.accepts(source):
            return candidate
    near = difflib.get_close_matches(source, list(names()), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise DataError(
        f"no data set {source!r}: it is no known name, no existing folder and no .npz file{hint}; "
        f"valid are {', '.join(names())}"
    )


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the name of the source in front of what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source}: {error}") from error.__cause__


def check_labels(labels: Mapping[str, NDArray[Any]]) -> int:
    """The number of classes K of the labels of each part, which must be whole numbers 0..K-1.

    Every class must occur in "train"; a stray label would widen the classifier unlearned.
    Raises DataError.
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
    classes = int(present[-1]) + 1
    if len(present) < classes:
        gap = next(i for i, label in enumerate(present) if label != i)
        raise DataError(
            f"the train labels run up to {classes - 1}, but no image has label {gap}; "
            "labels must run from 0 to classes - 1 with each class present"
        )
    for name, found in labels.items():
        if int(found.max()) >= classes:
            raise DataError(
                f"the {name} labels reach {found.max()}; train has classes 0 to {classes - 1} only"
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


def _checked(given: Mapping[str, Part]) -> tuple[dict[str, Part], int]:
    """The parts with images (n, H, W, C) and labels (n,), and the number of classes."""
    parts = {}
    for name, part in given.items():
        images = part.images
        channels, height, width = check_images(images.shape, images.dtype, name)
        parts[name] = Part(images.reshape(-1, height, width, channels), part.labels.reshape(-1))
    classes = check_labels({name: part.labels for name, part in given.items()})
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


def _complete(parts: dict[str, Part]) -> tuple[dict[str, Part], tuple[str, ...]]:
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


def _normalised(parts: Mapping[str, Part]) -> list[Split]:
    """Each part as float32 (n, C, H, W); in train every channel has mean 0 and deviation 1."""
    images = {name: _finite(name, parts[name].images) for name in PARTS}
    pixels = images["train"].astype(np.float64)
    mean = pixels.mean(axis=(0, 1, 2)).astype(np.float32)
    spread = pixels.std(axis=(0, 1, 2)).astype(np.float32)
    spread[spread == 0] = 1.0
    splits = []
    for name in PARTS:
        scaled = ((images[name] - mean) / spread).transpose(0, 3, 1, 2)
        splits.append(Split(np.ascontiguousarray(scaled), parts[name].labels.astype(np.int64)))
    return splits


def _finite(part: str, images: NDArray[Any]) -> NDArray[np.float32]:
    """The images in float32; raises DataError unless each pixel is finite there."""
    with np.errstate(over="ignore"):
        pixels = images.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(images)} {part} images hold NaN or infinite pixels "
            f"(the first is image {broken[0]}); all must be finite in float32"
        )
    return pixels


def _fingerprint(parts: Mapping[str, Part]) -> str:
    """SHA-256 of pixels (as stored, before normalisation) and labels of each part, in order."""
    digest = hashlib.sha256()
    for name in PARTS:
        images = parts[name].images
        digest.update(f"{name} {images.shape} {images.dtype.str}\n".encode())
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(parts[name].labels, dtype="<i8").data)
    return digest.hexdigest()
