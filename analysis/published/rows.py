"""The published rows: what a paper prints, which network of ours it is, and how it counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Figure = Literal["params", "flops", "adds", "mults"]
FIGURES: tuple[Figure, ...] = ("params", "flops", "adds", "mults")

Computed = Mapping[Figure, float | None]
"""What the model says of a row; None for a figure that is not computed."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a published table.

    published: what is printed, in plain numbers. unit: one unit of the last printed digit of each
    figure; a figure without one is held by `tolerance`, relative. status: reproduced (an exact
    test), fit (our choice among several that come near; not a test) or not reproduced.
    note: the reason, where there is something to say. network, input, classes, convention: our
    side, everything that `recompute` may use, with `options` for a quantity of its own kind;
    network is None where the paper does not say enough to build it.
    """

    paper: str
    table: str
    row: str | int
    dataset: str | None
    published: Mapping[Figure, float]
    status: Literal["reproduced", "fit", "not reproduced"]
    note: str = ""
    unit: Mapping[Figure, float] = field(default_factory=dict)
    tolerance: float | None = None
    quantity: str = "counts"
    network: str | None = None
    input: tuple[int, int, int] | None = None
    classes: int | None = None
    convention: str = "torch"
    options: Mapping[str, Any] = field(default_factory=dict)

    def residuals(self, computed: Computed) -> dict[Figure, float]:
        """Computed minus published, for each figure that is both."""
        return {
            figure: value - published
            for figure, published in self.published.items()
            if (value := computed.get(figure)) is not None
        }

    def holds(self, computed: Computed) -> bool:
        """Whether each published figure is computed: it prints as published, rounded or
        truncated, where there is a unit, else it lies within the tolerance."""
        found = self.residuals(computed)
        return all(
            figure in found and self._holds(figure, found[figure]) for figure in self.published
        )

    def _holds(self, figure: Figure, residual: float) -> bool:
        if figure in self.unit:
            return -self.unit[figure] / 2 <= residual < self.unit[figure]
        bound = None if self.tolerance is None else self.tolerance * abs(self.published[figure])
        return bound is not None and abs(residual) <= bound


@cache
def _tables() -> dict[str, tuple[Row, ...]]:
    """The rows of each paper, in the order of its tables."""
    found: dict[str, tuple[Row, ...]] = {}
    for file in sorted(files("analysis.published").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".json"):
            data = json.loads(file.read_text(encoding="utf-8"))
            paper = data["paper"]
            found[paper] = tuple(_row(paper, entry) for entry in data["rows"])
    return found


def _row(paper: str, entry: Mapping[str, Any]) -> Row:
    shape = entry.get("input")
    return Row(paper=paper, **{**entry, "input": tuple(shape) if shape else None})


def papers() -> tuple[str, ...]:
    """The papers with published tables."""
    return tuple(_tables())


def rows(paper: str | None = None) -> tuple[Row, ...]:
    """Every row, or those of one paper: its name, or a part of it, in any case.

    Raises ValueError that lists the papers.
    """
    if paper is None:
        return tuple(row for table in _tables().values() for row in table)
    wanted = _plain(paper)
    found = [name for name in papers() if wanted and wanted in _plain(name)]
    exact = [name for name in found if _plain(name) == wanted]
    if len(exact or found) != 1:
        which = "names several papers" if found else "names no paper with tables"
        raise ValueError(f"{paper!r} {which}; the papers are {', '.join(papers())}")
    return _tables()[(exact or found)[0]]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
