"""What this machine can do at most, measured in the same run, and the floor of a case under it.

    floor = max(bytes / bandwidth, products / peak of the precision, others / peak of fp32)

Bytes: the maps that have to be read and written, each once. Products of float32 to full precision
are three TF32 products where that is faster than fp32 arithmetic. Weights are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.suite.case import KINDS, Case, computing
from benchmarks.suite.clock import Clock

SIDE = 8192
"""Of the square matrices whose product is timed."""
COPIED = 1 << 30
"""Bytes of the array whose copy is timed."""


@dataclass(frozen=True)
class Ceilings:
    """bandwidth: bytes a second, read plus written. products: operations a second by precision."""

    bandwidth: float
    products: dict[str, float]

    def floor(self, case: Case, direction: str) -> float:
        """Seconds."""
        backward = direction == "backward"
        size = KINDS[case.kind].itemsize
        bytes_moved = case.work.passes[backward] * case.layer.elements * size
        products, others = ((1 + backward) * n for n in (case.work.products, case.work.others))
        plain = self.products["fp32"]
        if case.kind == "fp32":
            full = (products + others) / plain
            thrice = self.products.get("tf32", 0.0) / 3
            computed = min(full, max(products / thrice, others / plain)) if thrice else full
        else:
            computed = max(products / self.products[case.kind], others / plain)
        return max(bytes_moved / self.bandwidth, computed)

    def to_dict(self) -> dict[str, Any]:
        return {"bytes_per_second": self.bandwidth, "operations_per_second": self.products}


def measured(clock: Clock, kinds: tuple[str, ...]) -> Ceilings:
    """On a CPU, where maps lie in caches, bandwidth is that of arrays of 64 MB."""
    if clock.device.type == "cpu":
        from benchmarks.timing import arithmetic, bandwidth

        return Ceilings(bandwidth(1 << 24), {"fp32": arithmetic()})
    source = torch.empty(COPIED, dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    seconds = clock.seconds({"copy": lambda: lambda: target.copy_(source)})
    products = {}
    for kind in dict.fromkeys((*kinds, "tf32", "fp32")):
        a, b = (torch.randn(SIDE, SIDE, device=clock.device, dtype=KINDS[kind]) for _ in range(2))
        with computing(kind):
            found = clock.seconds({"product": lambda a=a, b=b: lambda: torch.mm(a, b)})
        products[kind] = 2 * SIDE**3 / next(iter(found.values()))
    return Ceilings(2 * COPIED / next(iter(seconds.values())), products)
