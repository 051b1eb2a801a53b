"""SparseKernelBench: what designs reach after brief and after long training, as a table to ask.

    bench = SparseKernelBench.load()
    bench.pairs(half="A", budget=5000)                              one row a design and budget
    bench.accuracy("GC(4)+PWG(4) x1-1-1", 15000)                    0.79, long, mean of its seeds
    bench.accuracies("brief", half="B")                             designs and budgets x seeds
    bench.costs("STD x2-2-2", 5000)                                 parameters, field, scores, ...

A design is a block with its blocks a stage, as `str(nas.candidates.Candidate)` writes it; its width
comes with the budget. All networks were trained on hard-digits by `benchmarks.sparse_kernel_bench`
(`.generate`, `.pack`); `pack.SCHEMA` says what each column holds, `protocols.PROTOCOLS` what each
schedule is. Nothing here needs torch.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TABLE = Path(__file__).parent / "table.parquet"
LONG, BRIEF = "long", "brief"

TRAINING = (
    "schedule", "seed", "accuracy", "loss", "test_accuracy", "test_loss", "curve", "failure",
    "seconds", "machine", "versions",
)  # fmt: skip
"""The columns of a training; all others are of its design and budget."""


class BenchError(ValueError):
    """What the table does not hold; the message says what it does."""


@dataclass(frozen=True)
class SparseKernelBench:
    """The table, one row a training, and what its file says about itself.

    record: version, data, data_fingerprint, schedules (by name), columns, fingerprint.
    """

    trainings: pd.DataFrame
    record: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path = TABLE) -> SparseKernelBench:
        """From a file that `pack` wrote. Raises BenchError where there is none."""
        import pyarrow.parquet as parquet

        try:
            table = parquet.read_table(path)
            record = json.loads(table.schema.metadata[b"sparse_kernel_bench"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BenchError(f"{path} is no table of SparseKernelBench: {error}") from error
        return cls(table.to_pandas(), MappingProxyType(record))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the rows say, as it was when they were packed."""
        return str(self.record["fingerprint"])

    @property
    def schedules(self) -> tuple[str, ...]:
        """The names of the schedules by which something was trained."""
        return tuple(sorted(self.trainings["schedule"].unique()))

    def pairs(self, schedule: str | None = None, **filters: Any) -> pd.DataFrame:
        """One row a design and budget, with all that is known without training.

        schedule: those only that were trained by it. filters: columns and the value that they must
        have, `half="A"`, `complete=False`. Raises BenchError for unknown ones.
        """
        rows = self._filtered(schedule, filters)
        columns = [name for name in rows.columns if name not in TRAINING]
        return rows[columns].drop_duplicates(["design", "budget"]).reset_index(drop=True)

    def accuracies(
        self, schedule: str = LONG, *, column: str = "accuracy", **filters: Any
    ) -> pd.DataFrame:
        """Designs and budgets by seeds: a training that failed, or is not there, is NaN.

        column: accuracy, loss, test_accuracy, test_loss or seconds.
        """
        self._check_column(column)
        rows = self._filtered(schedule, filters)
        return rows.pivot(index=["design", "budget"], columns="seed", values=column)

    def accuracy(
        self, design: str, budget: int, schedule: str = LONG, seed: int | None = None
    ) -> float:
        """On the validation split; the mean over the seeds unless one is given, NaN where a
        training failed. Raises BenchError for what was not trained."""
        rows = self._pair(design, budget)
        by = self._filtered(schedule, {"design": design, "budget": budget})
        if by.empty:
            have = ", ".join(sorted(rows["schedule"].unique()))
            raise BenchError(f"{design} at {budget} was not trained by {schedule!r}, but by {have}")
        if seed is not None:
            if seed not in set(by["seed"]):
                have = ", ".join(map(str, sorted(by["seed"])))
                raise BenchError(f"{design} at {budget} has no {schedule} seed {seed}, but {have}")
            by = by[by["seed"] == seed]
        return math.nan if by["accuracy"].isna().any() else float(by["accuracy"].mean())

    def curve(self, design: str, budget: int, schedule: str, seed: int) -> dict[int, float]:
        """Accuracy after each judged epoch."""
        self.accuracy(design, budget, schedule, seed)
        asked = {"design": design, "budget": budget, "seed": seed}
        (points,) = self._filtered(schedule, asked)["curve"]
        definition = self.record["schedules"][schedule]
        every, last = definition["every"], definition["schedule"]["epochs"]
        epochs = sorted({last, *range(every, last + 1, every)})
        return {epoch: float(value) for epoch, value in zip(epochs, points, strict=False)}

    def costs(self, design: str, budget: int) -> dict[str, Any]:
        """What is known without training, by column. Raises BenchError for an unknown pair."""
        first = self._pair(design, budget).iloc[0]
        return {name: first[name] for name in first.index if name not in TRAINING}

    def _pair(self, design: str, budget: int) -> pd.DataFrame:
        self._check_value("design", design)
        self._check_value("budget", budget)
        rows = self.trainings[
            (self.trainings["design"] == design) & (self.trainings["budget"] == budget)
        ]
        if rows.empty:
            raise BenchError(f"{design} was not trained at {budget} parameters")
        return rows

    def _filtered(self, schedule: str | None, filters: Mapping[str, Any]) -> pd.DataFrame:
        asked = dict(filters) if schedule is None else {"schedule": schedule, **filters}
        rows = self.trainings
        for name, value in asked.items():
            self._check_column(name)
            self._check_value(name, value)
            rows = rows[rows[name] == value]
        return rows

    def _check_column(self, name: str) -> None:
        if name not in self.trainings.columns:
            raise BenchError(_unknown("column", name, list(self.trainings.columns)))

    def _check_value(self, name: str, value: Any) -> None:
        known = self.trainings[name]
        if not (known == value).any():
            raise BenchError(_unknown(name, value, [str(one) for one in known.unique()]))


def _unknown(what: str, asked: Any, known: list[str]) -> str:
    """The nearest of the known ones, or all where they are few."""
    listed = known if len(known) <= 40 else difflib.get_close_matches(str(asked), known, 3, 0.3)
    hint = f"; near are {', '.join(listed)}" if listed else ""
    return f"SparseKernelBench has no {what} {asked!r}{hint}"
