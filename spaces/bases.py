"""Bases of composite kernels: binary masks over C x N x N that are linearly independent.

Some are registered by name; any other comes from an .npz file with one array of zeros and ones,
(M, N, N) or (M, C, N, N), and is known by its file and the digest of its content.

Source: Structured Convolutions (Bhalgat et al. 2020), definitions 1 and 2, Figure 1. The text
fixes Figure 1 (b), four 2 x 2 patches (M = 4, 15 additions), and says of the drawings (a) and (c)
that they have 4 and 6 degrees of freedom: `fig1a` and `fig1c` are bases of ours with as many.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from spaces.operator import DesignError

FIG1A = ("111111111", "000111000", "010010010", "000010000")
FIG1B = ("110110000", "011011000", "000110110", "000011011")
FIG1C = ("110000000", "011000000", "000110000", "000011000", "000000110", "000000011")
REGISTERED = {"fig1a": FIG1A, "fig1b": FIG1B, "fig1c": FIG1C}
"""Row by row: the window, its middle row, column and centre; 2 x 2 patches; 1 x 2 patches."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Linearly independent binary masks (M, C, N, N), N odd.

    Raises DesignError that says what is wrong, and which mask depends on which others.
    """

    name: str
    masks: np.ndarray

    def __post_init__(self) -> None:
        if reason := why_no_basis(self.masks):
            raise DesignError(f"basis {self.name}: {reason}")

    @property
    def depth(self) -> int:
        return int(self.masks.shape[1])

    @property
    def kernel(self) -> int:
        return int(self.masks.shape[-1])

    @property
    def ones(self) -> int:
        """Entries of all masks together."""
        return int(self.masks.sum())

    @cached_property
    def union(self) -> np.ndarray:
        """What any mask covers: (C, N, N)."""
        return np.any(self.masks, axis=0)

    @cached_property
    def entries(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """Where each mask is 1: (channel, row, column)."""
        return tuple(
            tuple((int(c), int(y), int(x)) for c, y, x in np.argwhere(mask)) for mask in self.masks
        )

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of SHA-256 over shape and content."""
        content = f"{self.masks.shape}".encode() + self.masks.tobytes()
        return hashlib.sha256(content).hexdigest()[:12]


@lru_cache(maxsize=64)
def registered(name: str) -> Basis:
    """A basis of Figure 1 by name."""
    rows = np.array([[int(one) for one in mask] for mask in REGISTERED[name]], bool)
    side = int(rows.shape[1] ** 0.5)
    return Basis(name, rows.reshape(-1, 1, side, side))


@lru_cache(maxsize=64)
def from_file(name: str, digest: str) -> Basis:
    """The basis of the file `name`.npz, as `load`; its content must have this digest."""
    basis = load(name)
    if digest != basis.digest:
        raise DesignError(
            f"{name}.npz has changed: its digest is {basis.digest}, asked was {digest}"
        )
    return basis


def load(name: str) -> Basis:
    """The basis that the file `name`.npz holds now.

    Raises DesignError where there is no such file or no basis in it.
    """
    path = Path(f"{name}.npz")
    try:
        with np.load(path) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError) as error:
        raise DesignError(
            f"no basis is called {name}: registered are {', '.join(REGISTERED)}, and the file "
            f"{path} cannot be read ({error})"
        ) from None
    if len(found) != 1:
        raise DesignError(f"{path} holds {len(found)} arrays; a basis is one array of masks")
    (masks,) = found.values()
    if masks.ndim == 3:
        masks = masks[:, None]
    if not np.isin(masks, (0, 1)).all():
        raise DesignError(f"{path} holds other numbers than 0 and 1: a mask is binary")
    return Basis(name, masks.astype(bool))


def why_no_basis(masks: np.ndarray) -> str | None:
    """None, or why these masks are no basis of kernels, elements counted from 1.

    >>> why_no_basis(np.array([[[[1]]], [[[0]]]], bool))
    'element 2 is empty: it depends on nothing'
    """
    if masks.ndim != 4 or masks.shape[2] != masks.shape[3] or masks.shape[2] % 2 == 0:
        return f"masks of shape {masks.shape}; valid is (M, C, N, N) with N odd"
    found = dependence(masks.reshape(len(masks), -1))
    if found is None:
        return None
    element, terms = found
    if not terms:
        return f"element {element + 1} is empty: it depends on nothing"
    total = " + ".join(
        f"element {other + 1}" if factor == 1 else f"{factor} x element {other + 1}"
        for other, factor in terms.items()
    )
    return f"element {element + 1} depends on others: it is {total.replace('+ -1 x', '-')}"


def dependence(rows: np.ndarray) -> tuple[int, dict[int, Fraction]] | None:
    """The first row that is a combination of those before it, and its coefficients; None if the
    rows are linearly independent.

    Exact elimination over the integers. Cost: O(M^2 (C N^2 + M)).
    """
    count, length = rows.shape
    reduced: list[tuple[int, np.ndarray]] = []
    for index, mask in enumerate(rows):
        row: np.ndarray = np.zeros(length + count, object)
        row[:length] = mask.astype(int)
        row[length + index] = 1
        for pivot, other in reduced:
            if row[pivot]:
                row = row * other[pivot] - other * row[pivot]
                row //= _common(row)
        if not row[:length].any():
            used = row[length:]
            terms = {j: Fraction(-used[j], used[index]) for j in range(index) if used[j]}
            return index, terms
        reduced.append((int(np.flatnonzero(row[:length])[0]), row))
    return None


def _common(row: np.ndarray) -> Any:
    return gcd(*(int(entry) for entry in row))
