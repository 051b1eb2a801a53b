"""A column of images and a column of labels, as Parquet files and Hugging Face data sets have them.

label   whole numbers
image   encoded images (binary, or a struct with the field `bytes`), or arrays of numbers nested as
        (H, W) or (H, W, 1 or 3)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.datasets.labelled import DataError, Part
from nas.datasets.pictures import pixels, stacked

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "images", "pixels", "picture")
LABELS = ("label", "labels", "fine_label", "class", "target", "y")
ROWS = 512
"""Rows decoded at a time."""

Named = tuple[str, NDArray[Any]]


def columns(names: Iterable[str], where: str) -> tuple[str, str]:
    """The image and the label column among `names`. Raises DataError where one is missing."""
    found = list(names)
    image_column = next((name for name in IMAGES if name in found), None)
    label_column = next((name for name in LABELS if name in found), None)
    if image_column is None or label_column is None:
        what, valid = ("labels", LABELS) if image_column else ("images", IMAGES)
        raise DataError(
            f"{where} has no column of {what}; found {', '.join(found) or 'none'}; "
            f"valid names are {', '.join(valid)}"
        )
    return image_column, label_column


def part(
    batches: Iterable[pyarrow.RecordBatch],
    count: int,
    chosen: tuple[str, str],
    where: str,
    model: Named,
) -> Part:
    """`count` images and labels; `model` is the first image of train. Raises DataError."""
    labels: list[NDArray[Any]] = []

    def images() -> Iterator[Named]:
        row = 0
        for batch in batches:
            labels.append(label_values(batch.column(chosen[1]), where))
            for value in batch.column(chosen[0]):
                yield picture(value, f"{where}, row {row}")
                row += 1

    found = stacked(images(), count, model)
    return Part(found, np.concatenate(labels) if labels else np.empty(0, np.int64))


def label_values(column: pyarrow.Array, where: str) -> NDArray[Any]:
    """Raises DataError for missing labels and for those that are no whole numbers."""
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise DataError(f"{where}: the labels are of type {column.type}; valid are integers")
    if column.null_count:
        raise DataError(f"{where}: {column.null_count} rows have no label; every image needs one")
    return column.to_numpy(zero_copy_only=False).astype(np.int64)


def picture(value: pyarrow.Scalar, name: str) -> Named:
    """One image (height, width, channels) with its name. Raises DataError."""
    import pyarrow as pa

    if not value.is_valid:
        raise DataError(f"{name} has no image; every row needs one")
    if isinstance(value, pa.FixedShapeTensorScalar):
        return name, value.to_numpy().reshape(*value.type.shape[:2], -1)
    if isinstance(value, pa.ExtensionScalar):
        value = value.value
    if pa.types.is_struct(value.type):
        fields = [field.name for field in value.type]
        if "bytes" not in fields or not value["bytes"].is_valid:
            raise DataError(f"{name} holds {', '.join(fields)} but not the bytes of its image")
        value = value["bytes"]
    if pa.types.is_binary(value.type) or pa.types.is_large_binary(value.type):
        return name, pixels(value.as_py(), name)
    return name, _nested(value, name)


def _nested(value: pyarrow.Scalar, name: str) -> NDArray[Any]:
    """Lists of lists of numbers as an array, level by level: no Python object a pixel."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_nested(value.type):
        raise DataError(
            f"{name} has an image of type {value.type}; valid are encoded images (binary) and "
            "nested lists of numbers"
        )
    flat, sizes = value.values, [len(value.values)]
    while pa.types.is_nested(flat.type):
        lengths = pc.unique(pc.list_value_length(flat)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise DataError(f"{name} is no array: it has rows of {lengths} numbers")
        sizes.append(lengths[0])
        flat = flat.flatten()
    if len(sizes) not in (2, 3) or flat.null_count:
        raise DataError(
            f"{name} is an array of shape {tuple(sizes)} with {flat.null_count} missing numbers; "
            "valid are (height, width) and (height, width, 1 or 3), all there"
        )
    return flat.to_numpy(zero_copy_only=False).reshape(*sizes[:2], -1)
