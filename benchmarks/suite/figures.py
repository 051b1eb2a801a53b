"""The run over cases: what is right is timed, printed beside floor and peers, and stored.

Rows of an earlier run on the same device stay in the file until they are measured anew, so that the
whole can be measured in parts.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from benchmarks.layers import FIGURE_5, Layer
from benchmarks.machine import machine, store
from benchmarks.suite.case import KINDS, OURS, Case, computing
from benchmarks.suite.ceilings import Ceilings, measured
from benchmarks.suite.clock import Clock, clock
from benchmarks.suite.operations import OPERATIONS, cases
from benchmarks.suite.plot import plot
from benchmarks.suite.ratios import PAPER, SMALL, ratios
from kernels import choice

PARTS = (*OPERATIONS, "ratios")
PACKAGES = ("torch", "numpy")
KEY = ("operation", "layer", "batch", "kind", "direction")
SHRINK = 4
"""Of maps on a CPU, so that all parts together take minutes."""
SAME = ("1 x 1 alone", "expanded")
"""Peers that do not replace the operation, left out of `best`."""


def options(parser: argparse.ArgumentParser) -> None:
    """What `python -m benchmarks kernels` takes for the cases here."""
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"with --device cuda or --figures: {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), help="precisions, default all")
    parser.add_argument("--batch", type=int, help="default 64 on a GPU and 1 on a CPU, where torch "
                        "has a slow 1 x 1 for one thread and fewer than 16 images")  # fmt: skip
    parser.add_argument("--shrink", type=int, help="divide the sides of maps by this, default 1 "
                        f"on a GPU and {SHRINK} on a CPU")  # fmt: skip


def run(asked: argparse.Namespace) -> int:
    """0, or 1 if a result is wrong. Raises MissingComponentError."""
    torch.set_num_threads(asked.threads)
    return Figures(asked, clock(asked.device, asked.rounds, asked.window)).run()


class Figures:
    """All parts that are asked for."""

    def __init__(self, asked: argparse.Namespace, clock: Clock) -> None:
        cpu = clock.device.type == "cpu"
        self.asked, self.clock = asked, clock
        self.kinds = tuple(asked.kinds or (("fp32",) if cpu else KINDS))
        if cpu and self.kinds != ("fp32",):
            raise SystemExit(f"--kinds {' '.join(self.kinds)}: a CPU is timed in fp32 only")
        batch = asked.batch or (1 if cpu else 64)
        shrink = asked.shrink or (SHRINK if cpu else 1)
        self.layers = tuple(
            Layer(layer.channels, max(1, layer.size // shrink), batch)
            for layer in (FIGURE_5[-asked.layers :] if asked.layers else FIGURE_5)
        )
        self.about = machine(PACKAGES) | {"device": described(clock.device)}
        self.path = asked.out / f"kernels-figures-{clock.device.type}.json"
        self.rows, self.ratios = self._earlier()
        self.wrong: list[str] = []
        self.begin = time.monotonic()

    def _earlier(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if not self.path.exists():
            return [], []
        found = json.loads(self.path.read_text())
        if found["machine"]["device"] != self.about["device"]:
            return [], []
        return found["rows"], found["ratios"]

    def run(self) -> int:
        print(*(f"{key}: {value}" for key, value in self.about.items()), sep="\n")
        print(crowded(self.about, self.clock.device.type), end="")
        ceilings = measured(self.clock, self.kinds)
        print(f"bandwidth: {ceilings.bandwidth / 1e9:.0f} GB/s")
        for kind, rate in ceilings.products.items():
            print(f"products in {kind}: {rate / 1e12:.2f} TFLOP/s")
        compile = not self.asked.no_compile
        for name in self.asked.parts:
            if name == "ratios":
                continue
            print(f"\n{name}: us, x floor, and times as fast as each other{self._elapsed()}")
            for make in cases(name, self.layers, self.kinds, self.clock.device, compile):
                try:
                    self._case(make(), ceilings)
                except (RuntimeError, ValueError) as error:  # a long run goes on
                    self.wrong.append(f"{name}: {type(error).__name__}: {error}")
                    print(self.wrong[-1])
                store(self._result(ceilings), self.path)
        if "ratios" in self.asked.parts:
            print(f"\ntimes as fast as the dense convolution{self._elapsed()}")
            sweep = SMALL if self.clock.device.type == "cpu" else PAPER
            if self.asked.batch:
                sweep = sweep._replace(fixed=sweep.fixed._replace(batch=self.asked.batch))
            self.ratios = ratios(sweep, self.clock)
        result = self._result(ceilings)
        print(f"\nwritten to {store(result, self.path)}")
        if self.asked.plot:
            print(f"drawn in {plot(result, self.asked.plot)}")
        for line in self.wrong:
            print(f"wrong: {line}")
        return 1 if self.wrong else 0

    def _elapsed(self) -> str:
        """In the heading of a part, so that one can see how long the rest will take."""
        return f" ({time.monotonic() - self.begin:.0f} s)"

    def _case(self, case: Case, ceilings: Ceilings) -> None:
        torch.manual_seed(0)
        choice.record(clear=True)
        with computing(case.kind):
            errors = case.errors()
            if wrong := case.wrong(errors):
                self.wrong += wrong
                print(f"{case.operation} {case.layer} {case.kind}: wrong, not timed")
                return
            served = choice.record()
            for direction in ("forward", "backward"):
                ready = {n: peer.makers()[direction] for n, peer in case.peers.items()}
                seconds = self.clock.seconds(ready)
                row = row_of(case, direction, seconds, ceilings, errors, served)
                self.rows = [r for r in self.rows if any(r[k] != row[k] for k in KEY)] + [row]
                print(line_of(row))

    def _result(self, ceilings: Ceilings) -> dict[str, Any]:
        return {
            "machine": self.about,
            "ceilings": ceilings.to_dict(),
            "rows": self.rows,
            "ratios": self.ratios,
            "wrong": self.wrong,
        }


def crowded(about: dict[str, Any], device: str) -> str:
    """A line that warns of a busy machine, on which a run may take many times as long."""
    load, cores = about["load"][0], about["cores"]
    if device != "cpu" or load < 0.75 * cores:
        return ""
    return (
        f"busy: load {load} on {cores} cores; threads wait for others, so times are too long and "
        "so is this run\n"
    )


def row_of(
    case: Case,
    direction: str,
    seconds: dict[str, float],
    ceilings: Ceilings,
    errors: dict[str, float],
    served: dict[str, list[str]],
) -> dict[str, Any]:
    """What is stored of one case and direction."""
    own = next(name for name in seconds if name.startswith(OURS))
    ours, floor = seconds[own], ceilings.floor(case, direction)
    peers = {name: time for name, time in seconds.items() if name != own}
    best = min((n for n in peers if not n.startswith(SAME)), key=lambda name: peers[name])
    return {
        "operation": case.operation,
        "layer": str(case.layer),
        "batch": case.layer.batch,
        "kind": case.kind,
        "direction": direction,
        "seconds": seconds,
        "ours": ours,
        "floor": floor,
        "over_floor": ours / floor,
        "best": best,
        "ratio": peers[best] / ours,
        "errors": errors,
        "served": served,
    }


def line_of(row: dict[str, Any]) -> str:
    """As it is printed."""
    ours = row["ours"]
    peers = "  ".join(
        f"{name} {time * 1e6:.0f} ({time / ours:.2f})"
        for name, time in row["seconds"].items()
        if not name.startswith(OURS)
    )
    head = f"{row['layer']:8}{row['kind']:5}{row['direction']:9}ours {ours * 1e6:8.1f}"
    return (
        f"{head}  {row['over_floor']:4.1f} x floor  {row['ratio']:.2f} x {row['best']}  | {peers}"
    )


def described(device: torch.device) -> str:
    """The GPU by its name, the CPU by its threads: its name stands beside."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu, {torch.get_num_threads()} threads"
