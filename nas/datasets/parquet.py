"""Parquet: a column of images, encoded or as nested arrays, and one of whole numbers as labels.

    FILE.parquet                                  split 60 : 20 : 20 within each class
    FOLDER/train*.parquet                         and, if there are, val*, validation*, test*
    FOLDER/data/train-00000-of-00002.parquet      as the Hugging Face hub keeps them

Format: https://parquet.apache.org/docs/file-format/. Columns are named as in
`nas.datasets.columns`; others are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.datasets import DataError, Part, Shape, check_labels
from nas.datasets.columns import ROWS, Named, columns, label_values, part, picture

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

NAME = "FILE.parquet"
ABOUT = "Parquet with a column of images and one of labels, or a folder of train*.parquet ..."

SUFFIX = ".parquet"
PREFIXES = {"train": "train", "val": "validation", "test": "test"}


def accepts(source: str) -> bool:
    path = Path(source).expanduser()
    return source.endswith(SUFFIX) or (path.is_dir() and bool(_found(path)))


def describe(source: str) -> Shape:
    files = _files(source)["train"]
    _, first = _model(files)
    labels = []
    for file in files:
        with _opened(file) as opened:
            _, name = columns(opened.schema_arrow.names, str(file))
            table = opened.read(columns=[name])
            labels += [label_values(chunk, str(file)) for chunk in table.column(name).chunks]
    height, width, channels = first.shape
    return Shape(channels, height, width, check_labels({"train": np.concatenate(labels)}))


def read(source: str) -> Mapping[str, Part]:
    files = _files(source)
    model = _model(files["train"])
    return {name: _joined([_part(file, model) for file in found]) for name, found in files.items()}


def _files(source: str) -> dict[str, list[Path]]:
    """The files of each part."""
    path = Path(source).expanduser()
    if path.is_file():
        return {"train": [path]}
    if not path.is_dir():
        raise DataError("there is no such file; valid is the path of a Parquet file or a folder")
    files: dict[str, list[Path]] = {}
    for file in _found(path):
        name = next((part for word, part in PREFIXES.items() if file.name.startswith(word)), None)
        if name is None:
            raise DataError(f"{file} belongs to no part; valid names begin with train, val or test")
        files.setdefault(name, []).append(file)
    if "train" not in files:
        raise DataError(f"{path} has no train*.parquet; found {', '.join(sorted(files))}")
    return files


def _found(folder: Path) -> list[Path]:
    return sorted([*folder.glob(f"*{SUFFIX}"), *folder.glob(f"data/*{SUFFIX}")])


def _model(files: Sequence[Path]) -> Named:
    """The first image of train, which all others must be like."""
    for file in files:
        with _opened(file) as opened:
            name, _ = columns(opened.schema_arrow.names, str(file))
            for batch in opened.iter_batches(1, columns=[name]):
                return picture(batch.column(name)[0], f"{file}, row 0")
    raise DataError(f"{', '.join(map(str, files))}: no rows; at least one image is needed")


def _part(file: Path, model: Named) -> Part:
    with _opened(file) as opened:
        chosen = columns(opened.schema_arrow.names, str(file))
        batches: Iterator[pyarrow.RecordBatch] = opened.iter_batches(ROWS, columns=list(chosen))
        return part(batches, opened.metadata.num_rows, chosen, str(file), model)


def _joined(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    images: Any = np.concatenate([part.images for part in parts])
    return Part(images, np.concatenate([part.labels for part in parts]))


@contextmanager
def _opened(file: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """The file; whatever is wrong with it becomes a DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is not readable as Parquet ({error}); it may be cut off: fetch it again"
        ) from error
