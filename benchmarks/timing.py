"""Times of several functions that do not favour any of them, and the ceilings of the machine.

The functions take turns, a window of calls each, so that a machine that slows down slows all of
them. One thread is timed in thread time, which other processes do not lengthen; several threads by
the clock on the wall. The minimum is what the code can do, the median what it did.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


class Time(NamedTuple):
    """Seconds of a call."""

    least: float
    median: float


PATIENCE = 10
"""Windows after which a round ends, however few calls it has made: where cores are shared, two
threads that wait for each other may take a thousand times as long as the call before."""


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int = 7, window: float = 0.03
) -> dict[str, Time]:
    """Seconds a call of each, over `rounds` windows of about `window` seconds."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    counts = {}
    for name, function in functions.items():
        function()
        begin = time.perf_counter()
        function()
        counts[name] = max(1, round(window / max(time.perf_counter() - begin, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begin, done, limit = clock(), 0, time.perf_counter() + PATIENCE * window
            while done < counts[name] and time.perf_counter() < limit:
                function()
                done += 1
            found[name].append((clock() - begin) / done)
    return {name: Time(min(all_), statistics.median(all_)) for name, all_ in found.items()}


def bandwidth(elements: int) -> float:
    """Bytes a second of a = b + s c on float32 arrays of this size: two are read, one written."""
    a, b, c = (torch.ones(elements) for _ in range(3))
    least = interleaved({"triad": lambda: torch.add(b, c, alpha=2.0, out=a)})["triad"].least
    return 3 * a.element_size() * elements / least


def arithmetic() -> float:
    """Floating-point operations a second: multiply-adds in registers, on torch's threads."""
    from kernels.jit.emit import number
    from kernels.jit.machine import Compiled, vectors
    from kernels.jit.walk import Walk

    sums, turns, units = 12, 20_000, 4 * torch.get_num_threads()
    walk = Walk("peak", (), 1, False, False)
    e, names = walk.begin(("ticket", "units", "at"))
    with walk.tickets(names["units"]) as unit:
        lanes = walk.lanes * 4
        place = e.add(names["at"], e.mul(unit, number(lanes)))
        factor = e.read(place)
        with e.carrying(number(0), number(turns), [factor] * sums) as (_, now, following):
            following.extend(e.multiply_add(factor, factor, value) for value in now)
        total = following[0]
        for value in following[1:]:
            total = e.fadd(total, value)
        e.write(total, place)
    e.ret_void()
    code = Compiled(str(walk.module), ("ticket", "units", "at"))
    room = torch.zeros(units * vectors().lanes)
    call: Callable[[], Any] = lambda: code(  # noqa: E731
        torch.get_num_threads(), units=units, at=room.data_ptr()
    )
    least = interleaved({"peak": call})["peak"].least
    return 2 * sums * turns * units * vectors().lanes / least


def allocator() -> str:
    """How memory is given back, which decides what fresh maps cost."""
    import os

    tuned = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    libc = getattr(ctypes.CDLL(None), "gnu_get_libc_version", None)
    if libc is None:
        return "the system's"
    libc.restype = ctypes.c_char_p
    words = ", ".join(f"{name}={value}" for name, value in sorted(tuned.items())) or "as it is"
    return f"glibc {libc().decode()}, {words}"
