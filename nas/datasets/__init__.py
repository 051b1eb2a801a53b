"""Labelled images for training designs: one source a module of this folder.

A source is a module with the names of `Source`; adding a data set is adding a file here, and
nothing else. A source only reads. What must hold for each data set (labels 0..K-1, finite pixels,
disjoint splits, normalisation, fingerprint) is decided once, in `nas.datasets.labelled`.

    describe("hard-digits")  ->  Shape(channels=1, height=16, width=16, classes=10), in milliseconds
    load("hard-digits")      ->  Dataset with train, validation and test splits, in float32
    store("cifar10:FOLDER")  ->  the same as it was read, in bytes (`Stored`)

Errors: `DataError`, a sentence that says what was asked, what was found and what would be valid.
Nothing is ever unpickled.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from nas.datasets.labelled import (
    PARTS,
    SHARE,
    SPLIT_SEED,
    DataError,
    Dataset,
    Part,
    Shape,
    Split,
    Stored,
    check_images,
    check_labels,
    checked,
    complete,
    stored,
    stratified,
)
from nas.datasets.pickles import refuse_pickle

__all__ = [
    "PARTS",
    "SHARE",
    "SPLIT_SEED",
    "DataError",
    "Dataset",
    "Part",
    "Shape",
    "Source",
    "Split",
    "Stored",
    "assembled",
    "check_images",
    "check_labels",
    "describe",
    "load",
    "names",
    "store",
    "stratified",
]


class Source(Protocol):
    """What a module of this folder declares.

    Three names may be absent: CLASSES, where the format itself says how many there are; MIRRORS,
    True where the mirror image of an image keeps its label; GENERAL, True for a source that
    leaves a folder to any other that knows its files.
    """

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
    return store(source).normalised()


def store(source: str) -> Stored:
    """The same data as it was read, for a training that normalises each batch."""
    reader = _find(source)
    with _naming(source):
        given, classes = checked(reader.read(source), getattr(reader, "CLASSES", None))
        parts, notes = complete(given)
        return stored(source, classes, parts, notes, getattr(reader, "MIRRORS", False))


def assembled(
    name: str, classes: int, parts: Mapping[str, Part], notes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of three parts, images (n, H, W, C), normalised by the train statistics.

    Raises DataError unless each pixel is finite in float32.
    """
    return stored(name, classes, parts, notes).normalised()


def names() -> dict[str, str]:
    """What can be asked for, each with its line of help: what needs no file comes first."""
    found = {source.NAME: source.ABOUT for source in _sources()}
    return dict(sorted(found.items(), key=lambda item: item[0] != item[0].lower()))


def _sources() -> Iterator[Source]:
    for module in pkgutil.iter_modules(__path__):
        found = importlib.import_module(f"{__name__}.{module.name}")
        if hasattr(found, "accepts"):
            yield cast(Source, found)


def _find(source: str) -> Source:
    found = [candidate for candidate in _sources() if candidate.accepts(source)]
    if found:
        return min(found, key=lambda candidate: getattr(candidate, "GENERAL", False))
    refuse_pickle(Path(source).expanduser())
    near = difflib.get_close_matches(source, list(names()), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise DataError(
        f"no data set {source!r}: it is no known name, no existing folder and no file of a known "
        f"format{hint}; valid are {', '.join(names())}"
    )


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the name of the source in front of what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source}: {error}") from error.__cause__
