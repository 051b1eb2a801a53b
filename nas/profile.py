"""What a device does in how much time, measured once by `leanfield calibrate`.

A call of the library that multiplies `mults` numbers and moves `traffic` bytes is expected to take

    max( mults / rate(grain, taps, fan-in, groups, pixels),  overhead + traffic / bandwidth )

This is the roofline (Williams et al. 2009) with a measured ceiling for each kind of convolution
instead of one peak: a depthwise convolution reaches a hundredth of a dense one's rate. The grain
is the largest of GRAINS that divides the channels of a group on both sides; libraries have fast
code for groups that fill their vectors, and 28 channels a group take three times as long as 32.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.files import RunError, write_atomically

VERSION = 1

TAPS = (1, 9, 25)
FAN_INS = {16: (16, 32, 64, 128), 8: (8, 24, 56, 120), 1: (1, 2, 4, 12, 28, 60, 124)}
"""Channels a group that are measured, by grain."""
GRAINS = tuple(FAN_INS)
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128)
PIXELS = (16, 64, 256, 1024, 4096)
WIDEST = 256
"""Measured convolutions have at most so many channels; wider ones count as the widest measured."""
BYTES = tuple(2**power for power in range(10, 29, 2))


OTHER = "other"
Rates = tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]


@dataclass(frozen=True)
class Profile:
    """A device, as measured with `threads` threads in `dtype`.

    overheads: seconds of a call that moves next to nothing, by the name of the call, OTHER for the
    rest. bandwidths: bytes a second for each of BYTES moved. rates: for each of GRAINS the
    multiplications a second over TAPS x FAN_INS x GROUPS x PIXELS, channels a group equal on both
    sides. peaks: dtype -> multiplications a second of a large matrix product.
    """

    device: str
    threads: int
    dtype: str
    versions: dict[str, str]
    date: str
    overheads: dict[str, float]
    bandwidths: tuple[float, ...]
    rates: tuple[Rates, ...]
    peaks: dict[str, float]

    def convolution(
        self,
        mults: float,
        traffic: float,
        taps: int,
        fan_in: int,
        fan_out: int,
        groups: int,
        pixels: int,
    ) -> float:
        """Seconds. fan_in, fan_out: channels of a group on both sides."""
        grain = next(one for one in GRAINS if fan_in % one == fan_out % one == 0)
        rate = _interpolated(
            np.log(np.asarray(self.rates[GRAINS.index(grain)])),
            (TAPS, FAN_INS[grain], GROUPS, PIXELS),
            (taps, math.sqrt(fan_in * fan_out), groups, pixels),
        )
        return max(mults / math.exp(rate), self.movement(traffic))

    def movement(self, traffic: float, call: str = OTHER) -> float:
        """Seconds to move so many bytes by one call that computes next to nothing."""
        speed = _interpolated(np.log(np.asarray(self.bandwidths)), (BYTES,), (max(traffic, 1),))
        overhead = self.overheads.get(call, self.overheads[OTHER])
        return overhead + traffic / math.exp(speed)

    def product(self, mults: float, traffic: float) -> float:
        """Seconds of a matrix product or of what else runs at the peak."""
        return max(mults / self.peaks[self.dtype], self.movement(traffic))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=1)
        write_atomically(path, text.encode())

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Raises RunError for a file that is not there or is no profile."""
        try:
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version = stored.pop("version")
        except FileNotFoundError:
            raise RunError(f"no device profile at {path}; run: leanfield calibrate") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is not a device profile ({error})") from None
        if version != VERSION:
            raise RunError(
                f"{path} has version {version}, this is version {VERSION}; run: leanfield calibrate"
            )
        try:
            profile = cls(**stored)
            found = [np.shape(rates) for rates in profile.rates]
        except (TypeError, ValueError) as error:
            raise RunError(f"{path} is not a device profile ({error})") from None
        expected = [(len(TAPS), len(f), len(GROUPS), len(PIXELS)) for f in FAN_INS.values()]
        if found != expected or len(profile.bandwidths) != len(BYTES):
            raise RunError(f"{path} has rates of shapes {found}; valid is {expected}")
        return profile


def default_path(device: str = "cpu", threads: int = 1) -> Path:
    """Where the profile of this machine lies: in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "leanfield" / f"profile-{device.replace(':', '-')}-{threads}.json"


def _interpolated(
    values: NDArray[np.float64], axes: Sequence[Sequence[float]], at: Sequence[float]
) -> float:
    """Linear between grid points along the logarithm of each axis, constant outside the grid."""
    for axis, position in zip(axes, at, strict=True):
        steps = np.log(np.asarray(axis, dtype=np.float64))
        place = float(np.interp(math.log(position), steps, np.arange(len(steps))))
        low = min(int(place), len(steps) - 2)
        values = values[low] + (place - low) * (values[low + 1] - values[low])
    return float(values)
