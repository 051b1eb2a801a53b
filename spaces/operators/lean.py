"""LEAN(g, s): a 1 x 1 and a grouped spatial convolution as one operator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from spaces.grouped import (
    GroupNumber,
    carried_by_groups,
    joined,
    shifted,
    spread,
    why_not_grouped,
)
from spaces.operator import Box, DesignError, Mask, Operator, Permutation, argument
from spaces.operators.standard import Standard
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn

STENCILS = {
    "9": ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
    "5": ((-1, 0), (0, -1), (0, 1), (1, 0)),
    "1x3": ((0, -1), (0, 1)),
    "3x1": ((-1, 0), (1, 0)),
}
"""The outer taps (rows, columns) of each stencil; the centre belongs to the 1 x 1 part."""

TURNS = ("1x3", "3x1")
"""What `s=3` stands for, in turn along a design."""


@dataclass(frozen=True)
class Lean(GroupNumber):
    """T[f] = sum over c of I[c] A[f, c], plus I[c](p + t) B[t, f, c] over outer taps t and the
    channels c of f's group.

        params = C F + (r-1) C F / g,   mults = params H' W',   adds = (params - F) H' W'

    with r = 9, 5 or 3. Its field is no box: the stencil on its own group, one pixel of the rest.
    g = C is depthwise: (r-1) max(C, F) outer weights, and where C != F, for C > F input i feeds
    output floor(i F / C), else output j is fed by input floor(j C / F).

    The 1 x 1 part mixes all channels, so that no shuffle follows however many groups there are:
    `groups` is 1, `number` is g.

    Source: LeanConvNets, section III. `s=3` is section III-C: 1x3 and 3x1 in turn.

    >>> Lean(g=16, stencil="5").params(Place(64, 64, 32, 32))
    5120
    """

    g: int | None = argument("g", None)
    stencil: str = argument("s", "9", str)
    dilation: int = argument("d", 1)

    symbol = "LEAN"
    spellings = ("LeanConv", "Lean Convolution")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stencil not in STENCILS and self.stencil != "3":
            raise DesignError(f"LEAN: stencil s={self.stencil}; valid are 9, 5, 3, 1x3, 3x1")
        if self.dilation < 1:
            raise DesignError(f"LEAN: dilation {self.dilation} is below 1")

    @classmethod
    def read(cls, words: Sequence[str]) -> Self:
        """As every operator; also a bare group number and the paper's `g=c/16` and `g=c`."""
        return super().read([_keyed(word) for word in words])

    # ---- what it is here ---------------------------------------------------------------------

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        """The outer taps. An `s=3` that no design has turned stands as its first form."""
        outer = STENCILS[TURNS[0] if self.stencil == "3" else self.stencil]
        return tuple((self.dilation * row, self.dilation * column) for row, column in outer)

    @property
    def window(self) -> tuple[int, int]:
        rows, columns = (max(abs(step) for step in steps) for steps in zip(*self.taps, strict=True))
        return (2 * rows + 1, 2 * columns + 1)

    def turned(self, before: int) -> Operator:
        return replace(self, stencil=TURNS[before % 2]) if self.stencil == "3" else self

    def number(self, place: Place) -> int:
        """Groups of the spatial part; depthwise, min(C, F) where that divides the other."""
        g = super().number(place)
        narrow, wide = sorted((place.channels, place.features))
        return narrow if g == place.channels and wide % narrow == 0 else g

    def is_uneven(self, place: Place) -> bool:
        """Whether it is depthwise between widths neither of which divides the other."""
        return self.number(place) == place.channels and place.features % place.channels != 0

    def fan_in(self, place: Place) -> int:
        """Most channels whose outer taps one output reads."""
        if self.is_uneven(place):
            return -(-place.channels // place.features)
        return place.channels // self.number(place)

    def why_invalid(self, place: Place) -> str | None:
        if reason := self.why_no_number(place):
            return reason
        if self.is_uneven(place):
            return None
        return why_not_grouped(self, self.number(place), place)

    def canonical(self, place: Place | None = None) -> Operator:
        g = self.g if place is None or self.is_open else self.number(place)
        if g == 1 and self.stencil == "9":
            return Standard(dilation=self.dilation)
        return self if g is None else replace(self, g=g, q=None)

    # ---- field -------------------------------------------------------------------------------

    def reads(self, needed: Mask, place: Place) -> Mask:
        own = self._own(needed, place)
        around = np.zeros_like(own)
        for row, column in self.taps:
            around |= shifted(shifted(own, (row,), -2), (column,), -1)
        return around | joined(needed, 1, place)

    def _own(self, needed: Mask, place: Place) -> Mask:
        """For each input channel the centre pixels of the outputs whose outer taps read it."""
        if not self.is_uneven(place):
            g = self.number(place)
            return np.repeat(joined(needed, g, place), place.channels // g, axis=-3)
        pixels = spread(needed, place)
        channel = np.arange(place.channels)
        if place.channels > place.features:
            return pixels[..., channel * place.features // place.channels, :, :]
        first = -(-channel * place.features // place.channels)
        return np.logical_or.reduceat(pixels, first, axis=-3)

    def carried(self, permutation: Permutation, place: Place) -> Permutation | None:
        if self.is_uneven(place):
            return None
        return carried_by_groups(permutation, self.number(place), place)

    def reach(self, place: Place) -> tuple[Box, ...]:
        rows, columns = self.window
        near = self.fan_in(place)
        far = place.channels - near
        return (Box(rows, columns, near), Box(1, 1, far)) if far else (Box(rows, columns, near),)

    def connections(self, place: Place) -> int:
        pairs = place.channels * place.features
        wide = max(place.channels, place.features)
        around = wide if self.is_uneven(place) else pairs // self.number(place)
        return pairs + len(self.taps) * around

    # ---- module ------------------------------------------------------------------------------

    def module(self, place: Place) -> nn.Module:
        from kernels.lean.operation import lean
        from kernels.lean.reference import lean_depthwise
        from spaces.modules import Weighted

        c, f, outer = place.channels, place.features, len(self.taps)
        options = {"taps": self.taps, "stride": place.stride}
        fan_in = c + outer * self.fan_in(place)
        fans = {"centre": fan_in, "outer": fan_in}
        if self.is_uneven(place):
            lanes = {"centre": (f, c), "outer": (outer, max(c, f))}
            return Weighted(lean_depthwise, lanes, fans, options)
        g = self.number(place)
        shapes = {"centre": (f, c), "outer": (outer, f, c // g)}
        return Weighted(lean, shapes, fans, options | {"groups": g})

    @classmethod
    def examples(cls) -> tuple[Operator, ...]:
        return (
            cls(g=2),
            cls(g=4, stencil="5"),
            cls(g=1, stencil="5"),
            cls(q=1, stencil="9"),
            cls(q=4, stencil="5"),
            cls(g=1, stencil="1x3"),
            cls(g=1, stencil="3x1"),
            cls(g=2, stencil="3x1"),
            cls(q=1, stencil="1x3"),
            cls(g=2, stencil="5", dilation=2),
            cls(g=4, stencil="3"),
        )


def _keyed(word: str) -> str:
    """`16` as `g=16`, `g=c/16` as `q=16`, `g=c` as `q=1`; the rest as it stands."""
    if size := re.fullmatch(r"g=c(?:_?in)?(?:/(\d+))?", word, re.IGNORECASE):
        return f"q={size[1] or 1}"
    return f"g={word}" if word.isdecimal() else word
