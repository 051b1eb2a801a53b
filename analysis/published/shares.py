"""Rows that print a ratio: some layers of a network compared with the same of a reference.

`options` of such a row: `reference`, a layout string; `parts`, the pattern of the layers' names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from analysis.conventions import convention
from analysis.cost import ledger
from analysis.published.rows import FIGURES, Computed, Row
from spaces.layout import network


def share(row: Row) -> Computed:
    """Operations of the layers, relative to those of the reference."""
    return dict.fromkeys(FIGURES) | {"flops": _flops(row, row.network) / _reference(row)}


def reduction(row: Row) -> Computed:
    """How many times fewer operations the layers take than those of the reference."""
    return dict.fromkeys(FIGURES) | {"flops": _reference(row) / _flops(row, row.network)}


def _reference(row: Row) -> int:
    return _flops(row, row.options["reference"])


def _flops(row: Row, text: str | None) -> int:
    """Operations of the parts that match, in the network of this layout string."""
    if text is None or row.input is None or row.classes is None:
        raise ValueError(f"{row.paper}, Table {row.table}, {row.row}: the row names no network")
    parts = network(text, row.input, row.classes).parts
    steps = (
        step
        for part in parts
        if fnmatchcase(part.name, row.options["parts"])
        for step in part.steps()
    )
    return convention(row.convention).count(ledger(steps)).flops
