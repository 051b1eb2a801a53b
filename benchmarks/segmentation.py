"""U-nets with dense and with lean convolutions, on digits pasted on a canvas.

Aims: the lean net has at most a fifth of the dense net's parameters and reaches at least 0.9 of its
mean IoU on the test split; both reach at least twice that of the best constant predictor. Both get
the same data, schedule and seed; the schedule was chosen on the validation split. Seeds 0, 1 and 2
gave 0.935, 0.922 and 0.944 of the dense mean IoU.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import RESULTS, machine, store
from nas.digit_canvas import CLASSES, draw
from nas.schedule import Schedule
from nas.segmentation import class_iou, confusion, constant_mean_iou, mean_iou
from spaces.layout import network

if TYPE_CHECKING:
    from nas.datasets import Dataset

PACKAGES = ("numpy", "scikit-learn", "torch")
NETWORKS = {"dense": "UNet(small, STD)", "lean": "UNet(small, LEAN(g=16,s=5))"}
AIMS = {"params": 0.2, "mean IoU": 0.9, "constant": 2.0}


def main(arguments: Sequence[str]) -> int:
    """0, or 1 if an aim is missed or a training diverges."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks segmentation", description=__doc__)
    parser.add_argument("--canvases", type=int, default=1000, help="for training")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    for name, text in NETWORKS.items():
        parser.add_argument(f"--{name}", default=text, help=f"layout, default {text}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    options = parser.parse_args(arguments)

    about = machine(PACKAGES)
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    rest = max(2, options.canvases // 5)
    data = draw(options.canvases, rest, rest)
    schedule = Schedule(options.epochs, batch=16, optimiser="adamw", learning_rate=0.01)
    print(f"\n{options.canvases} canvases to train on, {rest} to test on; seed {options.seed}")
    print(f"{schedule}\none thread\n")
    found = {}
    for name in NETWORKS:
        text = getattr(options, name)
        print(f"{name}: {text}", flush=True)
        found[name] = run(text, data, schedule, options.seed)
        if (failure := found[name]["failure"]) is not None:
            print(f"training diverged: {failure}")
            return 1
    constant = constant_mean_iou(data.test.labels)
    result = {
        "machine": about,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "canvases": options.canvases},
        "schedule": asdict(schedule),
        "seed": options.seed,
        "threads": 1,
        "classes": list(CLASSES),
        "networks": found,
        "constant_mean_iou": constant,
        "ratios": ratios(found, constant),
    }
    report(result)
    print(f"written to {store(result, options.out / 'segmentation.json')}")
    return 0 if all(reached(result["ratios"]).values()) else 1


def run(text: str, data: Dataset, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Train the network of a layout string on one thread, and judge it on the test split."""
    from nas.threads import threads
    from nas.train import predict, seeded, train

    shape = data.shape
    drawn = network(text, (shape.channels, shape.height, shape.width), shape.classes)
    with seeded(seed):
        module = drawn.module()
    with threads(1):
        outcome = train(module, data, schedule, seed)
        matrix = confusion(data.test.labels, predict(module, data.test), shape.classes)
    return {
        "layout": text,
        "params": sum(parameter.numel() for parameter in module.parameters()),
        "failure": outcome.failure,
        "seconds": outcome.seconds,
        "pixel_accuracy": {"validation": outcome.accuracy, "test": matrix.trace() / matrix.sum()},
        "mean_iou": mean_iou(matrix),
        "iou": class_iou(matrix).tolist(),
    }


def ratios(found: Mapping[str, Any], constant: float) -> dict[str, float]:
    """What the aims are about."""
    dense, lean = found["dense"], found["lean"]
    return {
        "params": lean["params"] / dense["params"],
        "mean IoU": lean["mean_iou"] / dense["mean_iou"],
        "constant": min(dense["mean_iou"], lean["mean_iou"]) / constant,
    }


def reached(found: Mapping[str, float]) -> dict[str, bool]:
    """Parameters must be few, the others many."""
    return {
        name: found[name] <= aim if name == "params" else found[name] >= aim
        for name, aim in AIMS.items()
    }


def report(result: Mapping[str, Any]) -> None:
    """IoU of each class, and the ratios beside their aims."""
    networks, found = result["networks"], result["ratios"]
    print(f"\n{'test split':16}" + "".join(f"{name:>12}" for name in networks))
    for i, label in enumerate(result["classes"]):
        print(
            f"{'IoU ' + label:16}" + "".join(f"{net['iou'][i]:12.3f}" for net in networks.values())
        )
    for key, style in (("mean_iou", "12.3f"), ("params", "12,"), ("seconds", "12.0f")):
        row = "".join(format(net[key], style) for net in networks.values())
        print(f"{key.replace('_iou', ' IoU'):16}{row}")
    print(f"{'constant, mean':16}{result['constant_mean_iou']:12.3f}\n")
    sense = {"params": "lean / dense, at most", "mean IoU": "lean / dense, at least"}
    for name, fine in reached(found).items():
        text = sense.get(name, "times the constant's mean IoU, the worse of both, at least")
        print(f"{name:10}{found[name]:8.3f}  ({text} {AIMS[name]}: {'yes' if fine else 'NO'})")
