"""Output channels that see the same, up to a renaming of the input channels.

A permutation p of a design's outputs that every item carries on to a permutation of its inputs
(`Operator.carried`) maps the field of output c to that of p(c) with the input channels renamed.
Size, extent, volume and the target window do not depend on the names, so one output of each
orbit speaks for all. Only rotations inside blocks of consecutive channels are tried: they
generate the symmetries of groups, of shuffles and of grids of channels in row-major order. What
is not found to be a symmetry only costs time, never exactness.

Cost: at most one pass of O(C) a step for each pair of divisors turn | block | F.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spaces.design import Step
from spaces.grouped import divisors


def representatives(steps: Sequence[Step]) -> list[int]:
    """One output channel of each orbit, the lowest, ascending."""
    features = steps[-1].place.features
    orbit = np.arange(features)
    found: list[tuple[int, int]] = []
    for block in reversed(divisors(features)):
        for turn in divisors(block)[:-1]:
            if np.array_equal(_merged(orbit, block, turn), orbit):
                continue
            if _is_symmetry(steps, _rotation(features, block, turn)):
                found.append((block, turn))
                orbit = _closed(orbit, found)
                break
    return [int(c) for c in np.unique(orbit)]


def _rotation(features: int, block: int, turn: int) -> np.ndarray:
    """The channels of each block, turned by some places."""
    return np.roll(np.arange(features).reshape(-1, block), -turn, axis=1).ravel()


def _is_symmetry(steps: Sequence[Step], permutation: np.ndarray) -> bool:
    """Whether every item carries the permutation of the outputs on to its inputs."""
    for item, place, _ in reversed(steps):
        carried = item.carried(permutation, place)
        if carried is None:
            return False
        permutation = carried
    return True


def _merged(orbit: np.ndarray, block: int, turn: int) -> np.ndarray:
    """Each channel's lowest label among those that the rotation takes it to."""
    cycles = orbit.reshape(-1, block // turn, turn)
    return np.broadcast_to(cycles.min(axis=1, keepdims=True), cycles.shape).reshape(-1)


def _closed(orbit: np.ndarray, rotations: Sequence[tuple[int, int]]) -> np.ndarray:
    """The orbits under all rotations together: merge until nothing changes."""
    while True:
        before = orbit
        for block, turn in rotations:
            orbit = _merged(orbit, block, turn)
        if np.array_equal(orbit, before):
            return orbit
