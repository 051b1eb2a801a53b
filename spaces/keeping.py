"""Operators that keep the shape: C = F and stride 1. A pool before them takes the stride."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.operator import DesignError, Operator
from spaces.place import Place


@dataclass(frozen=True)
class ShapeKeeping(Operator):
    """An operator from C to C channels on the same map."""

    resizes = False

    @property
    def strides(self) -> bool:
        return False

    def why_invalid(self, place: Place) -> str | None:
        if place.channels != place.features:
            return f"{self} keeps the width: it cannot map {place.channels} to {place.features}"
        if place.stride != 1:
            return f"{self} keeps the map: stride {place.stride} needs a pool before it"
        return None


def check_odd(operator: Operator, kernel: int) -> None:
    """Raise DesignError for a kernel size that has no centre."""
    if kernel < 1 or kernel % 2 == 0:
        raise DesignError(
            f"{operator.symbol}: kernel size {kernel} is not odd; valid are 1, 3, 5, 7, ..."
        )
