"""Code that goes into an exported file as it stands: plain torch, nothing of this project.

`nas.exports.python` takes the source text of what a network needs from here, so what users get is
what is type-checked and tested. Lines keep to 88 columns, the default of formatters.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """Without bias, padded to ceil(size / stride), in He's normal initialisation."""
    layer = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return layer


def shuffle(channels: int, groups: int) -> list[nn.Module]:
    """Channel (group, j) moves to (j, group); nothing where all or none are mixed."""
    return [nn.ChannelShuffle(groups)] if 1 < groups < channels else []


def pool(stride: int) -> list[nn.Module]:
    """The mean that carries the stride of a block without a spatial operator."""
    return [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []


def identity(x: Tensor, features: int, stride: int) -> Tensor:
    """The shortcut: mean over the stride, then zero channels added or channels cut."""
    if stride > 1:
        x = functional.avg_pool2d(x, stride, ceil_mode=True)
    extra = features - x.shape[1]
    return functional.pad(x, (0, 0, 0, 0, 0, extra)) if extra else x


class Stem(nn.Module):
    """(N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(in_channels, width, 3, stride),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x))


class Head(nn.Module):
    """(N, channels, H, W) -> (N, num_classes): mean over the map, then a dense layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        dense = nn.Linear(channels, num_classes)
        nn.init.normal_(dense.weight, std=0.01)
        nn.init.zeros_(dense.bias)
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
        self.body = nn.Sequential(mean)  # nested, for the names of the trained weights

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        return scores


def divisors(*numbers: int) -> list[int]:
    """The common divisors, ascending."""
    common = math.gcd(*numbers)
    return [d for d in range(1, common + 1) if common % d == 0]


def best_groups(*layers: tuple[int, int, int, int | None]) -> tuple[int, ...]:
    """The group numbers with the fewest weights at which all outputs read all inputs.

    A layer is (in_channels, out_channels, kernel, groups), None for a number to find.
    Every output reads every input channel exactly if the product of the group numbers
    is at most the product of the inner widths (Penetrating the Fog, Theorem 1). Of
    equally cheap choices it is the first in the order of numbers.
    """
    choices = [divisors(c, f) if g is None else [g] for c, f, _, g in layers]
    room = math.prod(f for _, f, _, _ in layers[:-1])

    def weights(groups: tuple[int, ...]) -> int:
        sizes = (c * f * k * k for c, f, k, _ in layers)
        return sum(size // g for size, g in zip(sizes, groups, strict=True))

    every = itertools.product(*choices)
    return min((g for g in every if math.prod(g) <= room), key=weights)


def best_groups_unshuffled(
    *layers: tuple[int, int, int, int | None, bool],
) -> tuple[int, ...]:
    """The group numbers with the fewest weights at which all outputs read all inputs.

    A layer is (in_channels, out_channels, kernel, groups, whether a shuffle follows),
    None for a number to find. Of equally cheap choices it is the first in the order of
    numbers.
    """
    choices = [divisors(c, f) if g is None else [g] for c, f, _, g, _ in layers]
    room = math.prod(f for _, f, *_ in layers[:-1])  # more groups than this never do

    def weights(groups: tuple[int, ...]) -> int:
        sizes = (c * f * k * k for c, f, k, *_ in layers)
        return sum(size // g for size, g in zip(sizes, groups, strict=True))

    def inputs(output: int, groups: tuple[int, ...]) -> set[int]:
        """The input channels that one output reads, followed back layer by layer."""
        read = {output}
        for (c, f, _, _, shuffled), g in zip(layers[::-1], groups[::-1], strict=True):
            if shuffled:
                read = {j % g * (f // g) + j // g for j in read}
            size = c // g
            touched = {j // (f // g) for j in read}
            read = {i for t in touched for i in range(t * size, (t + 1) * size)}
        return read

    def complete(groups: tuple[int, ...]) -> bool:
        outputs = layers[-1][1]
        one_each = range(0, outputs, outputs // groups[-1])
        return all(len(inputs(f, groups)) == layers[0][0] for f in one_each)

    small = (g for g in itertools.product(*choices) if math.prod(g) <= room)
    return next(filter(complete, sorted(small, key=weights)))


def check(
    fits: Callable[[int, int], bool], in_channels: int, out_channels: int, stride: int
) -> None:
    """ValueError where a Block cannot stand, naming the nearest widths that can."""
    if stride < 1:
        raise ValueError(f"the stride of a Block is {stride}; it must be at least 1")
    if fits(in_channels, out_channels):
        return

    def around(width: int) -> Iterator[int]:
        return (width + side * d for d in range(1, 9999) for side in (1, -1))

    equal = ((w, w) for w in around(out_channels) if fits(w, w))
    pairs = list(itertools.islice(equal, 2))
    if in_channels != out_channels:
        other_out = ((in_channels, w) for w in around(out_channels))
        other_in = ((w, out_channels) for w in around(in_channels))
        both = (pair for pair in (*other_out, *other_in) if fits(*pair))
        pairs = list(itertools.islice(both, 2)) or pairs
    valid = " and ".join(f"Block({c}, {f})" for c, f in pairs) or "far away"
    raise ValueError(
        f"Block({in_channels}, {out_channels}) cannot be: the channels must be positive "
        f"and divide as the operators ask; the nearest valid are {valid}"
    )


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: a length, a JSON header, then the numbers.

    Raises ValueError where the file is not of this format.
    """
    types = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
    file = Path(path).read_bytes()
    tensors = {}
    try:
        (length,) = struct.unpack_from("<Q", file)
        if length > len(file) - 8:
            raise ValueError("its header is cut off")
        header = json.loads(file[8 : 8 + length])
        header.pop("__metadata__", None)
        data = file[8 + length :]
        spans = sorted(entry["data_offsets"] for entry in header.values())
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        if [*starts, len(data)] != [0, *ends]:
            raise ValueError("the tensors do not fill it without gaps")
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            kind, shape = types[entry["dtype"]], entry["shape"]
            if math.prod(shape) * kind.itemsize != end - start:
                raise ValueError(f"{name} is not of the size that its shape says")
            numbers = bytearray(data[start:end])
            flat = torch.frombuffer(numbers, dtype=kind) if numbers else torch.empty(0)
            tensors[name] = flat.to(kind).reshape(shape)
    except KeyError as error:
        raise ValueError(f"{path} has an unknown entry or type {error}") from error
    except (struct.error, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return tensors
