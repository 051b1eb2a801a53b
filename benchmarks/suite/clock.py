"""Seconds of a call, on a GPU by events around a captured graph, on a CPU in turns.

A GPU is handed a graph, so that the cost of launching from Python is not in the figure; before each
replay a buffer larger than the second-level cache is overwritten; the figure is the median. Where a
function cannot be captured its calls are timed one by one, and its name ends in UNCAPTURED.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

import torch

from benchmarks.timing import interleaved

Ready = Callable[[], Callable[[], object]]
"""Makes what is timed, on the stream on which it is timed."""
UNCAPTURED = " (no graph)"


class Clock(Protocol):
    """device: what is timed. seconds(ready): the median time of a call of each."""

    device: torch.device

    def seconds(self, ready: Mapping[str, Ready]) -> dict[str, float]: ...


class Processor:
    """The CPU; see `benchmarks.timing`."""

    def __init__(self, rounds: int = 7, window: float = 0.03) -> None:
        self.device = torch.device("cpu")
        self.rounds, self.window = rounds, window

    def seconds(self, ready: Mapping[str, Ready]) -> dict[str, float]:
        functions = {name: make() for name, make in ready.items()}
        times = interleaved(functions, self.rounds, self.window)
        return {name: time.median for name, time in times.items()}


class Graphics:
    """A GPU. graphs: replay captured graphs, else call from Python as a user would."""

    def __init__(self, repeats: int = 50, graphs: bool = True) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.repeats, self.graphs = repeats, graphs
        self.stream = torch.cuda.Stream()
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size
        self.flush = torch.empty(max(4 * cache, 1 << 28), dtype=torch.uint8, device=self.device)

    def seconds(self, ready: Mapping[str, Ready]) -> dict[str, float]:
        found = {}
        for name, make in ready.items():
            call, captured = self._prepared(make)
            found[name if captured else name + UNCAPTURED] = self._median(call)
            del call
            torch.cuda.empty_cache()
        return found

    def _prepared(self, make: Ready) -> tuple[Callable[[], object], bool]:
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            call = make()
            for _ in range(3):  # compiles, chooses algorithms, fills the allocator
                call()
        torch.cuda.synchronize()
        if not self.graphs:
            return call, True
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                call()
        except RuntimeError:
            with suppress(RuntimeError):  # the error of the capture once more
                torch.cuda.synchronize()
            return call, False
        return graph.replay, True

    def _median(self, call: Callable[[], object]) -> float:
        events = [
            [torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(self.repeats)
        ]
        with torch.cuda.stream(self.stream):
            for begin, end in events:
                self.flush.zero_()
                begin.record()
                call()
                end.record()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1e3


def clock(device: str, rounds: int = 7, window: float = 0.03) -> Clock:
    """For "cpu" or "cuda". Raises MissingComponentError where there is no GPU or no CuPy."""
    if device == "cpu":
        return Processor(rounds, window)
    require_gpu()
    torch.backends.cudnn.benchmark = True  # the fastest algorithm for the peers too
    return Graphics()


def require_gpu() -> None:
    """Raises MissingComponentError that says what is missing for `--device cuda`."""
    from kernels.backends import MissingComponentError, require

    if not torch.cuda.is_available():
        raise MissingComponentError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device; valid is a machine "
            "with an NVIDIA GPU, its driver, a CUDA build of torch, and CuPy (pip install "
            "'leanfield[gpu]'); --device cpu runs here"
        )
    require("cupy")
