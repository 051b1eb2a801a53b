"""What the analytic model says of a published row, from our side of it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from analysis.conventions import convention
from analysis.cost import ledger
from analysis.published.rows import FIGURES, Computed, Row
from analysis.published.shares import reduction, share
from spaces.layout import network
from spaces.network import Network


def built(row: Row) -> Network:
    """The network of a row. Raises ValueError for a row that names none."""
    if row.network is None or row.input is None or row.classes is None:
        raise ValueError(f"{row.paper}, Table {row.table}, {row.row}: the paper names no network")
    return network(row.network, row.input, row.classes)


def recompute(row: Row) -> Computed:
    """The figures of a row under its convention; each None where it names no network.

    Raises ValueError for a quantity or convention that does not exist.
    """
    if row.quantity not in QUANTITIES:
        raise ValueError(f"unknown quantity {row.quantity!r}; known are {', '.join(QUANTITIES)}")
    return QUANTITIES[row.quantity](row)


def _counts(row: Row) -> Computed:
    """Params, flops, adds and mults of the whole network."""
    if row.network is None:
        return dict.fromkeys(FIGURES)
    steps = chain.from_iterable(part.steps() for part in built(row).parts)
    found = convention(row.convention).count(ledger(steps))
    return {
        "params": found.params,
        "flops": found.flops,
        "adds": found.adds,
        "mults": found.mults,
    }


QUANTITIES: Mapping[str, Callable[[Row], Computed]] = {
    "counts": _counts,
    "share": share,
    "reduction": reduction,
}
"""What a row may print, by the name that it gives."""
