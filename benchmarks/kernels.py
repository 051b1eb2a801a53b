"""Our operations against what a user could call instead.

On a CPU: lean convolution (9 points, a filter a channel) against eager torch in both layouts,
torch.compile, and the dense 3 x 3 convolution that it could be merged into; structured convolution
against the dense one; diffusion and circulants against plain torch. Forward, and forward with
backward. Before a time is printed, the result is compared with double precision.

The floor of a layer is the longer of its arithmetic at the peak of multiply-adds and of its maps,
read once and written once, at the bandwidth of a triad of their size; both ceilings are measured
in the same run. Memory is not given back to the system between calls (MALLOC_ variables, stated),
since fresh pages would hide the kernels; `--allocator default` shows what that costs. Choices and
compiled code lie in folders of the run, so that nothing that another process holds is waited for.

`--figures`, and always on a GPU: the layers of LeanConvNets' Fig. 5 for each operation and
precision, forward and backward apart, and the ratios of Low-cost Parameterizations' Fig. 1.
On a CPU their maps have a quarter of the side.

`--stored FILE` measures nothing and draws what an earlier run has stored.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import RESULTS
from benchmarks.suite import figures, plot
from benchmarks.suite.comparisons import PARTS
from benchmarks.suite.processor import Run
from kernels.backends import MissingComponentError

KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
CACHES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
"""Where `kernels.choice` keeps its table, and torch.compile its code and the locks on it."""


def main(arguments: Sequence[str]) -> int:
    """0; 1 if an aim is missed or a result is wrong; 4 if a component is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--window", type=float, default=0.03, help="seconds of a round")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--layers", type=int, help="only so many of each part, the smallest maps")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--allocator", choices=["keeping", "default"], default="keeping")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument(
        "--figures", action="store_true", help="the layers and ratios of the papers' figures"
    )
    parser.add_argument("--plot", type=Path, help="SVG or PNG of times over layers, as in Fig. 5")
    parser.add_argument("--stored", type=Path, help="measure nothing: draw this file in --plot")
    figures.options(parser)
    options = parser.parse_args(arguments)
    if options.stored and not options.plot:
        parser.error("--stored needs --plot FILE, where it shall be drawn")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a line a row, into a pipe too
    try:
        if options.plot:
            plot.require_matplotlib()
        if options.stored:
            result = json.loads(options.stored.read_text())
            print(f"drawn in {plot.plot(result, options.plot)}")
            return 0
        return _measured(options, arguments)
    except MissingComponentError as error:
        print(error, file=sys.stderr)
        return 4


def _measured(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    on_cpu = options.device == "cpu"
    if on_cpu and options.allocator == "keeping" and not KEEPING.keys() <= os.environ.keys():
        command = [sys.executable, "-m", "benchmarks", "kernels", *arguments]
        os.execve(sys.executable, command, os.environ | KEEPING)
    with _own_caches():
        return Run(options).run() if on_cpu and not options.figures else figures.run(options)


@contextmanager
def _own_caches() -> Iterator[None]:
    """Choices are measured in this run, and no other process holds a lock on compiled code."""
    before = {name: os.environ.get(name) for name in CACHES}
    with TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(CACHES, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
