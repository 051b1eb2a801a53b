"""Real training: resumed to the bit, logged, in bfloat16, on masks, clear where it cannot."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_trainer import FAKE
from PIL import Image
from safetensors.torch import load_file
from test_datasets_formats import write_cifar10
from torch import nn

from nas.candidates import Candidate, Sized, Task
from nas.cli import run
from nas.datasets.labelled import IGNORED, Part, Shape, Stored, stored
from nas.exports import export
from nas.files import RunError
from nas.run import settings
from nas.search import search
from nas.segmentation import constant_mean_iou
from nas.training import checkpoint
from nas.training.feed import Feed
from nas.training.long import BEST, LAST, Conditions, TrainingError, measure, train_long
from nas.training.rates import Epoch
from nas.training.recipes import Recipe, recipe
from spaces.design import parse

torch.set_num_threads(1)
THREADS = ("--threads", "1")


def blobs(count: int = 48, pixelwise: bool = False) -> Stored:
    """Two classes: dark and bright squares on a noisy ground."""
    values = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = values.integers(90, 110, (count, 8, 8, 3), dtype=np.uint8)
    images[:, 2:6, 2:6] = np.where(labels, 200, 20)[:, None, None, None]
    truth = labels
    if pixelwise:
        truth = np.zeros((count, 8, 8), np.int64)
        truth[:, 2:6, 2:6] = 1 + labels[:, None, None]
        truth[:, 0, 0] = IGNORED
    rows = {"train": slice(0, 32), "validation": slice(32, 40), "test": slice(40, 48)}
    parts = {name: Part(images[at], truth[at]) for name, at in rows.items()}
    return stored("blobs", 3 if pixelwise else 2, parts)


def network(classes: int = 2, pixelwise: bool = False) -> nn.Module:
    """With dropout and normalisation, which carry state between steps."""
    torch.manual_seed(0)
    head = nn.Conv2d(8, classes, 1)
    end = [head] if pixelwise else [head, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), *end
    )


def short(name: str = "leanfield", task: Any = "classification", epochs: int = 4) -> Recipe:
    rate = 0.02 if task == "classification" else 0.01
    return recipe(name, task, epochs=epochs, batch=8, learning_rate=rate)


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Callable[[], None]:
    left = [step]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError

    return check


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def timeless(past: list[Epoch]) -> list[Epoch]:
    return [epoch._replace(seconds=0.0) for epoch in past]


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 6, 15])
@pytest.mark.parametrize("name", ["leanfield", "fog", "lowcost", "factorized"])
def test_stopped_anywhere_and_resumed_equals_undisturbed(
    tmp_path: Path, name: str, steps: int
) -> None:
    data, chosen, conditions = blobs(), short(name), Conditions(seed=3, flip=True)
    whole, parts = network(), network()
    whole_past = train_long(whole, data, chosen, tmp_path / "a", conditions)
    with pytest.raises(StoppedError):
        train_long(parts, data, chosen, tmp_path / "b", conditions, check=stop_at(steps))
    fresh = network()
    past = train_long(fresh, data, chosen, tmp_path / "b", conditions)
    assert timeless(past) == timeless(whole_past)
    assert weights(fresh) == weights(whole)
    for file in (LAST, BEST):
        other = load_file(tmp_path / "b" / file)
        for key, value in load_file(tmp_path / "a" / file).items():
            assert torch.equal(value, other[key]), key


def test_stopped_between_best_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, chosen = blobs(), short()
    whole = train_long(network(), data, chosen, tmp_path / "a")
    write, calls = checkpoint.write, [0]

    def dies(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise StoppedError
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write", dies)
    with pytest.raises(StoppedError):
        train_long(network(), data, chosen, tmp_path / "b")
    assert timeless(train_long(network(), data, chosen, tmp_path / "b")) == timeless(whole)


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    one, other = network(), network()
    train_long(one, blobs(), short(), tmp_path / "a", Conditions(seed=1))
    train_long(other, blobs(), short(), tmp_path / "b", Conditions(seed=2))
    assert weights(one) != weights(other)


def test_the_generators_of_torch_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    model = network()
    torch.set_rng_state(before)
    train_long(model, blobs(), short(epochs=1), tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)


# ---- what it does --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_learns(tmp_path: Path, precision: Any) -> None:
    model = network()
    conditions = Conditions(precision=precision)
    past = train_long(model, blobs(), short(epochs=8), tmp_path, conditions)
    assert [epoch.epoch for epoch in past] == list(range(1, 9))
    assert max(epoch.accuracy for epoch in past) == 1
    test = measure(model, Feed(blobs(), "test", torch.device("cpu")), 2, conditions)
    assert test.accuracy == 1
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bf16_is_used(tmp_path: Path) -> None:
    seen = []
    model = network()
    model[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    train_long(model, blobs(), short(epochs=1), tmp_path, Conditions(precision="bf16"))
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("name", ["leanfield", "lean"])
def test_it_learns_to_segment(tmp_path: Path, name: str) -> None:
    data, model = blobs(pixelwise=True), network(3, pixelwise=True)
    past = train_long(model, data, short(name, "segmentation", 12), tmp_path)
    truth = data.parts["validation"].labels
    constant = constant_mean_iou(truth[truth != IGNORED])
    assert max(epoch.score for epoch in past) > 1.5 * constant
    assert all(epoch.score == epoch.mean_iou for epoch in past)


def test_the_best_epoch_is_handed_over(tmp_path: Path) -> None:
    model = network()
    past = train_long(model, blobs(), short(epochs=6), tmp_path)
    best = max(past, key=lambda epoch: epoch.score)
    validation = Feed(blobs(), "validation", torch.device("cpu"))
    found = measure(model, validation, 2, Conditions())
    assert found == (best.validation_loss, best.accuracy, None)


def test_images_stay_bytes() -> None:
    data = blobs()
    feed = Feed(data, "train", torch.device("cpu"))
    assert feed._images.dtype == torch.uint8
    assert feed._images.data_ptr() == data.parts["train"].images.ctypes.data
    images, labels = feed.raw(torch.tensor([3, 5]))
    expected = data.normalised().train
    np.testing.assert_allclose(feed.normalised(images), expected.images[[3, 5]], atol=1e-6)
    assert labels.tolist() == expected.labels[[3, 5]].tolist()


def test_a_training_that_diverges(tmp_path: Path) -> None:
    wild = recipe("lowcost", "classification", epochs=3, batch=8, learning_rate=1e30)
    with pytest.raises(
        TrainingError, match=r"epoch \d of 3 ended.*a lower learning rate than 1e\+30"
    ):
        train_long(network(), blobs(), wild, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", pickle.dumps({"model": 1}), (2**40).to_bytes(8, "little") + b"{}"]
)
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LAST).write_bytes(content)
    with pytest.raises(RunError, match=r"last\.safetensors is not a checkpoint of a training"):
        train_long(network(), blobs(), short(), tmp_path)


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    train_long(network(), blobs(), short(epochs=1), tmp_path)
    with pytest.raises(RunError, match="is of another network"):
        train_long(network(3), blobs(), short(), tmp_path)


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def design(here: Path) -> str:
    """An exported design for digits, as JSON."""
    sized = Sized(Candidate(parse("DW+PW"), (1,)), Task((1, 8, 8), 10), 8)
    (path,) = export(sized, None, here / "mine", "json")
    return str(path)


def command(text: str) -> int:
    """The exit code of a command line without quotes; on one thread, unless it is resumed."""
    return run([*text.split(" "), *([] if "--resume" in text else THREADS)])


def small(folder: Path, seed: int = 0) -> None:
    """data.npz: 30 colour images in 3 classes."""
    images = np.random.default_rng(seed).integers(0, 256, (30, 16, 12, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train_images=images, train_labels=np.arange(30) % 3)


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_train_a_rank_of_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(data="digits", max_params=1500, trials=2, finalists=1, seeds=1)
    search(chosen, here / "run", trainer=FAKE)
    assert command("train run --rank 2 --epochs 2 --out deep --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["finished"], told["epochs"], told["epochs_asked"]) == (True, 2, 2)
    log = lines(here / "deep" / "log.csv")
    assert [line["epoch"] for line in log] == ["1", "2"]
    assert {float(line["accuracy"]) for line in log} >= {told["best"]["accuracy"]}
    (code,) = (here / "deep").glob("*.py")
    ran = subprocess.run([sys.executable, "-I", code], capture_output=True, text=True, check=True)
    assert "params" in ran.stdout
    assert json.loads((here / "deep" / "result.json").read_text()) == told
    assert command("train run --rank 99 --epochs 1") == 2
    assert "run has no rank 99; valid ranks are 1 to" in capsys.readouterr().err


def test_a_design_for_other_data(here: Path, design: str) -> None:
    small(here)
    assert command(f"train {design} --data data.npz --epochs 1 --out deep") == 0
    plan = json.loads((here / "deep" / "train.json").read_text())["plan"]
    assert plan["subject"]["entry"]["input"] == [3, 16, 12]
    assert plan["subject"]["entry"]["classes"] == 3


@pytest.mark.parametrize(("option", "flip"), [("", True), (" --no-flip", False)])
def test_cifar_is_mirrored_unless_told_not_to(
    here: Path, design: str, option: str, flip: bool
) -> None:
    write_cifar10(here / "cifar")
    assert command(f"train {design} --data cifar10:cifar --epochs 1 --out deep{option}") == 0
    plan = json.loads((here / "deep" / "train.json").read_text())["plan"]
    assert plan["flip"] is flip


def test_a_network_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(here)
    words = ["--data", "data.npz", "--epochs", "1", "--out", "deep"]
    code = run(["train", "LowCost(A, DW+PW)", *words, *THREADS])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "1 of 1 epochs" in told.out
    assert not list((here / "deep").glob("*.py"))


@pytest.mark.parametrize("what", ["design", "UNet(small, DW+PW)"])
def test_segmentation(
    here: Path, design: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = blobs(pixelwise=True)
    for part in ("train", "validation", "test"):
        for name in ("images", "masks"):
            (here / "set" / part / name).mkdir(parents=True)
        content = data.parts[part]
        for row, (image, labels) in enumerate(zip(content.images, content.labels, strict=True)):
            mask = np.where(labels == IGNORED, 255, labels).astype(np.uint8)
            Image.fromarray(image).save(here / "set" / part / "images" / f"{row}.png")
            Image.fromarray(mask).save(here / "set" / part / "masks" / f"{row}.png")
    target = design if what == "design" else what
    words = ["--data", "segmentation:set", "--epochs", "4", "--batch", "8", "--out", "deep"]
    assert run(["train", target, *words, "--json", *THREADS]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["best"]["mean_iou"] > 0.3
    assert 0 < told["test_mean_iou"] <= 1
    assert all(line["mean_iou"] for line in lines(here / "deep" / "log.csv"))


def test_tensorboard(here: Path, design: str) -> None:
    pytest.importorskip("tensorboard", reason="the extra [data] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert command(f"train {design} --data digits --epochs 2 --out deep --tensorboard") == 0
    events = EventAccumulator(str(here / "deep" / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("accuracy")]
    log = [(int(e["epoch"]), float(e["accuracy"])) for e in lines(here / "deep" / "log.csv")]
    assert [step for step, _ in found] == [step for step, _ in log] == [1, 2]
    assert [value for _, value in found] == pytest.approx([value for _, value in log])


def test_without_tensorboard(
    here: Path, design: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert command(f"train {design} --data digits --epochs 1 --out deep --tensorboard") == 4
    assert "pip install 'leanfield[data]'" in capsys.readouterr().err
    assert not (here / "deep").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("DESIGN --epochs 1", "does not say which data to train on; add --data"),
        ("nowhere --data digits", "'nowhere' is no run folder, no exported .json file and no net"),
        ("DESIGN --data digits --recipe leen", "no recipe 'leen' for classification; valid are"),
        ("DESIGN --data segmentation:x --recipe fog", "no recipe 'fog' for segmentation, which"),
        ("DESIGN --data digits --device tpu", "no device 'tpu'; valid are cpu, cuda"),
        ("DESIGN --data digits --precision fp8", "no precision 'fp8'; valid are float32 and bf16"),
        ("DESIGN --data digits --learning-rate -1", "learning_rate is -1.0; it must be positive"),
        ("DESIGN --data digits --out mine", "mine exists already; choose another folder"),
        ("DESIGN --data nothing", "no data set 'nothing'"),
        ("--data digits", "say what to train: a run folder"),
        (
            "DESIGN --resume x --epochs 3",
            "--resume takes everything from x; leave out --epochs, RUN",
        ),
        ("--resume x", "x is not the folder of a training: it has no train.json"),
    ],
)
def test_what_cannot_be(
    here: Path, design: str, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(f"train {words.replace('DESIGN', design)}") == 2
    assert message in capsys.readouterr().err


def test_changed_data_is_noticed(
    here: Path, design: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small(here)
    assert command(f"train {design} --data data.npz --epochs 1 --out deep") == 0
    small(here, seed=1)
    assert run(["train", "--resume", "deep"]) == 2
    assert "data.npz: the data has changed since the training began" in capsys.readouterr().err


def test_two_trainings_in_one_folder(
    here: Path, design: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    assert command(f"train {design} --data digits --epochs 1 --out deep") == 0
    with (here / "deep" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(["train", "--resume", "deep"]) == 2
    assert "deep is in use by another training" in capsys.readouterr().err
    assert run(["train", "--resume", "deep"]) == 0


def started(*words: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "nas.cli", "train", *words],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments_equals_undisturbed(here: Path, design: str) -> None:
    """SIGKILL twice and Ctrl-C once, from the command line."""
    options = "--data digits --recipe lowcost --epochs 60 --threads 1 --out"
    words = [design, *options.split(" ")]
    assert started(*words, "whole").wait(timeout=300) == 0
    chance, killed = random.Random(0), 0
    for number, kind in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
        begun = (here / "parts" / "train.json").exists()
        process = started("--resume", "parts") if begun else started(*words, "parts")
        while process.poll() is None and len(log_of(here / "parts")) < 2 * number + 2:
            time.sleep(0.01)
        time.sleep(0.1 * chance.random())
        if process.poll() is None:
            process.send_signal(kind)
            out, error = process.communicate(timeout=60)
            killed += 1
            if kind == signal.SIGINT and process.returncode == 0:
                ended = "60 of 60 epochs" in out
                assert ended or "go on with leanfield train --resume parts" in out, error
    assert started("--resume", "parts").wait(timeout=300) == 0
    assert killed >= 2
    for file in (LAST, BEST):
        one, other = (load_file(here / name / file) for name in ("whole", "parts"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    logs = [lines(here / name / "log.csv") for name in ("whole", "parts")]
    for log in logs:
        for line in log:
            del line["seconds"]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 60


def log_of(folder: Path) -> list[dict[str, str]]:
    path = folder / "log.csv"
    return lines(path) if path.exists() else []


def test_the_shape_of_the_made_up_data() -> None:
    assert blobs().shape == Shape(3, 8, 8, 2)
