"""One call of ours beside what a user could call instead, and the work that none can avoid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.layers import Layer
from benchmarks.suite.clock import Ready

KINDS = {"bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
OUTPUT = {"bf16": 8e-3, "tf32": 1e-3}
GRADIENT = {"bf16": 5e-3, "tf32": 1e-3, "fp32": 1e-5}
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """function(*tensors), timed; gradients are taken of all tensors."""

    function: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]

    def forward(self) -> Callable[[], Tensor]:
        given = [one.detach() for one in self.tensors]

        def run() -> Tensor:
            with torch.no_grad():
                return self.function(*given)

        return run

    def backward(self) -> Callable[[], object]:
        """All gradients, of a result that is there already."""
        given = [one.detach().requires_grad_() for one in self.tensors]
        y = self.function(*given)
        dy = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, given, dy, retain_graph=True)

    def both(self, dy: Tensor) -> Callable[[], object]:
        """The result and all its gradients; dy in the layout of the first tensor."""
        given = [one.detach().requires_grad_() for one in self.tensors]
        back = dy if given[0].stride(1) == 1 else dy.contiguous()
        return lambda: torch.autograd.grad(self.function(*given), given, back)

    def makers(self) -> dict[str, Ready]:
        return {"forward": self.forward, "backward": self.backward}


@dataclass(frozen=True)
class Work:
    """passes: maps of the layer read and written, forward and backward. products: operations of
    matrix products, which a tensor core can do, and others, which it cannot, both of the forward
    pass; the backward pass has twice as many."""

    passes: tuple[int, int]
    products: float = 0.0
    others: float = 0.0


@dataclass(frozen=True)
class Case:
    """peers: "ours" first. definition: in plain torch, takes the tensors of ours in float64."""

    operation: str
    layer: Layer
    kind: str
    peers: Mapping[str, Peer]
    definition: Callable[..., Tensor]
    work: Work
    notes: tuple[str, ...] = field(default=())

    def errors(self) -> dict[str, float]:
        """Of the output, max|error| / max|reference|, and of each gradient by relative root mean
        square, against float64."""
        ours = self.peers[OURS]
        given = [one.detach().requires_grad_() for one in ours.tensors]
        double = [one.detach().double().requires_grad_() for one in ours.tensors]
        y, expected = ours.function(*given), self.definition(*double)
        dy = torch.randn_like(y)
        output = _ratio((y - expected).detach().abs().max(), expected.detach().abs().max())
        found = {"output": output}
        gradients = torch.autograd.grad(expected, double, dy.double())
        for i, one in enumerate(torch.autograd.grad(y, given, dy)):
            size = gradients[i].square().mean().sqrt()
            found[f"gradient {i}"] = _ratio((one - gradients[i]).square().mean().sqrt(), size)
        return found

    def wrong(self, errors: Mapping[str, float]) -> list[str]:
        """What lies outside the bounds of accuracy, NaN included."""
        bounds = {what: GRADIENT[self.kind] if what != "output" else self.bound for what in errors}
        return [
            f"{self.operation} {self.layer} {self.kind}: {what} {error:.1e}, at most {bound:.1e}"
            for (what, error), bound in zip(errors.items(), bounds.values(), strict=True)
            if not error <= bound
        ]

    @property
    def bound(self) -> float:
        """Of the output; in fp32 it grows with the sum over channels."""
        return OUTPUT.get(self.kind, 1e-6 * math.sqrt(self.layer.channels))


def _ratio(error: Tensor, size: Tensor) -> float:
    """error / size; where all shall be zero (taps around a map of one pixel), zero or infinite."""
    return float(error / size) if size or error.isnan() else float("inf") if error else 0.0


@contextmanager
def computing(kind: str) -> Iterator[None]:
    """Let torch, and ours with it, compute products of float32 as TF32, or not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = kind == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class Draw:
    """Random tensors of a case."""

    def __init__(self, layer: Layer, kind: str, device: torch.device, seed: int = 0) -> None:
        self.layer, self.dtype, self.device = layer, KINDS[kind], device
        self.generator = torch.Generator(device).manual_seed(seed)

    def map(self, channels: int = 0) -> Tensor:
        """Of the layer, channels last."""
        size = (self.layer.batch, channels or self.layer.channels, *[self.layer.size] * 2)
        return self.weight(size).to(memory_format=torch.channels_last)

    def weight(self, size: tuple[int, ...], scale: float = 1.0) -> Tensor:
        made = torch.randn(size, generator=self.generator, device=self.device)
        return (made * scale).to(self.dtype)


def first(x: Tensor) -> Tensor:
    """NCHW, as torch makes maps unless it is told otherwise."""
    return x.contiguous()


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """By torch.compile, whose backward pass may run more than once."""
    import torch._functorch.config as config

    config.donated_buffer = False
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)
