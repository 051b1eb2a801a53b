"""A data set of Hugging Face's `datasets` as `save_to_disk` leaves it: Arrow files and JSON.

    FOLDER/state.json, dataset_info.json, data-*.arrow         split 60 : 20 : 20 in each class
    FOLDER/dataset_dict.json, FOLDER/{train,test,...}/...      the parts as given

Read from the disk alone: nothing is asked of the hub, and no loading script and no pickle is opened
(a folder that holds one is refused before anything of it is read). Needs `leanfield[data]`.
Columns are named as in `nas.datasets.columns`.

Source: https://huggingface.co/docs/datasets/en/about_arrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kernels.backends import MissingComponentError
from nas.datasets import DataError, Part, Shape, check_labels
from nas.datasets.columns import ROWS, Named, columns, label_values, part, picture
from nas.datasets.pickles import refuse_pickle

NAME = "FOLDER of save_to_disk"
ABOUT = "a Hugging Face data set saved on disk (needs leanfield[data])"

SIGNS = ("state.json", "dataset_dict.json")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}


def accepts(source: str) -> bool:
    folder = Path(source).expanduser()
    return any((folder / sign).is_file() for sign in SIGNS)


def describe(source: str) -> Shape:
    table = _tables(source)["train"]
    _, label = columns(table.column_names, source)
    height, width, channels = _model(table, source)[1].shape
    labels = [label_values(chunk, source) for chunk in table.column(label).chunks]
    return Shape(channels, height, width, check_labels({"train": np.concatenate(labels)}))


def read(source: str) -> Mapping[str, Part]:
    tables = _tables(source)
    model = _model(tables["train"], source)
    parts = {}
    for name, table in tables.items():
        where = f"{source} {name}"
        chosen = columns(table.column_names, where)
        batches = table.select(list(chosen)).to_batches(max_chunksize=ROWS)
        parts[name] = part(batches, table.num_rows, chosen, where, model)
    return parts


def _tables(source: str) -> dict[str, Any]:
    """The Arrow table of each part."""
    folder = Path(source).expanduser()
    for path in sorted(folder.rglob("*")):
        refuse_pickle(path, "the .arrow and .json files that save_to_disk writes")
    try:
        import datasets
    except ImportError as error:
        raise MissingComponentError(
            f"{source} is a Hugging Face data set, and the library that reads it is missing "
            f"({error}); pip install 'leanfield[data]'"
        ) from error
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises what its JSON, Arrow and file systems raise
        raise DataError(
            f"not readable as a data set of save_to_disk ({type(error).__name__}: {error})"
        ) from error
    if isinstance(found, datasets.Dataset):
        return {"train": found.data.table}
    if "train" not in found or not set(found) <= set(SPLITS):
        raise DataError(
            f"the splits are {', '.join(found)}; valid are {', '.join(SPLITS)}, train among them"
        )
    return {SPLITS[name]: split.data.table for name, split in found.items()}


def _model(table: Any, source: str) -> Named:
    """The first image of train, which all others must be like."""
    name, _ = columns(table.column_names, source)
    if table.num_rows == 0:
        raise DataError("the train part has no rows; at least one image is needed")
    return picture(table.column(name)[0], f"{source} train, row 0")
