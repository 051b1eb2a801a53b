"""How long one image takes: the median of 15 forward passes. Importing this imports torch."""

from __future__ import annotations

import statistics
import time

import torch

from nas.candidates import Entry
from nas.threads import threads

REPEATS = 15
WARM_UP = 3


class Stopwatch:
    """Seconds of a network on its task's input, timed once for each function (`Entry.key`).

        watch = Stopwatch(threads=1)
        watch(sized)      ->  0.0021
        str(watch)        ->  "median of 15 at batch 1 on cpu, 1 thread, float32"

    Raises ValueError for a batch or a thread number below 1 and for a device that is not there.
    """

    def __init__(self, device: str = "cpu", threads: int = 1, batch: int = 1) -> None:
        if threads < 1 or batch < 1:
            raise ValueError(f"threads={threads} and batch={batch} must each be at least 1")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"cannot time on the device {device!r}: {error}") from None
        self.device = torch.device(device)
        self.threads = threads
        self.batch = batch
        self._known: dict[str, float] = {}

    def __str__(self) -> str:
        where = str(self.device)
        if self.device.type == "cuda":
            where += f" ({torch.cuda.get_device_name(self.device)})"
        plural = "s" * (self.threads > 1)
        return (
            f"median of {REPEATS} at batch {self.batch} on {where}, {self.threads} thread{plural}, "
            "float32"
        )

    def __call__(self, entry: Entry) -> float:
        if entry.key not in self._known:
            self._known[entry.key] = self._time(entry)
        return self._known[entry.key]

    @torch.inference_mode()
    def _time(self, entry: Entry) -> float:
        model = entry.module(seed=0).to(self.device).eval()
        images = torch.zeros(self.batch, *entry.task.input, device=self.device)
        seconds = []
        with threads(self.threads):
            for _ in range(WARM_UP):
                model(images)
            for _ in range(REPEATS):
                self._wait()
                start = time.perf_counter()
                model(images)
                self._wait()
                seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    def _wait(self) -> None:
        """A GPU answers before it has computed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
