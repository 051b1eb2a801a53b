"""What counts: the papers and the tools differ, so a convention has a name and is printed with
every figure.

A ledger line has a kind (conv, linear, bias, norm, ...); a convention is a weight per kind.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from spaces.operator import Line

Weights = Mapping[str, int]
"""How often a line of each kind counts."""

LAYERS: dict[str, int] = {"conv": 1, "sum-pool": 1, "linear": 1, "fft": 1, "bias": 1}
"""Convolutions and linear layers with their biases."""


class Counts(NamedTuple):
    """What a convention makes of a ledger."""

    params: int
    flops: int
    adds: int
    mults: int


@dataclass(frozen=True, eq=False)
class Convention:
    """How often each kind of line counts.

    params: a kind that is not named counts once. mults, adds: a kind that is not named does not
    count. flops: (weight of its multiplications, weight of its additions) for each kind.
    """

    name: str
    statement: str
    params: Weights
    mults: Weights
    adds: Weights
    flops: Mapping[str, tuple[int, int]]

    def count(self, lines: Iterable[Line]) -> Counts:
        """The four figures of these lines.

        >>> TORCH.count([Line("conv", 9, 90, 80, 0), Line("norm", 2, 10, 10, 0)])
        Counts(params=11, flops=90, adds=80, mults=90)
        """
        params = flops = adds = mults = 0
        for line in lines:
            params += self.params.get(line.kind, 1) * line.params
            mults += self.mults.get(line.kind, 0) * line.mults
            adds += self.adds.get(line.kind, 0) * line.adds
            by_mults, by_adds = self.flops.get(line.kind, (0, 0))
            flops += by_mults * line.mults + by_adds * line.adds
        return Counts(params, flops, adds, mults)


_MULTS = dict.fromkeys(LAYERS, (1, 0))

TORCH = Convention(
    "torch",
    "params: everything trained (numel); mults: convolutions and linear layers, half of what "
    "torch's flop counter says; adds: those of the same layers, with the "
    "sum-pooling of structured ones, and one per output for a bias; flops: the mults",
    params={},
    mults=LAYERS,
    adds=LAYERS,
    flops=_MULTS,
)

WEIGHTS = Convention(
    "weights",
    "as torch, but batch normalisation has no parameters",
    params={"norm": 0},
    mults=LAYERS,
    adds=LAYERS,
    flops=_MULTS,
)

WEIGHTS_NORM = Convention(
    "weights+norm",
    "as weights; flops: also one per normalised element",
    params={"norm": 0},
    mults=LAYERS,
    adds=LAYERS,
    flops=_MULTS | {"norm": (1, 0)},
)

TORCH_NORM = Convention(
    "torch+norm",
    "as torch; flops: also one per normalised element",
    params={},
    mults=LAYERS,
    adds=LAYERS,
    flops=_MULTS | {"norm": (1, 0)},
)

TORCH_2NORM = Convention(
    "torch+2norm",
    "as torch; flops: also two per normalised element, its multiplication and its addition",
    params={},
    mults=LAYERS,
    adds=LAYERS,
    flops=_MULTS | {"norm": (1, 1)},
)

MULTIPLICATIONS = Convention(
    "multiplications",
    "params: the weights of convolutions and linear layers alone, without biases and batch "
    "normalisation; mults, adds: those of the same layers; flops: the mults",
    params={"norm": 0, "bias": 0},
    mults=LAYERS,
    adds=LAYERS | {"bias": 0},
    flops=_MULTS,
)

PER_OUTPUT_NORM = Convention(
    "per-output-norm",
    "params: everything trained; mults, adds: those of convolutions and linear layers, with the "
    "sum-pooling of structured ones and without biases, and one each per normalised element; "
    "flops: the mults",
    params={},
    mults=LAYERS | {"norm": 1},
    adds=LAYERS | {"bias": 0, "norm": 1},
    flops=_MULTS | {"norm": (1, 0)},
)

CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        TORCH,
        WEIGHTS,
        WEIGHTS_NORM,
        TORCH_NORM,
        TORCH_2NORM,
        MULTIPLICATIONS,
        PER_OUTPUT_NORM,
    )
}


def convention(name: str) -> Convention:
    """The convention of this name. Raises ValueError that lists the known ones."""
    if name not in CONVENTIONS:
        near = difflib.get_close_matches(name, CONVENTIONS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown convention {name!r}{hint}; known are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
