"""Measure a device profile, in less than a minute. Importing this imports torch."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, pad

from nas.profile import BYTES, FAN_INS, GRAINS, GROUPS, OTHER, PIXELS, TAPS, WIDEST, Profile, Rates
from nas.threads import threads

WINDOW = 4e-3  # seconds that the repeats of one measurement take, about
REPEATS = 5


@torch.inference_mode()
def calibrate(
    device: str = "cpu", number: int = 1, progress: Callable[[float], None] | None = None
) -> Profile:
    """Measure on `number` threads. progress(share of the work that is done) is called often.

    Raises ValueError for a device that is not there or a number of threads below 1.
    """
    if number < 1:
        raise ValueError(f"threads={number}; it must be at least 1")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"cannot measure on the device {device!r}: {error}") from None
    where = torch.device(device)
    told = progress or (lambda share: None)
    with threads(number):
        overheads = _overheads(where)
        bandwidths = tuple(_bandwidth(moved, overheads["relu"], where) for moved in BYTES)
        rates = tuple(_rates(grain, where, told) for grain in GRAINS)
        peaks = {name: _peak(kind, where) for name, kind in _DTYPES.items()}
    return Profile(
        device=_name(where),
        threads=number,
        dtype="float32",
        versions={"torch": torch.__version__},
        date=datetime.now(UTC).date().isoformat(),
        overheads=overheads,
        bandwidths=bandwidths,
        rates=rates,
        peaks=peaks,
    )


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """The least of REPEATS times of one call, each a mean over a window."""
    call()
    start = time.perf_counter()
    call()
    _wait(device)
    count = max(1, min(1000, round(WINDOW / REPEATS / (time.perf_counter() - start))))
    least = math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(count):
            call()
        _wait(device)
        least = min(least, (time.perf_counter() - start) / count)
    return least


def _overheads(device: torch.device) -> dict[str, float]:
    """Seconds of the calls of a network on one pixel, the module that makes them included."""
    x = torch.zeros(1, 4, 2, 2, device=device)
    norm = nn.BatchNorm2d(4).to(device).eval()
    calls: dict[str, Callable[[], object]] = {
        "relu": lambda: torch.relu(x),
        "add": lambda: x + x,
        "native_batch_norm": lambda: norm(x),
        "clone": lambda: x.clone(),
        "avg_pool2d": lambda: avg_pool2d(x, 2),
        "constant_pad_nd": lambda: pad(x, (0, 0, 0, 0, 0, 1)),
        "cat": lambda: torch.cat((x, x), 1),
    }
    measured = {name: seconds(call, device) for name, call in calls.items()}
    return {**measured, OTHER: statistics.median(measured.values())}


def _bandwidth(moved: int, overhead: float, device: torch.device) -> float:
    """Bytes a second of an elementwise call that reads half of `moved` and writes the other."""
    x = torch.zeros(moved // 8, device=device)
    took = seconds(lambda: torch.relu(x), device)
    return moved / max(took - overhead, took / 10)


def _rates(grain: int, device: torch.device, told: Callable[[float], None]) -> Rates:
    """Multiplications a second on the grid; where it would be too wide, as the widest measured."""
    fan_ins = FAN_INS[grain]
    rates = np.full((len(TAPS), len(fan_ins), len(GROUPS), len(PIXELS)), np.nan)
    for done, (tap, depth, group, size) in enumerate(np.ndindex(rates.shape)):
        if fan_ins[depth] * GROUPS[group] <= max(WIDEST, fan_ins[depth]):
            taps, pixels = TAPS[tap], PIXELS[size]
            rates[tap, depth, group, size] = _rate(
                taps, fan_ins[depth], GROUPS[group], pixels, device
            )
        told((GRAINS.index(grain) + done / rates.size) / len(GRAINS))
    for group in range(1, len(GROUPS)):
        missing = np.isnan(rates[:, :, group])
        rates[:, :, group][missing] = rates[:, :, group - 1][missing]
    return tuple(tuple(tuple(map(tuple, b)) for b in a) for a in rates.tolist())


def _rate(taps: int, depth: int, groups: int, pixels: int, device: torch.device) -> float:
    kernel, side, channels = math.isqrt(taps), math.isqrt(pixels), depth * groups
    x = torch.zeros(1, channels, side, side, device=device)
    weight = torch.zeros(channels, depth, kernel, kernel, device=device)
    took = seconds(lambda: conv2d(x, weight, padding=kernel // 2, groups=groups), device)
    return pixels * channels * depth * taps / took


def _peak(dtype: torch.dtype, device: torch.device) -> float:
    n = 512 if device.type == "cpu" else 4096
    a = torch.zeros(n, n, dtype=dtype, device=device)
    return float(n) ** 3 / seconds(lambda: a @ a, device)


def _wait(device: torch.device) -> None:
    """A GPU answers before it has computed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU"
