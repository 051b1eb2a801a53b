"""One way to compute an operation, and how a call is given to one of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels import choice

Arguments = tuple[Any, ...]
Gradients = Sequence[Tensor | None]


class KernelError(ValueError):
    """A call that cannot be served: what was asked, what was found, what would be valid."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    why_not(*arguments): the reason why it cannot serve a call, None if it can. forward(*arguments):
    the result; where it `writes`, also into `into=`. backward(dy, needs, *arguments): a gradient
    for each tensor that needs one; None stands for torch's own autograd. devices: the types that it
    serves, all if empty. component: what it cannot do without (`kernels.backends`).
    """

    name: str
    forward: Callable[..., Tensor]
    backward: Callable[..., Gradients] | None = None
    why_not: Callable[..., str | None] = lambda *_: None
    devices: tuple[str, ...] = ()
    component: str = ""
    writes: bool = False

    def refusal(self, device: torch.device, arguments: Arguments) -> str | None:
        """Why it cannot serve a call, None if it can."""
        if self.devices and device.type not in self.devices:
            return f"{self.name} serves {' and '.join(self.devices)}, not {device.type}"
        return self.why_not(*arguments)


class Plan:
    """Who serves a call: `forward` now, and for its gradients whoever is best when they are due."""

    def __init__(self, operation: str, able: list[Implementation], asked: Arguments) -> None:
        """operation: its name. able: those that can serve, the likely best first."""
        self.operation, self._able = operation, able
        self.forward = able[0]
        self._backward: Callable[..., Gradients] | None = None
        if choice.applies(asked[0]) and len(able) > 1:
            runs = {way.name: _runner(way.forward, *asked) for way in able}
            name = choice.choose(choice.key(operation, "forward", asked), runs)
            self.forward = next(way for way in able if way.name == name)

    def gradients(self, dy: Tensor, needs: Sequence[bool], arguments: Arguments) -> Gradients:
        if self._backward is None:
            self._backward = self._chosen(dy, needs, arguments)
        return self._backward(dy, needs, *arguments)

    def _chosen(
        self, dy: Tensor, needs: Sequence[bool], arguments: Arguments
    ) -> Callable[..., Gradients]:
        ways = {way.name: way.backward for way in self._able if way.backward is not None}
        if not ways:
            return self._by_autograd
        name = self.forward.name if self.forward.name in ways else next(iter(ways))
        if choice.applies(arguments[0]) and len(ways) > 1:
            first = {name: ways[name]} | ways
            runs = {n: _runner(way, dy, needs, *arguments) for n, way in first.items()}
            name = choice.choose(choice.key(self.operation, "backward", arguments), runs)
        choice.serve(f"{self.operation} backward", name)
        return ways[name]

    def _by_autograd(self, dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
        """By torch, which computes the result once more."""
        places = [i for i, need in enumerate(needs) if need]

        def result(*asked: Tensor) -> Tensor:
            given = list(arguments)
            for place, tensor in zip(places, asked, strict=True):
                given[place] = tensor
            return self.forward.forward(*given)

        pull = torch.func.vjp(result, *(arguments[place].detach() for place in places))[1]
        found = iter(pull(dy))
        return [next(found) if need else None for need in needs]


def _runner(function: Callable[..., Any], *arguments: Any) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function(*arguments)

    return run
