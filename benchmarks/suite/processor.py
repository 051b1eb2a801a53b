"""The comparisons on the CPU: checked against float64, timed in turns, with means and aims."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.machine import machine, store
from benchmarks.suite.case import OURS
from benchmarks.suite.comparisons import PARTS, Comparison
from benchmarks.suite.figures import crowded
from benchmarks.suite.plot import plot
from benchmarks.timing import allocator, arithmetic, bandwidth, interleaved
from kernels import choice

PACKAGES = ("torch", "numba", "llvmlite", "numpy")
AIMS = {
    "lean forward / eager last": 1.2,
    "lean forward / eager first": 2.0,
    "lean forward / eager last, worst": 0.95,
    "lean both / eager last": 1.1,
    "lean both / eager first": 1.6,
    "structured c=C/2 / dense, from 128": 2.0,
}


class Run:
    """All parts that are asked for, with the ceilings of this machine."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.options = options
        self.peak = arithmetic()
        self.result: dict[str, Any] = {
            "machine": machine(PACKAGES),
            "threads": options.threads,
            "allocator": allocator(),
            "clock": "thread time" if options.threads == 1 else "wall",
            "peak": self.peak,
            "rows": [],
            "wrong": [],
        }

    def run(self) -> int:
        """0, or 1 if an aim is missed or a result is wrong."""
        about = self.result["machine"]
        print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
        print(crowded(about, "cpu"), end="")
        for key in ("threads", "allocator", "clock"):
            print(f"{key}: {self.result[key]}")
        print(f"peak of multiply-adds: {self.peak / 1e9:.0f} GFLOP/s")
        for name in self.options.only:
            layers, comparisons = PARTS[name]
            print(f"\n{name}: us, and times as fast as each other")
            for layer in layers[-self.options.layers :] if self.options.layers else layers:
                for case in comparisons(layer, not self.options.no_compile):
                    self.compare(case)
        means = means_of(self.result["rows"])
        self.result["means"] = means
        print("\ngeometric means")
        for what, mean in means.items():
            aim = AIMS.get(what)
            print(f"  {what:44}{mean:6.2f}" + (f"  (aim {aim})" if aim else ""))
        path = self.options.out / f"kernels-cpu-{self.options.threads}.json"
        print(f"written to {store(self.result, path)}")
        if self.options.plot:
            print(f"drawn in {plot(self.result, self.options.plot)}")
        for line in self.result["wrong"]:
            print(f"wrong: {line}")
        missed = [what for what, aim in AIMS.items() if means.get(what, math.inf) < aim]
        return 1 if missed or self.result["wrong"] else 0

    def compare(self, case: Comparison) -> None:
        """Check ours, time all, print and keep the rows."""
        choice.record(clear=True)
        ours, layer = case.peers[OURS].forward(), case.layer
        error = float((ours() - case.expected).abs().max() / case.expected.abs().max())
        if not error <= 1e-6 * math.sqrt(layer.channels):
            self.result["wrong"].append(f"{case.name} {layer}: relative error {error:.1e}")
        seconds = 2 * 4 * layer.elements / bandwidth(layer.elements)
        floor = max(case.operations / self.peak, seconds)
        for direction in ("forward", "both"):
            functions = {
                name: peer.forward() if direction == "forward" else peer.both(case.dy)
                for name, peer in case.peers.items()
            }
            times = interleaved(functions, self.options.rounds, self.options.window)
            least = times[OURS].least
            row = {
                "operation": case.name,
                "layer": str(layer),
                "batch": layer.batch,
                "direction": direction,
                "seconds": {peer: t._asdict() for peer, t in times.items()},
                "ratios": {p: t.least / least for p, t in times.items() if p != OURS},
                "floor": floor if direction == "forward" else None,
                "error": error,
                "served": sorted({way for ways in choice.record().values() for way in ways}),
            }
            self.result["rows"].append(row)
            print(line_of(row))


def line_of(row: dict[str, Any]) -> str:
    """As it is printed, in microseconds."""
    times = {name: time["least"] for name, time in row["seconds"].items()}
    ours = times.pop(OURS)
    peers = "  ".join(f"{name} {t * 1e6:.0f} ({t / ours:.2f})" for name, t in times.items())
    above = f"  {ours / row['floor']:.1f} x floor" if row["floor"] else ""
    head = f"{row['operation']:17}{row['layer']:8}{row['direction']:8}"
    return f"{head} ours {ours * 1e6:.0f}{above}  {peers}"


def means_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric means of the ratios over the layers, and the worst of lean's."""
    found = {}
    groups = dict.fromkeys((r["operation"], r["direction"]) for r in rows)
    for operation, direction in groups:
        own = [r for r in rows if (r["operation"], r["direction"]) == (operation, direction)]
        for peer in own[0]["ratios"]:
            what = f"{operation} {direction} / {peer}"
            found[what] = mean(r["ratios"][peer] for r in own)
        if operation == "lean" and direction == "forward":
            worst = min(r["ratios"]["eager last"] for r in own)
            found["lean forward / eager last, worst"] = worst
        wide = [r for r in own if int(r["layer"].partition("@")[0]) >= 128]
        if operation == "structured c=C/2" and direction == "forward" and wide:
            what = "structured c=C/2 / dense, from 128"
            found[what] = mean(r["ratios"]["dense"] for r in wide)
    return found


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
