"""What a foreign block costs, found by running it once. Importing this imports torch.

Every convolution and matrix product that torch's flop counter knows is counted as the convention
`analysis.cost.TORCH` has it: mults are half its flops, adds one less per output and one more for a
bias, traffic what it reads and writes. The block runs on torch's meta device, which computes
shapes only; one that cannot is run for real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from analysis.cost import TORCH, Cost
from nas.rivals import RivalError, load
from spaces.place import Place

ITEMSIZE = 4
_BIASED = (torch.ops.aten.addmm, torch.ops.aten.baddbmm)


class BuildError(RivalError):
    """The block refuses these channels: another width may suit it."""


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums over the operations that torch's flop counter knows."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mults = self.adds = self.moved = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in flop_registry and isinstance(out, Tensor):
            mults = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            convolution = packet is torch.ops.aten.convolution
            biased = packet in _BIASED or (convolution and args[2] is not None)
            moved = out.numel() + sum(a.numel() for a in args if isinstance(a, Tensor))
            self.mults += mults
            self.adds += mults - (0 if biased else out.numel())
            self.moved += moved
            self.peak = max(self.peak, moved)
        return out


@lru_cache(maxsize=4096)
def block_cost(spec: str, place: Place) -> Cost:
    """The block of `load(spec)` at a place, on one image.

    Its peak is the largest of inputs, weights and outputs of one operation, since what else it
    keeps alive is not known. Raises BuildError where it refuses, RivalError for a wrong shape.
    """
    make = load(spec)
    try:
        block, count, out = _run(make, place, "meta")
    except Exception:
        # Some blocks read values while they are built: those need a real device.
        try:
            block, count, out = _run(make, place, "cpu")
        except Exception as error:
            raise BuildError(
                f"{spec}({place.channels}, {place.features}, {place.stride}): "
                f"{type(error).__name__}: {error}"
            ) from error
    wanted = (1, place.features, place.out_height, place.out_width)
    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if found != wanted:
        raise RivalError(
            f"{spec}({place.channels}, {place.features}, {place.stride}) gives {found} for "
            f"(1, {place.channels}, {place.height}, {place.width}); it must give {wanted}"
        )
    params = sum(p.numel() for p in block.parameters())
    return Cost(
        params=params,
        flops=count.mults,
        mults=count.mults,
        adds=count.adds,
        traffic_bytes=count.moved * ITEMSIZE,
        traffic_bytes_fused=(place.in_elements + params + place.out_elements) * ITEMSIZE,
        peak_activation_bytes=count.peak * ITEMSIZE,
        dtype="float32",
        convention=TORCH.name,
    )


def _run(
    make: Callable[[int, int, int], nn.Module], place: Place, device: str
) -> tuple[nn.Module, _Count, Any]:
    with torch.device(device), torch.random.fork_rng(devices=[]):
        block = make(place.channels, place.features, place.stride)
        block.eval()
        images = torch.zeros(1, place.channels, place.height, place.width)
        with torch.no_grad(), _Count() as count:
            out = block(images)
    return block, count, out
