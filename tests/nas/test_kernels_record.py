"""Searched networks train on our kernels, and the run says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import choice
from nas.candidates import Candidate, Task
from nas.datasets import load
from nas.result import listed
from nas.run import Record, read_record, settings
from nas.schedule import BRIEF
from nas.search import search
from nas.trainer import Trainer, train_network
from spaces.design import parse

torch.set_num_threads(1)


def task(design: str) -> dict[str, Any]:
    """A training of one network for one epoch, as the driver hands it over."""
    data = load("digits")
    shape = data.shape
    around = Task((shape.channels, shape.height, shape.width), shape.classes)
    return {
        "network": Candidate(parse(design), (1,)).sized(around, 16).to_dict(),
        "data": "digits",
        "fingerprint": data.fingerprint,
        "schedule": asdict(replace(BRIEF, epochs=1)),
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "half": False,
        "choices": {},
    }


@pytest.mark.parametrize(
    ("design", "operation"),
    [("LEAN(q=1,s=5)", "lean"), ("STRUCT(c=1/2,n=2)", "structured"), ("RD", "explicit")],
)
def test_a_training_says_what_served(design: str, operation: str) -> None:
    result = train_network(task(design))
    served = result["kernels"]
    assert served[operation] and "torch" not in served[operation]
    with choice.using("torch"):
        plain = train_network(task(design))
    assert plain["kernels"][operation] == ["torch"]
    assert result["accuracy"] == pytest.approx(plain["accuracy"], abs=0.05)


def test_the_same_choices_give_the_same_bits() -> None:
    once, again = (train_network(task("LEAN(q=1)+SIC")) for _ in range(2))
    assert once["loss"] == again["loss"]
    assert once["weights"] == again["weights"]


def _train(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the driver gets of a training, without one."""
    assert given["choices"] == {}
    way = "llvm" if "LEAN" in str(given["network"]) else "convolution"
    result = {"accuracy": 0.5, "loss": 1.0, "seconds": 0.0, "weights": b""}
    return {**result, "kernels": {"lean": [way]}}


def _judge(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"accuracy": 0.5, "loss": 1.0}


def test_the_run_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.driver.write_winner", lambda *_: None)
    asked = settings(data="digits", max_params=5000, trials=2, finalists=1, seeds=1)
    result = search(asked, tmp_path / "run", trainer=Trainer(_train, _judge))
    assert read_record(tmp_path / "run").kernels == {"lean": ["convolution", "llvm"]}
    assert "kernels: lean by convolution and llvm" in result.notes


def test_a_run_of_before_has_no_kernels() -> None:
    record = Record(
        settings=settings(),
        schedule={},
        data_fingerprint="",
        versions={},
        machine={},
        created="",
    )
    old = json.loads(record.model_dump_json())
    del old["kernels"], old["choices"]
    assert Record.model_validate(old).kernels == {}
    assert listed({}) == ""
