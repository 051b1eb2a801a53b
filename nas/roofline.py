"""How long a network should take on a device, by its profile, without running it.

    estimate(module, (1, 1, 32, 32), profile)     ->  0.0021 seconds

The module runs once on torch's meta device, where nothing is computed; each call of the library
that it makes is charged by `nas.profile`: what computes by the rate of its kind, what only moves
memory by its bytes, a view nothing. It works for any module. Importing this imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.profile import Profile

aten = torch.ops.aten

FREE = {aten.detach.default, aten.t.default}
PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.bmm.default: (0, 1),
}
TRANSFORMS = {aten._fft_r2c.default, aten._fft_c2r.default, aten._fft_c2c.default}


@torch.no_grad()
def estimate(module: nn.Module, size: tuple[int, ...], profile: Profile) -> float:
    """Seconds of one forward pass over an input (N, C, H, W), in evaluation mode."""
    there = copy.deepcopy(module).to("meta").eval()
    images = torch.empty(size, device="meta")
    with _Charged(profile) as charged:
        there(images)
    return charged.seconds


class _Charged(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the seconds of every call."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.profile = profile
        self.seconds = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or func in FREE):
            self.seconds += self._charge(func, args, out)
        return out

    def _charge(self, func: Any, args: tuple[Any, ...], out: Any) -> float:
        traffic = sum(t.numel() * t.element_size() for t in _tensors((args, out)))
        if func is aten.convolution.default:
            return self._convolution(args, out, traffic)
        if func in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[func])
            return self.profile.product(left.numel() * right.shape[-1], traffic)
        if func in TRANSFORMS:
            points = math.prod(args[0].shape[axis] for axis in args[1])
            mults = args[0].numel() * math.log2(max(points, 2))
            return self.profile.product(mults * SLOWER, traffic)
        return self.profile.movement(traffic, _name(func))

    def _convolution(self, args: tuple[Any, ...], out: Tensor, traffic: float) -> float:
        weight, groups = args[1], args[8]
        features, fan_in, *kernel = weight.shape
        return self.profile.convolution(
            mults=out.numel() * weight[0].numel(),
            traffic=traffic,
            taps=math.prod(kernel),
            fan_in=fan_in,
            fan_out=features // groups,
            groups=groups,
            pixels=out.numel() // features,
        )


SLOWER = 8.0
"""A transform runs at about an eighth of the rate of a matrix product (32 to 38 of 256 GFLOP/s)."""


def _name(func: Any) -> str:
    """`relu` for aten.relu_ and its like; batch normalisation has several names."""
    name: str = func._schema.name.partition("::")[2].rstrip("_")
    return "native_batch_norm" if "batch_norm" in name else name


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, (tuple, list)):
        for one in nested:
            yield from _tensors(one)
