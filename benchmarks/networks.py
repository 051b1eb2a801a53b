"""Whole networks of cheap operators against the networks that they stand for.

Forward pass and training step (forward, cross-entropy, backward, SGD) of the rival, of ours by
plain torch, and of ours by our kernels. Beside the theoretical ratio, multiplications of the rival
over ours, stands the actual one, times of the rival over ours. Nothing is timed unless the network
by kernels is as near to float64 as by plain torch, up to a factor of three.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.cost import network_cost
from benchmarks.machine import RESULTS, machine, store
from benchmarks.suite.case import computing
from benchmarks.suite.clock import Clock, Ready, clock
from benchmarks.suite.figures import described
from kernels import choice
from kernels.backends import MissingComponentError
from spaces.layout import network

SLACK = 3.0
"""How much larger than plain torch's the error of the kernels' network may be."""
MODES = ("rival", "plain", "kernels")
LAST = torch.channels_last


class Pair(NamedTuple):
    """Layouts, the side of the image where each was published, classes, the batch on a GPU."""

    name: str
    ours: str
    rival: str
    sides: tuple[int, int]
    classes: int
    batch: int = 64


PAIRS = (
    Pair("L", "Factorized(L)", "VGG(16)", (221, 224), 1000),
    Pair("M", "Factorized(M)", "ResNet(34)", (221, 224), 1000),
    Pair("N", "Factorized(N)", "ResNet(50)", (224, 224), 1000),
    Pair(
        "lean",
        "LeanResNet(Res24, LEAN(g=16,s=5))",
        "LeanResNet(Res24, STD)",
        (32, 32),
        10,
        batch=1024,
    ),
    Pair("structured", "ResNet(Struct-18-A)", "ResNet(18)", (224, 224), 1000),
)
CPU_SHARE = 32
"""A CPU gets a batch that many times smaller."""


def main(arguments: Sequence[str]) -> int:
    """0; 1 if a network is wrong; 4 if a component is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks networks", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--kind", choices=["bf16", "tf32", "fp32"], help="default fp32, GPU bf16")
    parser.add_argument("--only", nargs="*", choices=[p.name for p in PAIRS], help="of the pairs")
    parser.add_argument("--size", type=int, help="side of the images, default as published")
    parser.add_argument("--batch", type=int, help="images, default as stated in the table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    asked = parser.parse_args(arguments)

    try:
        timer = clock(asked.device, asked.rounds, window=0.2)
    except MissingComponentError as error:
        print(error, file=sys.stderr)
        return 4
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    kind = asked.kind or ("fp32" if asked.device == "cpu" else "bf16")
    about = machine(("torch", "numba", "numpy")) | {"device": described(timer.device)}
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"threads: {asked.threads}\nprecision: {kind}\n\n{HEAD}")
    rows, wrong = [], []
    for pair in PAIRS:
        if asked.only is not None and pair.name not in asked.only:
            continue
        share = CPU_SHARE if asked.device == "cpu" else 1
        sides = (asked.size,) * 2 if asked.size else pair.sides
        pair = pair._replace(sides=sides, batch=asked.batch or pair.batch // share)
        row = Bout(pair, kind, timer).row()
        rows.append(row)
        if row["wrong"]:
            wrong.append(row["wrong"])
        else:
            print("\n".join(lines(row)), flush=True)
    result = {
        "machine": about,
        "threads": asked.threads,
        "kind": kind,
        "networks": rows,
        "wrong": wrong,
    }
    print(f"\nwritten to {store(result, asked.out / f'networks-{asked.device}.json')}")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


class Bout:
    """A network of ours and its rival."""

    def __init__(self, pair: Pair, kind: str, clock: Clock) -> None:
        self.pair, self.kind, self.clock = pair, kind, clock
        self.device = clock.device
        texts = (pair.ours, pair.rival)
        self.networks = [
            network(text, (3, side, side), pair.classes)
            for text, side in zip(texts, pair.sides, strict=True)
        ]
        images = [torch.randn(pair.batch, 3, side, side) for side in pair.sides]
        self.ours, self.rival = (x.to(self.device).to(memory_format=LAST) for x in images)
        self.labels = torch.randint(pair.classes, (pair.batch,)).to(self.device)

    def row(self) -> dict[str, Any]:
        """Everything about the pair, `wrong` empty where it is right."""
        costs = [network_cost(network) for network in self.networks]
        row: dict[str, Any] = {
            **self.pair._asdict(),
            "mults": [cost.mults for cost in costs],
            "params": [cost.params for cost in costs],
            "theoretical": costs[1].mults / costs[0].mults,
        }
        with computing(self.kind):
            module = self._placed(self.networks[0].module())
            errors = self._errors(module)
            row["errors"], row["wrong"] = errors, ""
            if not errors["kernels"] <= SLACK * max(errors["plain"], 1e-6):
                row["wrong"] = f"{self.pair.ours}: {errors}"
                return row
            choice.record(clear=True)
            rival = self._placed(self.networks[1].module())
            for what, make in (("forward", self._forward), ("training", self._step)):
                row[what] = self._seconds(make, module, rival)
            row["served"] = choice.record()
        return row

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(self.device).to(memory_format=LAST)

    def _errors(self, module: nn.Module) -> dict[str, float]:
        """Relative root mean square of the scores against float64, as evaluated."""
        module.eval()
        found = {}
        with torch.no_grad():
            double = copy.deepcopy(module).double()
            x = self.ours[:2]
            expected = self._by("plain", lambda: double(x.double()))
            for mode in ("plain", "kernels"):
                with self._precision():
                    y = self._by(mode, lambda: module(x))
                error = (y.double() - expected).square().mean() / expected.square().mean()
                found[mode] = error.sqrt().item()
        return found

    def _seconds(
        self, make: Callable[..., Ready], module: nn.Module, rival: nn.Module
    ) -> dict[str, float]:
        ready: dict[str, Ready] = {
            "rival": make("plain", rival, self.rival),
            "plain": make("plain", module, self.ours),
            "kernels": make("kernels", module, self.ours),
        }
        return self.clock.seconds(ready)

    def _by(self, mode: str, function: Callable[[], Tensor]) -> Tensor:
        """By plain torch, or by what serves best."""
        with choice.using("torch") if mode == "plain" else nullcontext():
            return function()

    def _precision(self) -> Any:
        """Autocast where a half precision is asked for."""
        on = self.kind == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on)

    def _forward(self, mode: str, module: nn.Module, x: Tensor) -> Ready:
        def run() -> object:
            module.eval()
            with torch.no_grad(), self._precision():
                return self._by(mode, lambda: module(x))

        return lambda: run

    def _step(self, mode: str, module: nn.Module, x: Tensor) -> Ready:
        """Forward, loss, backward, an SGD step that leaves the weights nearly as they are."""

        def ready() -> Callable[[], object]:
            own = copy.deepcopy(module).train()
            optimiser = torch.optim.SGD(own.parameters(), lr=1e-9, momentum=0.9)

            def loss() -> Tensor:
                with self._precision():
                    scores = own(x)
                return functional.cross_entropy(scores.float(), self.labels)

            def run() -> object:
                optimiser.zero_grad()
                self._by(mode, loss).backward()
                return optimiser.step()

            return run

        return ready


HEAD = (
    f"{'network':38}{'image':>6}{'batch':>7}{'M mults':>9}{'':3}{'forward ms':>11}"
    f"{'ratio':>7}{'training ms':>13}{'ratio':>7}"
)


def lines(row: dict[str, Any]) -> list[str]:
    """Three lines: the rival, ours by plain torch, ours by kernels; ratios to the rival."""
    found = []
    ours, rival = row["mults"]
    for mode in MODES:
        text, side = (
            (row["rival"], row["sides"][1]) if mode == "rival" else (row["ours"], row["sides"][0])
        )
        label = (
            text if mode == "rival" else f"  {text}" if mode == "plain" else "    by our kernels"
        )
        mults = rival if mode == "rival" else ours
        cells = ""
        for what, width in (("forward", 11), ("training", 13)):
            seconds = named(row[what], mode)
            ratio = named(row[what], "rival") / seconds
            cells += f"{seconds * 1e3:{width}.1f}{ratio:7.2f}"
        found.append(f"{label:38}{side:6}{row['batch']:7}{mults / 1e6:9.0f}   {cells}")
    theory = f"theoretical ratio {row['theoretical']:.1f}"
    return [*found, f"    {theory}"]


def named(seconds: dict[str, float], mode: str) -> float:
    """Of a mode, also where no graph could be captured."""
    return next(time for name, time in seconds.items() if name.startswith(mode))
