"""What a search comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.study import Training
from nas.table import Row


@dataclass(frozen=True)
class Result:
    """The table of a run; `notes` say what the user must know besides."""

    run: Path
    rows: list[Row]
    interrupted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if row.rank == 1), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "trials": [row.to_dict() for row in self.rows],
            "best": self.best.to_dict() if self.best else None,
            "interrupted": self.interrupted,
            "notes": list(self.notes),
        }


def served(trainings: Iterable[Training]) -> dict[str, list[str]]:
    """operation -> the implementations that served it in these trainings."""
    found: dict[str, set[str]] = {}
    for row in trainings:
        for operation, names in row.facts.get("kernels", {}).items():
            found.setdefault(operation, set()).update(names)
    return {operation: sorted(found[operation]) for operation in sorted(found)}


def listed(kernels: Mapping[str, list[str]]) -> str:
    """In one line.

    >>> listed({"explicit": ["llvm"], "lean": ["convolution", "llvm"]})
    'explicit by llvm, lean by convolution and llvm'
    """
    return ", ".join(f"{name} by {' and '.join(ways)}" for name, ways in kernels.items())
