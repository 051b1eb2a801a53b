"""Files in the real formats of CIFAR, STL-10, Parquet, Hugging Face and masks; pickles refused."""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from kernels.backends import MissingComponentError
from nas.datasets import DataError, Shape, describe, load, mask_folder, store
from nas.datasets.labelled import IGNORED

Bytes = NDArray[np.uint8]


def pictures(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Bytes:
    """Images (n, H, W, 3), each unique."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


# ---- CIFAR and STL-10 ----------------------------------------------------------------------------


def write_cifar10(folder: Path, per_batch: int = 20) -> tuple[Bytes, Bytes]:
    """Five batches and the test batch; the train images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pictures(6 * per_batch), np.arange(6 * per_batch, dtype=np.uint8) % 10
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        with (folder / f"{name}.bin").open("wb") as file:
            for row in range(number * per_batch, (number + 1) * per_batch):
                planes = [images[row, :, :, channel].tobytes() for channel in range(3)]
                file.write(bytes([labels[row]]) + b"".join(planes))
    return images[: 5 * per_batch], labels[: 5 * per_batch]


@pytest.mark.parametrize("prefix", ["", "cifar10:"])
@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path: Path, prefix: str, inner: str) -> None:
    images, labels = write_cifar10(tmp_path / inner)
    source = f"{prefix}{tmp_path}"
    assert describe(source) == Shape(3, 32, 32, 10)
    data = store(source)
    sizes = {name: len(part.labels) for name, part in data.parts.items()}
    assert sizes == {"train": 80, "validation": 20, "test": 20}
    assert data.mirrors
    part = data.parts["train"]
    assert part.images.dtype == np.uint8
    by_content = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for image, label in zip(part.images, part.labels, strict=True):
        assert by_content[image.tobytes()] == label
    assert load(source).fingerprint == data.fingerprint


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    images = pictures(300)
    for name, rows in (("train", range(200)), ("test", range(200, 300))):
        records = [
            bytes([row % 20, row % 100]) + images[row].transpose(2, 0, 1).tobytes() for row in rows
        ]
        (tmp_path / f"{name}.bin").write_bytes(b"".join(records))
    data = store(str(tmp_path))
    assert data.shape == describe(f"cifar100:{tmp_path}") == Shape(3, 32, 32, 100)
    assert data.parts["test"].labels.tolist() == list(range(100))
    assert np.array_equal(data.parts["test"].images, images[200:])


def write_stl10(folder: Path, count: int = 20) -> Bytes:
    images = pictures(2 * count, 96, 96)
    for name, rows in (("train", slice(0, count)), ("test", slice(count, 2 * count))):
        columns_first = images[rows].transpose(0, 3, 2, 1)
        (folder / f"{name}_X.bin").write_bytes(columns_first.tobytes())
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)
        (folder / f"{name}_y.bin").write_bytes(labels.tobytes())
    return images


def test_stl10_is_column_by_column_and_counts_from_one(tmp_path: Path) -> None:
    images = write_stl10(tmp_path)
    unlabeled = tmp_path / "unlabeled_X.bin"
    unlabeled.touch()
    os.truncate(unlabeled, 100_000 * 96 * 96 * 3)  # sparse: its size, not its bytes
    data = store(str(tmp_path))
    assert data.shape == describe(str(tmp_path)) == Shape(3, 96, 96, 10)
    assert np.array_equal(data.parts["test"].images, images[20:])
    assert data.parts["test"].labels.tolist() == [i % 10 for i in range(20)]
    assert sum(part.images.nbytes for part in data.parts.values()) == images.nbytes


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, size)


def set_byte(name: str, at: int, value: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] = value
        (folder / name).write_bytes(content)

    return change


BAD_CIFAR: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn": (cut("data_batch_3.bin", 3073 * 7 + 5), r"batch_3\.bin has 21,516 bytes.*whole number"),
    "empty": (cut("test_batch.bin", 0), r"test_batch\.bin has 0 bytes"),
    "label": (
        set_byte("data_batch_2.bin", 3073 * 4, 10),
        r"batch_2\.bin: record 4 has label 10;.*9",
    ),
    "missing": (
        lambda f: (f / "data_batch_2.bin").unlink(),
        r"no file .*data_batch_2\.bin; found d",
    ),
    "all missing": (
        lambda f: [p.unlink() for p in f.glob("data*")],
        r"no file .*data_batch_1\.bin; found test_batch\.bin; .*cifar-10-binary\.tar\.gz",
    ),
}


@pytest.mark.parametrize("case", BAD_CIFAR)
def test_bad_cifar10(tmp_path: Path, case: str) -> None:
    change, message = BAD_CIFAR[case]
    write_cifar10(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        load(f"cifar10:{tmp_path}")


BAD_STL: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn": (cut("train_X.bin", 96 * 96 * 3 * 3 - 1), r"train_X\.bin has 82,943 bytes"),
    "label 0": (set_byte("train_y.bin", 3, 0), r"train_y\.bin: record 3 has label 0; .* 1 to 10"),
    "count": (cut("test_y.bin", 9), r"test_X\.bin has 20 images and .*test_y\.bin 9 labels"),
    "no labels": (lambda f: (f / "train_y.bin").unlink(), r"there is no file .*train_y\.bin"),
}


@pytest.mark.parametrize("case", BAD_STL)
def test_bad_stl10(tmp_path: Path, case: str) -> None:
    change, message = BAD_STL[case]
    write_stl10(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path))


def test_a_coarse_label_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(bytes([20, 5]) + bytes(3072))
    with pytest.raises(
        DataError, match=r"train\.bin: record 0 has coarse label 20; valid are 0 to"
    ):
        load(f"cifar100:{tmp_path}")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_a_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="there is no such folder either"):
        load(f"{name}:{tmp_path}/nowhere")


# ---- pickles -------------------------------------------------------------------------------------


class Malice:
    """Its pickle makes a folder as soon as it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def as_python_cifar10(folder: Path, payload: bytes) -> str:
    (folder / "data_batch_1").write_bytes(payload)
    return str(folder)


def as_python_cifar100(folder: Path, payload: bytes) -> str:
    (folder / "train").write_bytes(payload)
    return f"cifar100:{folder}"


def as_bin(folder: Path, payload: bytes) -> str:
    """A pickle that has the name of the binary version."""
    write_cifar10(folder)
    (folder / "data_batch_1.bin").write_bytes(payload)
    return str(folder)


def as_file(folder: Path, payload: bytes) -> str:
    (folder / "train.pkl").write_bytes(payload)
    return f"{folder}/train.pkl"


def as_object_array(folder: Path, payload: bytes) -> str:
    evil = np.empty(1, dtype=object)
    evil[0] = pickle.loads(pickle.dumps("harmless"))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(  # type: ignore[attr-defined]
        buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    import zipfile

    with zipfile.ZipFile(folder / "data.npz", "w") as archive:
        archive.writestr("train_images.npy", buffer.getvalue() + payload)
        archive.writestr("train_labels.npy", buffer.getvalue() + payload)
    return f"{folder}/data.npz"


def in_hugging_face(folder: Path, payload: bytes) -> str:
    (folder / "state.json").write_text("{}")
    (folder / "cache-1.arrow").write_bytes(payload)
    return str(folder)


def in_parquet(folder: Path, payload: bytes) -> str:
    """An extension type whose description Arrow once unpickled."""
    field = pa.field(
        "image",
        pa.binary(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": payload,
        },
    )
    table = pa.table(
        [pa.array([b"no image"] * 8), pa.array([0, 1] * 4)],
        schema=pa.schema([field, pa.field("label", pa.int64())]),
    )
    pq.write_table(table, folder / "data.parquet")
    return f"{folder}/data.parquet"


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (as_python_cifar10, r"data_batch_1 is a Python pickle.*binary version, cifar-10-binary"),
        (as_python_cifar100, r"train is a Python pickle.*cifar-100-binary"),
        (as_bin, r"data_batch_1\.bin has \d+ bytes"),
        (as_file, r"train\.pkl is a Python pickle, which is never opened"),
        (as_object_array, "Python objects, which are never unpickled"),
        (in_hugging_face, r"cache-1\.arrow is a Python pickle"),
        (in_parquet, "not readable as an image"),
    ],
)
def test_a_pickle_is_refused_and_does_nothing(
    tmp_path: Path, put: Callable[[Path, bytes], str], message: str
) -> None:
    mark, folder = tmp_path / "mark", tmp_path / "data"
    folder.mkdir()
    source = put(folder, pickle.dumps(Malice(mark), protocol=2))
    for ask in (describe, load):
        with pytest.raises(DataError, match=message):
            ask(source)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malice(mark), protocol=2))
    assert mark.exists()


# ---- Parquet -------------------------------------------------------------------------------------


def encoded(image: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def plain(images: Bytes) -> pa.Array:
    return pa.array([encoded(image) for image in images])


def struct(images: Bytes) -> pa.Array:
    return pa.array([{"bytes": encoded(image), "path": None} for image in images])


def nested(images: Bytes) -> pa.Array:
    return pa.array(images.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))


def tensor(images: Bytes) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(images)


def write_parquet(path: Path, images: pa.Array, labels: Any, names: tuple[str, str]) -> None:
    pq.write_table(pa.table({names[0]: images, names[1]: labels, "other": labels}), path)


@pytest.mark.parametrize("kind", [plain, struct, nested, tensor])
def test_parquet(tmp_path: Path, kind: Callable[[Bytes], pa.Array]) -> None:
    images, labels = pictures(30, 6, 5), np.arange(30) % 3
    path = tmp_path / "data.parquet"
    write_parquet(path, kind(images), labels, ("img", "fine_label"))
    data = store(str(path))
    assert data.shape == describe(str(path)) == Shape(3, 6, 5, 3)
    by_content = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    found = 0
    for part in data.parts.values():
        assert part.images.dtype == np.uint8
        for image, label in zip(part.images, part.labels, strict=True):
            assert by_content[image.tobytes()] == label
            found += 1
    assert found == 30


@pytest.mark.parametrize("folder", ["", "data"])
def test_parquet_in_shards(tmp_path: Path, folder: str) -> None:
    images = pictures(24, 6, 5)
    (tmp_path / folder).mkdir(exist_ok=True)
    names = ["train-00000-of-00002", "train-00001-of-00002", "validation-00000", "test"]
    for number, name in enumerate(names):
        rows = slice(6 * number, 6 * number + 6)
        labels = np.arange(6, dtype=np.uint8) % 2
        path = tmp_path / folder / f"{name}.parquet"
        write_parquet(path, plain(images[rows]), labels, ("image", "label"))
    data = store(str(tmp_path))
    assert data.notes == ()
    assert np.array_equal(data.parts["train"].images, images[:12])
    assert np.array_equal(data.parts["test"].images, images[18:])


IMAGES, LABELS = pictures(12, 6, 5), np.arange(12) % 2
BAD_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"x": plain(IMAGES), "label": LABELS}, "no column of images; found x, label"),
    "no label": (
        {"image": plain(IMAGES), "name": LABELS},
        "no column of labels; found image, name",
    ),
    "text": ({"image": plain(IMAGES), "label": list("ab" * 6)}, "of type .*string; valid are int"),
    "no value": ({"image": plain(IMAGES), "label": [None, *LABELS[1:]]}, "1 rows have no label"),
    "negative": ({"image": plain(IMAGES), "label": LABELS - 1}, "reach down to -1"),
    "gap": ({"image": plain(IMAGES), "label": LABELS * 2}, "no image has label 1"),
    "sizes": (
        {
            "image": [*plain(IMAGES)[:11].to_pylist(), encoded(pictures(1, 7, 5)[0])],
            "label": LABELS,
        },
        r"row 0 has 5x6 pixels and .*row 11 has 5x7",
    ),
    "ragged": (
        {"image": pa.array([[[1, 2], [3]], *[[[1, 2], [3, 4]]] * 11]), "label": LABELS},
        "row 0 is no array",
    ),
    "flat": ({"image": pa.array([[1, 2]] * 12), "label": LABELS}, r"shape \(2,\).*valid are \(he"),
    "numbers": ({"image": LABELS, "label": LABELS}, "image of type int64; valid are encoded"),
    "text in image": ({"image": [b"hello"] * 12, "label": LABELS}, "not readable as an image"),
    "absent": ({"image": [None, *plain(IMAGES)[1:].to_pylist()], "label": LABELS}, "has no image"),
    "only a path": (
        {"image": [{"bytes": None, "path": "a.png"}] * 12, "label": LABELS},
        "bytes, path but not the bytes",
    ),
    "no rows": ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "no rows"),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet(tmp_path: Path, case: str) -> None:
    content, message = BAD_PARQUET[case]
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table(content), path)
    with pytest.raises(DataError, match=message) as caught:
        load(str(path))
    assert "data.parquet" in str(caught.value)


def test_torn_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_parquet(path, plain(IMAGES), LABELS, ("image", "label"))
    whole = path.read_bytes()
    for content in (
        whole[:-10],
        whole[: len(whole) // 2],
        b"",
        whole[:4] + bytes(200) + whole[204:],
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.parquet"):
            load(str(path))


# ---- Hugging Face --------------------------------------------------------------------------------


def test_a_data_set_saved_by_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets", reason="the extra [data] is not installed")
    images, labels = pictures(20, 6, 5), [i % 2 for i in range(20)]
    features = library.Features(
        {"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])}
    )
    content = {"image": [Image.fromarray(image) for image in images], "label": labels}
    whole = library.Dataset.from_dict(content, features=features)
    parts = whole.train_test_split(6, seed=0, shuffle=False)
    parts.save_to_disk(tmp_path / "parts")
    whole.shuffle(seed=1).save_to_disk(tmp_path / "whole")
    data = store(str(tmp_path / "parts"))
    assert data.shape == describe(str(tmp_path / "parts")) == Shape(3, 6, 5, 2)
    assert np.array_equal(data.parts["test"].images, images[14:])
    assert data.parts["test"].labels.tolist() == labels[14:]
    shuffled = store(str(tmp_path / "whole"))
    by_content = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for part in shuffled.parts.values():
        for image, label in zip(part.images, part.labels, strict=True):
            assert by_content.pop(image.tobytes()) == label
    assert not by_content


def test_arrays_saved_by_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets", reason="the extra [data] is not installed")
    images = pictures(12, 6, 5)
    features = library.Features(
        {"image": library.Array3D((6, 5, 3), "uint8"), "y": library.Value("int8")}
    )
    library.Dataset.from_dict(
        {"image": list(images), "y": [i % 2 for i in range(12)]}, features=features
    ).save_to_disk(tmp_path / "data")
    data = store(str(tmp_path / "data"))
    assert data.shape == Shape(3, 6, 5, 2)
    assert data.parts["train"].images.dtype == np.uint8
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        path = tmp_path / "data" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
        with pytest.raises(DataError, match="not readable as a data set of save_to_disk"):
            load(str(tmp_path / "data"))
        path.write_bytes(whole)


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(MissingComponentError, match=r"pip install 'leanfield\[data\]'"):
        load(str(tmp_path))


# ---- masks ---------------------------------------------------------------------------------------


def write_masks(folder: Path, count: int = 10, classes: int = 3) -> tuple[Bytes, Bytes]:
    images = pictures(count, 8, 10)
    masks = np.random.default_rng(1).integers(0, classes, (count, 8, 10)).astype(np.uint8)
    masks[:, 0, 0] = 255
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for row in range(count):
        Image.fromarray(images[row]).save(folder / "images" / f"{row:02}.png")
        Image.fromarray(masks[row]).save(folder / "masks" / f"{row:02}.png")
    return images, masks


def test_masks(tmp_path: Path) -> None:
    images, masks = write_masks(tmp_path)
    palette = Image.fromarray(masks[3]).convert("P")
    palette.putdata(masks[3].reshape(-1).tolist())
    palette.save(tmp_path / "masks" / "03.png")
    data = mask_folder.store(f"segmentation:{tmp_path}")
    assert data.shape == Shape(3, 8, 10, 3)
    assert [len(part.labels) for part in data.parts.values()] == [6, 2, 2]
    rows = {image.tobytes(): row for row, image in enumerate(images)}
    for part in data.parts.values():
        for image, labels in zip(part.images, part.labels, strict=True):
            mask = masks[rows.pop(image.tobytes())]
            assert np.array_equal(labels, np.where(mask == 255, IGNORED, mask.astype(int)))
    assert not rows


def test_masks_with_given_parts(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_masks(tmp_path / name, 4)
    data = mask_folder.store(f"segmentation:{tmp_path}")
    assert data.notes == ()
    assert [len(part.labels) for part in data.parts.values()] == [4, 4, 4]


def save_mask(folder: Path, content: Any, mode: str | None = None) -> None:
    Image.fromarray(np.asarray(content, np.uint8), mode).save(folder / "masks" / "03.png")


def binary(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        Image.fromarray(255 * (np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)


BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "alone": (
        lambda f: (f / "masks" / "03.png").unlink(),
        r"images/03\.png has no partner in .*mas",
    ),
    "no image": (lambda f: (f / "images" / "03.png").unlink(), r"masks/03\.png has no partner"),
    "size": (lambda f: save_mask(f, np.zeros((8, 9))), r"03\.png has 9x8 .* and its image .* 10x8"),
    "colour": (
        lambda f: save_mask(f, np.zeros((8, 10, 3))),
        r"03\.png is a mask in mode RGB; valid",
    ),
    "gap": (lambda f: save_mask(f, np.full((8, 10), 9)), "run up to 9, but no .* label 3"),
    "binary": (binary, r"one class only \(0\).*255 do not count"),
    "folders": (lambda f: (f / "images").rename(f / "pictures"), "holds no images and masks"),
    "no masks": (lambda f: (f / "masks").rename(f / "labels"), "has no folder masks"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks(tmp_path: Path, case: str) -> None:
    change, message = BAD_MASKS[case]
    write_masks(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        mask_folder.store(f"segmentation:{tmp_path}")


# ---- what holds for all --------------------------------------------------------------------------


def test_bytes_are_counted_as_numpy_would() -> None:
    from nas.datasets.labelled import Part, stored

    images = pictures(50, 7, 9)
    part = Part(images, np.arange(50) % 2)
    data = stored("x", 2, {"train": part, "validation": part, "test": part})
    np.testing.assert_allclose(data.mean, images.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.spread, images.std(axis=(0, 1, 2)), rtol=1e-6)
    whole = data.normalised().train.images
    np.testing.assert_allclose(whole.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(whole.std(axis=(0, 2, 3)), 1, atol=1e-5)
