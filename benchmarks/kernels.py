"""Our operations against what a user could call instead, on the CPU.

Lean convolution (9 points, a filter a channel) against eager torch in both layouts, torch.compile,
and the dense 3 x 3 convolution that it could be merged into; structured convolution against the
dense one; diffusion and circulants against plain torch. Forward, and forward with backward. Before
a time is printed, the result is compared with double precision.

The floor of a layer is the longer of its arithmetic at the peak of multiply-adds and of its maps,
read once and written once, at the bandwidth of a triad of their size; both ceilings are measured
in the same run. Memory is not given back to the system between calls (MALLOC_ variables, stated),
since fresh pages would hide the kernels; `--allocator default` shows what that costs.

`--figures`, and always on a GPU: the layers of LeanConvNets' Fig. 5 for each operation and
precision, forward and backward apart, and the ratios of Low-cost Parameterizations' Fig. 1.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.layers import CIRCULANT, CPU, DIFFUSION, STRUCTURED, Layer
from benchmarks.machine import RESULTS, machine, store
from benchmarks.suite import figures
from benchmarks.suite.plot import drawable, plot

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = ("torch", "numba", "llvmlite", "numpy")
KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
AIMS = {
    "lean forward / eager last": 1.2,
    "lean forward / eager first": 2.0,
    "lean forward / eager last, worst": 0.95,
    "lean both / eager last": 1.1,
    "lean both / eager first": 1.6,
    "structured c=C/2 / dense, from 128": 2.0,
}
PARTS = ("lean", "structured", "sic", "diffusion", "circulant")

Functions = dict[str, Callable[[], Any]]


def main(arguments: Sequence[str]) -> int:
    """0, or 1 if an aim is missed or a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--window", type=float, default=0.03, help="seconds of a round")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--layers", type=int, help="only so many of each part, the smallest maps")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--allocator", choices=["keeping", "default"], default="keeping")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument(
        "--figures", action="store_true", help="the layers and ratios of the papers' figures"
    )
    figures.options(parser)
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        return figures.main(options)
    if options.allocator == "keeping" and not KEEPING.keys() <= os.environ.keys():
        command = [sys.executable, "-m", "benchmarks", "kernels", *arguments]
        os.execve(sys.executable, command, os.environ | KEEPING)
    return figures.main(options) if options.figures else Run(options).run()


class Run:
    """All parts that are asked for, with the ceilings of this machine."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        from benchmarks.timing import allocator, arithmetic

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.options = options
        self.cache = TemporaryDirectory()
        os.environ["XDG_CACHE_HOME"] = self.cache.name  # choices are measured in this run
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
        about = self.result["machine"]
        print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
        for key in ("threads", "allocator", "clock"):
            print(f"{key}: {self.result[key]}")
        print(f"peak of multiply-adds: {self.peak / 1e9:.0f} GFLOP/s")
        parts = {
            "lean": (CPU, self.lean),
            "structured": (STRUCTURED, self.structured),
            "sic": (STRUCTURED, self.sic),
            "diffusion": (DIFFUSION, self.diffusion),
            "circulant": (CIRCULANT, self.circulant),
        }
        for name in self.options.only:
            layers, part = parts[name]
            print(f"\n{name}: us, and times as fast as each other")
            for layer in layers[-self.options.layers :] if self.options.layers else layers:
                part(layer)
        means = self.means()
        self.result["means"] = means
        print("\ngeometric means")
        for what, mean in means.items():
            aim = AIMS.get(what)
            print(f"  {what:44}{mean:6.2f}" + (f"  (aim {aim})" if aim else ""))
        path = self.options.out / f"kernels-cpu-{self.options.threads}.json"
        print(f"written to {store(self.result, path)}")
        if self.options.plot:
            print(f"drawn in {plot(drawable(self.result['rows']), self.options.plot)}")
        for line in self.result["wrong"]:
            print(f"wrong: {line}")
        missed = [what for what, aim in AIMS.items() if means.get(what, math.inf) < aim]
        return 1 if missed or self.result["wrong"] else 0

    # ---- parts -------------------------------------------------------------------------------

    def lean(self, layer: Layer) -> None:
        import torch
        from torch.nn import functional

        from kernels.lean.operation import lean

        c = layer.channels
        taps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        last, first, dy = self.maps(layer)
        centre, outer = (torch.randn(c, c) / c**0.5), torch.randn(8, c, 1) / 3
        kernel = torch.zeros(c, 1, 9)
        kernel[:, 0, [t for t in range(9) if t != 4]] = outer[..., 0].t()
        spatial, matrix = kernel.reshape(c, 1, 3, 3), centre[..., None, None].clone()
        merged = torch.zeros(c, c, 3, 3)
        merged[range(c), range(c)] = spatial[:, 0]
        merged[..., 1, 1] += centre

        def eager(x: Tensor, a: Tensor, k: Tensor) -> Tensor:
            return functional.conv2d(x, a) + functional.conv2d(x, k, padding=1, groups=c)

        calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
            "ours": (lambda x, a, b: lean(x, a, b, taps, c), [last, centre, outer]),
            "eager last": (eager, [last, matrix, spatial]),
            "eager first": (eager, [first, matrix, spatial]),
            "merged dense": (lambda x, w: functional.conv2d(x, w, padding=1), [last, merged]),
        }
        if not self.options.no_compile:
            calls["compiled"] = (torch.compile(eager, dynamic=False), [last, matrix, spatial])
        expected = eager(last.double(), matrix.double(), spatial.double())
        operations = 2 * layer.elements * (c + 8)
        self.compare("lean", layer, calls, dy, expected, operations, c)

    def structured(self, layer: Layer) -> None:
        import torch
        from torch.nn import functional

        from kernels.structured.operation import structured
        from kernels.structured.reference import structured as defined

        c = layer.channels
        last, _, dy = self.maps(layer)
        dense = torch.randn(c, c, 3, 3) / c
        for share in (2, 4):
            weight = torch.randn(c, c // share, 2, 2) / c
            calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
                "ours": (lambda x, w: structured(x, w, 3), [last, weight]),
                "dense": (lambda x, w: functional.conv2d(x, w, padding=1), [last, dense]),
                "definition": (lambda x, w: defined(x, w, 3), [last, weight]),
            }
            expected = defined(last.double(), weight.double(), 3)
            self.compare(
                f"structured c=C/{share}",
                layer,
                calls,
                dy,
                expected,
                8 * layer.elements * c // share,
                c,
            )

    def sic(self, layer: Layer) -> None:
        import torch

        from kernels.factorized.operation import single_intra_channel
        from kernels.factorized.reference import single_intra_channel as defined

        c = layer.channels
        last, first, dy = self.maps(layer)
        weights = [torch.randn(c, 1, 3, 3) / 3, torch.randn(c, c, 1, 1) / c**0.5]
        calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
            "ours": (single_intra_channel, [last, *weights]),
            "eager last": (defined, [last, *weights]),
            "eager first": (defined, [first, *weights]),
        }
        expected = defined(last.double(), *(w.double() for w in weights))
        self.compare("sic", layer, calls, dy, expected, 2 * layer.elements * (c + 9), c)

    def diffusion(self, layer: Layer) -> None:
        import torch

        from kernels.diffusion import fourier, operation, reference

        last, first, dy = self.maps(layer)
        kernel = torch.randn(layer.channels, 1, 3, 3) / 9
        for name, ours, defined in (
            ("explicit", operation.explicit, reference.explicit),
            ("implicit", operation.implicit, fourier.implicit),
        ):
            calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
                "ours": (ours, [last, dy, kernel]),
                "eager last": (defined, [last, dy, kernel]),
                "eager first": (defined, [first, dy.contiguous(), kernel]),
            }
            expected = defined(last.double(), dy.double(), kernel.double())
            self.compare(name, layer, calls, dy, expected, 4 * 9 * layer.elements, layer.channels)

    def circulant(self, layer: Layer) -> None:
        import torch

        from kernels.diffusion import fourier, operation, reference

        last, _, dy = self.maps(layer)
        kernel = torch.randn(layer.channels, 3, 3) / layer.channels
        calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
            "ours": (operation.circulant, [last, kernel]),
            "dense": (reference.circulant, [last, kernel]),
            "transforms": (fourier.circulant, [last, kernel]),
        }
        expected = fourier.circulant(last.double(), kernel.double())
        self.compare("circulant", layer, calls, dy, expected, 0, layer.channels)

    # ---- measuring ---------------------------------------------------------------------------

    def maps(self, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
        """x channels last and first, and a gradient of the result."""
        import torch

        x, dy = torch.randn(2, layer.batch, layer.channels, layer.size, layer.size)
        last = torch.channels_last
        return x.to(memory_format=last), x.contiguous(), dy.to(memory_format=last)

    def compare(
        self,
        name: str,
        layer: Layer,
        calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]],
        dy: Tensor,
        expected: Tensor,
        operations: int,
        channels: int,
    ) -> None:
        """Check ours, time all, print and keep the row."""
        import torch

        from benchmarks.timing import bandwidth, interleaved
        from kernels import choice

        choice.record(clear=True)
        function, inputs = calls["ours"]
        with torch.no_grad():
            error = (function(*inputs) - expected).abs().max() / expected.abs().max()
        if not error <= 1e-6 * math.sqrt(channels):
            self.result["wrong"].append(f"{name} {layer}: relative error {float(error):.1e}")
        seconds = 2 * 4 * layer.elements / bandwidth(layer.elements)
        floor = max(operations / self.peak, seconds)
        for direction in ("forward", "both"):
            functions: Functions = {
                peer: _forward(*call) if direction == "forward" else _both(*call, dy)
                for peer, call in calls.items()
            }
            times = interleaved(functions, self.options.rounds, self.options.window)
            ours = times["ours"].least
            row = {
                "operation": name,
                "layer": str(layer),
                "batch": layer.batch,
                "direction": direction,
                "seconds": {peer: t._asdict() for peer, t in times.items()},
                "ratios": {p: t.least / ours for p, t in times.items() if p != "ours"},
                "floor": floor if direction == "forward" else None,
                "error": float(error),
                "served": sorted({way for ways in choice.record().values() for way in ways}),
            }
            self.result["rows"].append(row)
            peers = "  ".join(
                f"{p} {t.least * 1e6:.0f} ({t.least / ours:.2f})"
                for p, t in times.items()
                if p != "ours"
            )
            above = f"  {ours / floor:.1f} x floor" if direction == "forward" else ""
            print(
                f"{name:17}{layer!s:8}{direction:8} ours {ours * 1e6:.0f}{above}  {peers}",
                flush=True,
            )

    def means(self) -> dict[str, float]:
        """Geometric means of the ratios over the layers, and the worst of lean's."""
        rows, found = self.result["rows"], {}
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


def _forward(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], Any]:
    import torch

    given = [t.detach() for t in inputs]

    def run() -> Tensor:
        with torch.no_grad():
            return function(*given)

    return run


def _both(function: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor) -> Callable[[], Any]:
    import torch

    given = [t.detach().requires_grad_() for t in inputs]
    back = dy if given[0].stride(1) == 1 else dy.contiguous()

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(*given), given, back)

    return run
