"""Every source gives real, disjoint, normalised splits; what cannot serve is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import nas.datasets
from nas.datasets import SHARE, DataError, Dataset, Shape, describe, hard_digits, load, names

Arrays = dict[str, NDArray[Any]]


def arrays(per_class: int = 10, classes: int = 3, *size: int) -> Arrays:
    """A train part in the MedMNIST layout, each image unique."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes, dtype=np.uint8), per_class)
    images = random.integers(0, 256, (len(labels), *(size or (6, 5))), dtype=np.uint8)
    return {"train_images": images, "train_labels": labels[:, None]}


def saved(folder: Path, content: Arrays) -> str:
    path = folder / "data.npz"
    np.savez(path, **content)  # type: ignore[arg-type]
    return str(path)


def picture(path: Path, value: int, size: tuple[int, int] = (5, 6), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def album(root: Path, per_class: int = 5, mode: str = "L") -> Path:
    for label, name in enumerate(("apple", "pear")):
        for i in range(per_class):
            picture(root / name / f"{i}.png", 20 * i + label, mode=mode)
    return root


def standard(images: NDArray[Any]) -> NDArray[Any]:
    """Each channel of each image by its own mean and deviation, which normalisation leaves."""
    mean, spread = images.mean(axis=(2, 3)), images.std(axis=(2, 3))
    return (images - mean[..., None, None]) / spread[..., None, None]


def rows(data: Dataset) -> list[set[bytes]]:
    return [{x.tobytes() for x in s.images} for s in (data.train, data.validation, data.test)]


@pytest.mark.parametrize("name", ["digits", "hard-digits"])
def test_embedded_sets(name: str) -> None:
    data, again = load(name), load(name)
    assert data.shape == describe(name)
    assert data.train.images.shape[1:] == (data.shape.channels, data.shape.height, data.shape.width)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    assert sum(len(split) for split in splits.values()) == 1797
    for part, split in splits.items():
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int64
        share = np.bincount(split.labels, minlength=10) / np.bincount(load(name).train.labels)
        assert len(split) == pytest.approx(1797 * SHARE[part], abs=2)
        assert np.ptp(share) < 0.02
    assert data.train.images.mean() == pytest.approx(0, abs=1e-5)
    assert data.train.images.std() == pytest.approx(1, abs=1e-5)
    assert data.fingerprint == again.fingerprint
    assert np.array_equal(data.validation.images, again.validation.images)
    assert "cut from the 1797 training images" in data.notes[0]


def test_splits_share_no_image() -> None:
    train, validation, test = rows(load("hard-digits"))
    assert len(train | validation | test) == 1797


def test_describe_needs_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    saved(tmp_path, arrays())
    album(tmp_path / "album")
    asked = ["digits", "hard-digits", f"{tmp_path}/data.npz", f"{tmp_path}/album"]
    code = (
        "import sys, nas.datasets as d\n"
        f"for source in {asked!r}: d.describe(source)\n"
        "print(*{'torch', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_describe_reads_no_pixels(tmp_path: Path) -> None:
    content = arrays(10, 3, 64, 64)
    path = Path(saved(tmp_path, content))
    pixels = content["train_images"].tobytes()
    damaged = path.read_bytes().replace(pixels, bytes(len(pixels)))
    path.write_bytes(damaged)
    assert describe(str(path)) == Shape(1, 64, 64, 3)
    with pytest.raises(DataError, match=r"not readable as a \.npz file"):
        load(str(path))


def test_a_new_file_is_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zebra_stripes.py").write_text(
        "import numpy as np\n"
        "from nas.datasets import Part, Shape\n"
        "NAME, ABOUT = 'stripes', 'two kinds of stripes'\n"
        "accepts = 'stripes'.__eq__\n"
        "def describe(source): return Shape(1, 2, 2, 2)\n"
        "def read(source):\n"
        "    images = np.arange(40).reshape(10, 2, 2)\n"
        "    return {'train': Part(images, np.arange(10) % 2)}\n"
    )
    monkeypatch.setattr(nas.datasets, "__path__", [*nas.datasets.__path__, str(tmp_path)])
    assert names()["stripes"] == "two kinds of stripes"
    assert load("stripes").shape == describe("stripes")
    monkeypatch.delitem(sys.modules, "nas.datasets.zebra_stripes")


def test_warp_keeps_an_image_that_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ANGLE": 0.0, "SCALES": (1.0, 1.0), "SHIFT": 0.0}.items():
        monkeypatch.setattr(hard_digits, name, value)
    images = np.random.default_rng(0).random((3, 7, 5))
    np.testing.assert_allclose(hard_digits.warp(images, np.random.RandomState(0)), images)


def test_warp_by_a_quarter_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SCALES": (1.0, 1.0), "SHIFT": 0.0}.items():
        monkeypatch.setattr(hard_digits, name, value)

    class Quarter(np.random.RandomState):
        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            return np.full(size, np.pi / 2 if high == hard_digits.ANGLE else high)

    images = np.random.default_rng(0).random((2, 6, 6))
    turned = hard_digits.warp(images, Quarter())
    np.testing.assert_allclose(turned, np.rot90(images, k=-1, axes=(1, 2)), atol=1e-12)


def test_doubling_is_torchs_bilinear_interpolation() -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).random((2, 5, 4))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images)[:, None], scale_factor=2, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(hard_digits.double(images), expected[:, 0].numpy())


@pytest.mark.parametrize("size", [(6, 5), (6, 5, 1), (6, 5, 3)])
def test_npz_in_gray_and_colour(tmp_path: Path, size: tuple[int, ...]) -> None:
    content = arrays(10, 3, *size)
    data = load(saved(tmp_path, content))
    assert data.shape == describe(data.name) == Shape(3 if size[2:] == (3,) else 1, 6, 5, 3)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [18, 6, 6]
    seen = np.concatenate([s.images for s in (data.train, data.validation, data.test)])
    labels = np.concatenate([s.labels for s in (data.train, data.validation, data.test)])
    given = content["train_images"].reshape(30, 6, 5, -1).transpose(0, 3, 1, 2)
    apart = np.abs(standard(seen)[:, None] - standard(given)).max(axis=(2, 3, 4))
    assert sorted(apart.argmin(axis=1)) == list(range(30))
    assert apart.min(axis=1).max() < 1e-4
    assert labels.tolist() == content["train_labels"][apart.argmin(axis=1), 0].tolist()
    np.testing.assert_allclose(data.train.images.mean(axis=(0, 2, 3)), 0, atol=1e-5)


def test_npz_with_given_parts_keeps_them(tmp_path: Path) -> None:
    content = arrays()
    for i, part in enumerate(("val", "test")):
        content[f"{part}_images"] = content["train_images"][i::4] // 2
        content[f"{part}_labels"] = content["train_labels"][i::4, 0]
    data = load(saved(tmp_path, content))
    assert data.notes == ()
    assert len(data.train) == 30
    assert data.validation.labels.tolist() == content["val_labels"].tolist()
    del content["val_images"], content["val_labels"]
    cut = load(saved(tmp_path, content))
    assert cut.notes[0].startswith("validation (6 images) cut from the 30 training images")
    assert len(cut.train) == 24
    assert not rows(cut)[0] & rows(cut)[1]
    assert np.array_equal(cut.test.labels, data.test.labels)
    assert cut.fingerprint != data.fingerprint


def test_fingerprint_notices_one_pixel_and_one_label(tmp_path: Path) -> None:
    content = arrays()
    before = load(saved(tmp_path, content)).fingerprint
    content["train_images"][3, 2, 2] ^= 1
    pixel = load(saved(tmp_path, content)).fingerprint
    content["train_labels"][[0, -1]] = content["train_labels"][[-1, 0]]
    label = load(saved(tmp_path, content)).fingerprint
    assert len({before, pixel, label}) == 3


def changed(key: str, value: Callable[[NDArray[Any]], Any]) -> Callable[[Arrays], Arrays]:
    return lambda content: content | {key: value(content[key])}


def spoiled(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def spoil(images: NDArray[Any]) -> NDArray[Any]:
        images = images.astype(np.float64)
        images[7, 1, 1] = value
        return images

    return spoil


IMAGES, LABELS = "train_images", "train_labels"
BAD_FILES: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "object images": (changed(IMAGES, lambda x: x.astype(object)), "train_images .*Python objects"),
    "object labels": (changed(LABELS, lambda x: x.astype(object)), "train_labels .*Python objects"),
    "one class": (changed(LABELS, lambda x: x * 0), r"one class only \(0\); at least 2"),
    "one sample": (lambda c: {k: v[:1] for k, v in c.items()}, "one class only"),
    "small class": (
        lambda c: {k: v[:22] for k, v in c.items()},
        "class 2 has 2 of the images of train; at least 3",
    ),
    "NaN": (changed(IMAGES, spoiled(np.nan)), r"1 of \d+ \w+ images hold NaN or infinite"),
    "inf": (changed(IMAGES, spoiled(np.inf)), r"1 of \d+ \w+ images hold NaN or infinite"),
    "over float32": (changed(IMAGES, spoiled(1e300)), "finite in float32"),
    "negative label": (changed(LABELS, lambda x: x.astype(int) - 1), "reach down to -1"),
    "gap": (changed(LABELS, lambda x: x * 2), "run up to 4, but no image has label 1"),
    "real labels": (changed(LABELS, lambda x: x * 0.5), "float64; valid are integer types"),
    "two labels": (changed(LABELS, lambda x: np.hstack([x, x])), r"\(30, 2\); valid are \(n,\)"),
    "no label axis": (changed(LABELS, lambda x: x[0, 0]), r"shape \(\); valid are \(n,\)"),
    "lengths": (changed(LABELS, lambda x: x[:-1]), "30 images and 29 labels"),
    "empty": (lambda c: {k: v[:0] for k, v in c.items()}, r"\(0, 6, 5\), so no pixels"),
    "no pixels": (changed(IMAGES, lambda x: x[:, :0]), r"\(30, 0, 5\), so no pixels"),
    "channels first": (changed(IMAGES, lambda x: x[:, None]), r"\(30, 1, 6, 5\); valid are \(n, h"),
    "flat": (changed(IMAGES, lambda x: x.reshape(30, 30)), r"\(30, 30\); valid are \(n, height"),
    "complex": (changed(IMAGES, lambda x: x * 1j), "complex128; valid are integers and reals"),
    "text": (changed(IMAGES, lambda x: x.astype("U4")), "<U4; valid are integers and reals"),
    "other names": (lambda c: {"x": c[IMAGES]}, "no array train_images and no .*; found x; valid"),
    "half a part": (lambda c: c | {"val_images": c[IMAGES]}, "no array val_labels; found"),
    "val class": (
        lambda c: c | {"val_images": c[IMAGES], "val_labels": c[LABELS] + 4},
        "validation labels reach 6; train has classes 0 to 2 only",
    ),
    "val size": (
        lambda c: c | {"val_images": c[IMAGES][:, 1:], "val_labels": c[LABELS]},
        r"a validation image has \(height, width, channels\) \(5, 5, 1\) and a train image \(6, 5,",
    ),
    "empty test": (
        lambda c: c | {"test_images": c[IMAGES][:0], "test_labels": c[LABELS][:0]},
        r"test images have shape \(0, 6, 5\)",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_npz(tmp_path: Path, case: str) -> None:
    change, message = BAD_FILES[case]
    source = saved(tmp_path, change(arrays()))
    with pytest.raises(DataError, match=message) as caught:
        load(source)
    assert str(caught.value).startswith(source)


def test_one_label_too_high_in_describe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="up to 202, but no image has label 2"):
        describe(saved(tmp_path, changed(LABELS, lambda x: x + 200 * (x == 2))(arrays())))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    for ask in (describe, load):
        with pytest.raises(DataError, match=r"data\.npz: not readable as a \.npz file"):
            ask(str(path))


@pytest.mark.parametrize("ask", [describe, load])
def test_unknown_names_and_paths(tmp_path: Path, ask: Callable[[str], object]) -> None:
    with pytest.raises(DataError, match=r"'hard-digit'.*did you mean 'hard-digits'.*FILE\.npz"):
        ask("hard-digit")
    with pytest.raises(DataError, match=r"no existing folder.*valid are digits, hard-digits"):
        ask(f"{tmp_path}/nowhere")
    with pytest.raises(DataError, match=r"nowhere\.npz: there is no such file"):
        ask(f"{tmp_path}/nowhere.npz")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_image_folder(tmp_path: Path, mode: str, channels: int) -> None:
    root = album(tmp_path / "fruit", mode=mode)
    (root / "apple" / "notes.txt").write_text("no image, ignored")
    (root / ".cache").mkdir()
    data = load(str(root))
    assert data.shape == describe(str(root)) == Shape(channels, 6, 5, 2)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [6, 2, 2]
    assert sorted(data.train.labels) == [0, 0, 0, 1, 1, 1]


def test_image_folder_with_parts(tmp_path: Path) -> None:
    album(tmp_path / "train", per_class=8)
    album(tmp_path / "test", per_class=2)
    data = load(str(tmp_path))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 4, 4]
    picture(tmp_path / "val" / "pear" / "0.png", 3)
    picture(tmp_path / "val" / "apple" / "0.png", 4)
    data = load(str(tmp_path))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [16, 2, 4]
    assert data.validation.labels.tolist() == [0, 1]
    assert data.notes == ()


def test_gray_among_coloured_images_is_widened(tmp_path: Path) -> None:
    root = album(tmp_path, mode="RGB")
    picture(root / "pear" / "0.png", 9)
    assert load(str(root)).shape.channels == 3


def of_two_sizes(root: Path) -> None:
    picture(album(root) / "pear" / "3.png", 1, size=(9, 7))


def with_colour(root: Path) -> None:
    picture(album(root) / "pear" / "3.png", 1, mode="RGB")


def of_two_depths(root: Path) -> None:
    deep = np.full((6, 5), 4000, dtype=np.uint16)
    Image.fromarray(deep).save(album(root) / "pear" / "3.png")


def torn(root: Path) -> None:
    path = album(root) / "pear" / "3.png"
    path.write_bytes(path.read_bytes()[:40])


def no_image(root: Path) -> None:
    (album(root) / "pear" / "3.png").write_text("hello")


def empty_class(root: Path) -> None:
    (album(root) / "quince").mkdir()


def stray_part(root: Path) -> None:
    album(root / "train")
    album(root / "holdout")


def unknown_class(root: Path) -> None:
    album(root / "train")
    picture(album(root / "val") / "plum" / "0.png", 1)


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda root: root, "at least two sub-folders.*found none"),
    "one class": (lambda root: picture(root / "apple" / "0.png", 1), r"found one \(apple\)"),
    "one image": (
        lambda root: album(root, per_class=1),
        "class 0 has 1 of the images of train; at least 3",
    ),
    "two sizes": (of_two_sizes, r"0\.png has 5x6 pixels and .*pear/3\.png has 9x7"),
    "colour": (with_colour, r"pear/3\.png is in colour and .*apple/0\.png"),
    "depth": (of_two_depths, r"pear/3\.png has pixels of type uint16 and .* of uint8"),
    "torn image": (torn, r"pear/3\.png: not readable as an image"),
    "text": (no_image, r"pear/3\.png: not readable as an image"),
    "empty class": (empty_class, "quince: no image in this class folder"),
    "stray part": (stray_part, "beside train, valid are .* found holdout, train"),
    "unknown class": (unknown_class, "validation part has a class 'plum'; train has apple, pear"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder(tmp_path: Path, case: str) -> None:
    change, message = BAD_FOLDERS[case]
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path))
