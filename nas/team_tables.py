"""What the drivers of one study in PostgreSQL tell each other: tables beside Optuna's.

A study and what its drivers have in common; the drivers, with the time of their last sign of life;
who trains what; the weights of those that may still be needed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, DateTime, Integer, LargeBinary, MetaData, Table, Text

TABLES = MetaData()


def _training() -> list[Column[Any]]:
    """What tells a training from all others; each table needs columns of its own."""
    columns = {"study": Text, "key": Text, "repeat": Integer}
    return [Column(name, kind, primary_key=True) for name, kind in columns.items()]


STUDIES = Table(
    "leanfield_study",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("record", Text, nullable=False),
)
DRIVERS = Table(
    "leanfield_driver",
    TABLES,
    Column("id", Text, primary_key=True),
    Column("study", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("renewed", DateTime(timezone=True), nullable=False),
)
CLAIMS = Table(
    "leanfield_claim",
    TABLES,
    *_training(),
    Column("driver", Text, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("done", Boolean, nullable=False),
)
WEIGHTS = Table(
    "leanfield_weights",
    TABLES,
    *_training(),
    Column("content", LargeBinary, nullable=False),
)
