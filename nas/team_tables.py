"""What the drivers of one study in PostgreSQL tell each other: tables beside Optuna's.

A study and what its drivers have in common; the drivers, with the time of their last sign of life;
who trains what; the weights of those that may still be needed.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Integer, LargeBinary, MetaData, Table, Text

TABLES = MetaData()
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
    Column("study", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("repeat", Integer, primary_key=True),
    Column("driver", Text, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("done", Boolean, nullable=False),
)
WEIGHTS = Table(
    "leanfield_weights",
    TABLES,
    Column("study", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("repeat", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
