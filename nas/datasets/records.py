"""Files of records of one length, and the folders that hold them: what CIFAR and STL-10 share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.datasets.labelled import DataError
from nas.datasets.pickles import is_pickle

Bytes = NDArray[np.uint8]


def home(source: str, prefix: str, folders: Sequence[str], signs: Iterable[str]) -> Path | None:
    """The folder that `source` names, where it holds a file of one of the names `signs`.

    `prefix:FOLDER` is taken at its word. `folders` are the names under which the archives unpack;
    their parent is as good.
    """
    word, colon, rest = source.partition(":")
    told = colon == ":" and word == prefix
    root = Path(rest if told else source).expanduser()
    for folder in (root, *(root / name for name in folders)):
        if any((folder / name).is_file() for name in signs):
            return folder
    return root if told else None


def records(path: Path, length: int, archive: str) -> Bytes:
    """The file as (n, length) bytes, read as they are used.

    Raises DataError for a pickle, a missing file, and one that is no whole number of records.
    """
    if not path.is_file():
        twin = path.with_suffix("")
        if is_pickle(twin):
            raise DataError(
                f"{twin} is a Python pickle, which is never opened, because reading it may run "
                f"any code; valid is the binary version, {archive}, with {path.name}"
            )
        found = _listing(path.parent)
        raise DataError(f"there is no file {path}; {found}; valid are the files of {archive}")
    size = path.stat().st_size
    if size == 0 or size % length:
        raise DataError(
            f"{path} has {size:,} bytes, which is {size / length:.2f} records of {length:,} bytes: "
            f"it is cut off or of another format; valid is a whole number of records, as in "
            f"{archive}"
        )
    return np.memmap(path, np.uint8, "r").reshape(-1, length)


def check_range(labels: Bytes, lowest: int, highest: int, path: Path, what: str = "label") -> None:
    """Raises DataError that names the first record whose label lies outside."""
    wrong = np.flatnonzero((labels < lowest) | (labels > highest))
    if len(wrong):
        raise DataError(
            f"{path}: record {wrong[0]} has {what} {labels[wrong[0]]}; "
            f"valid are {lowest} to {highest} ({len(wrong)} of {len(labels)} records are out of "
            "range)"
        )


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "there is no such folder either"
    names = sorted(path.name for path in folder.iterdir())
    return f"found {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "empty"
