"""The torch modules that tie a network's items together. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class Identity(nn.Module):
    """(N, C, H, W) -> (N, F, H', W'): mean over the stride, then zero channels added or cut."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.extra = features - channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra)) if self.extra else x


class Weighted(nn.Module):
    """A pure function of (x, **weights) with its weights as parameters, freshly initialised.

    function: from `kernels/`, or a function at the top of the operator's own file that imports
    torch inside; it takes the input (N, C, H, W), each weight by name, and the options. Its source
    is what an exported file carries. shapes: weight name -> shape; fan_ins: weight name -> reads of
    one output, for He's initialisation. bound: what each weight is divided by when initialised.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        shapes: Mapping[str, tuple[int, ...]],
        fan_ins: Mapping[str, int],
        options: Mapping[str, object] | None = None,
        bound: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.function = function
        self.bound = bound
        self.fan_ins = dict(fan_ins)
        self.options = dict(options or {})
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with variance 2 / fan-in; divided by its bound, if there is one."""
        for name, weight in self.named_parameters():
            nn.init.normal_(weight, std=math.sqrt(2 / self.fan_ins[name]))
            if self.bound is not None:
                with torch.no_grad():
                    weight.div_(self.bound(weight))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, **dict(self.named_parameters()), **self.options)

    def extra_repr(self) -> str:
        shapes = (f"{name}={tuple(w.shape)}" for name, w in self.named_parameters())
        options = (f"{name}={value}" for name, value in self.options.items())
        return ", ".join((self.function.__name__, *shapes, *options))


class Bias(nn.Module):
    """(N, C, H, W): one trained number added to each channel, zero at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Slice(nn.Module):
    """(N, C, H, W) -> (N, F, H, W): F channels, from `first` on."""

    def __init__(self, first: int, features: int) -> None:
        super().__init__()
        self.first = first
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.first : self.first + self.features]


class Sum(nn.Module):
    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for one in maps[1:]:
            total = total + one
        return total


class Concat(nn.Module):
    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=1)


class Product(nn.Module):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return x * scale


class TimeStep(nn.Module):
    """advance(y, reaction(y)): a step of a differential equation."""

    def __init__(self, reaction: nn.Module, advance: nn.Module) -> None:
        super().__init__()
        self.reaction = reaction
        self.advance = advance

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.advance(y, self.reaction(y))
        return out


class Part(nn.Module):
    """after(body(x) + shortcut(x)) of x = merge(sources); merge and shortcut may be absent."""

    def __init__(
        self,
        body: nn.Module,
        shortcut: nn.Module | None,
        after: nn.Module,
        merge: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.body = body
        self.shortcut = shortcut
        self.after = after

    def forward(self, *sources: Tensor) -> Tensor:
        x: Tensor = self.merge(*sources) if self.merge is not None else sources[0]
        y: Tensor = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.after(y)
        return out


class Graph(nn.Sequential):
    """Parts in topological order; `sources[i]` are the indices whose outputs part i takes, -1 for
    the network's input. An output is dropped after its last reader."""

    def __init__(self, parts: list[nn.Module], sources: list[tuple[int, ...]]) -> None:
        super().__init__(*parts)
        self.sources = sources
        last = {index: reader for reader, row in enumerate(sources) for index in row}
        self.finished = [
            [index for index, at in last.items() if at == reader] for reader in range(len(parts))
        ]

    def forward(self, x: Tensor) -> Tensor:
        alive = {-1: x}
        for index, part in enumerate(self):
            alive[index] = part(*(alive[source] for source in self.sources[index]))
            for done in self.finished[index]:
                del alive[done]
        return alive[len(self) - 1]


def initialise(module: nn.Module) -> None:
    """He's normal initialisation by fan-in, which stays right for any number of groups.

    Source: He et al. 2015, "Delving deep into rectifiers", as Penetrating the Fog section 4.1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, Weighted):
            layer.reset_parameters()
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
