"""The torch modules that tie a network's items together. Importing this imports torch."""

from __future__ import annotations

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


class Part(nn.Module):
    """after(body(x) + shortcut(x)), each a chain of items; the shortcut may be absent."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, after: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.after(y)
        return out


def initialise(module: nn.Module) -> None:
    """He's normal initialisation by fan-in, which stays right for any number of groups.

    Source: He et al. 2015, "Delving deep into rectifiers", as Penetrating the Fog section 4.1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
