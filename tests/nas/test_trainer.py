"""The tasks of a search as they run on a worker: numbers and bytes in, numbers and bytes out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn

from nas.datasets import load
from nas.half import Half
from nas.plan import plan
from nas.run import settings
from nas.schedule import BRIEF
from nas.trainer import judge_network, train_network


def task(**changes: Any) -> dict[str, Any]:
    planned = plan(settings(data="digits", max_params=1500))
    (entry, *_) = (e for c in planned.space.smallest() if hasattr(e := planned.solve(c), "key"))
    return {
        "network": planned.proxy(entry).to_dict(),
        "data": "digits",
        "fingerprint": load("digits").fingerprint,
        "schedule": asdict(replace(BRIEF, epochs=1)),
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "choices": {},
        "half": False,
        **changes,
    }


@pytest.mark.slow
def test_weights_come_back_through_the_result() -> None:
    asked = task()
    json.dumps(asked)
    result = train_network(asked)
    assert result["failure"] is None and isinstance(result["weights"], bytes)
    judged = judge_network({**asked, "weights": result["weights"]})
    assert 0 <= judged["accuracy"] <= 1
    other = train_network({**asked, "seed": 1})
    assert other["weights"] != result["weights"]


@pytest.mark.slow
def test_half_gives_the_same_weights_names_and_a_near_result() -> None:
    full, half = (train_network(task(half=way)) for way in (False, True))
    assert half["failure"] is None and half["weights"] != full["weights"]
    assert len(half["weights"]) == len(full["weights"])
    assert half["loss"] == pytest.approx(full["loss"], rel=0.2)


def test_half_computes_in_bfloat16_and_answers_in_float32() -> None:
    seen: list[torch.dtype] = []
    layer = nn.Conv2d(1, 2, 1)
    layer.register_forward_hook(lambda _, __, scores: seen.append(scores.dtype))
    scores = Half(layer)(torch.zeros(2, 1, 3, 3))
    assert seen == [torch.bfloat16] and scores.dtype == torch.float32
    assert layer.weight.dtype == torch.float32
