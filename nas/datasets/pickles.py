"""Pickles are refused: reading one runs whatever code its writer put there.

https://docs.python.org/3/library/pickle.html, the warning at its head. A file counts as one by its
suffix or by its first two bytes, PROTO and a protocol of at least 2.
"""

from __future__ import annotations

from pathlib import Path

from nas.datasets.labelled import DataError

SUFFIXES = {".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth"}
PROTO = b"\x80"
PROTOCOLS = range(2, 6)


def is_pickle(path: Path) -> bool:
    """Whether this file is one that only unpickling would read."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(2)
    return path.suffix.lower() in SUFFIXES or (
        len(head) == 2 and head[:1] == PROTO and head[1] in PROTOCOLS
    )


def refuse_pickle(
    path: Path, valid: str = "images, .npz, Parquet, Arrow and the binary formats"
) -> None:
    """Raises DataError where `path` is a pickle; `valid` says what to use in its place."""
    if is_pickle(path):
        raise DataError(
            f"{path} is a Python pickle, which is never opened, because reading it may run any "
            f"code; valid: {valid}"
        )
