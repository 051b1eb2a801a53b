"""Who trains what: one driver alone, or several that share a study in PostgreSQL.

A driver claims a training before it begins it. A claim is a row with (study, key, repeat) as its
primary key, made in a transaction that holds the row of the study, so that of two drivers one gets
it, and the number of claimed designs never exceeds the trials that were asked for. A driver renews
its lease every few seconds; claims of a driver whose lease ran out are free again, by the clock of
the database. A result is stored while its claim is held locked: a driver that was given up, and
comes back, finds its claim gone and throws its result away. Weights go through the database too, so
that the drivers need no folder in common.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_new
from sqlalchemy.exc import SQLAlchemyError

from nas.files import RunError, storage_errors, write_atomically
from nas.run import RunFolder
from nas.team_tables import CLAIMS, DRIVERS, STUDIES, WEIGHTS

LEASE = 30.0
"""Seconds after which a driver that has not been heard of is given up."""


class Claim(Enum):
    """Ours to train, somebody else's, or one more than there are trials."""

    OURS = 1
    TAKEN = 2
    FULL = 3


class Team(Protocol):
    """What a driver must know of the others. driver, ordinal: its own name and number."""

    driver: str
    ordinal: int

    def claim(self, key: str, repeat: int, at_most: int | None = None) -> Claim:
        """Ask for a training; at_most: designs that may be claimed in this way by all together."""

    @contextmanager
    def storing(self, key: str, repeat: int) -> Iterator[bool]:
        """Around storing a result: whether it is still ours to store."""
        yield True

    def others(self) -> int:
        """Trainings that living drivers other than this one have under way."""

    def leave(self) -> None:
        """Give back what is claimed and not done."""

    def keep_weights(self, key: str, repeat: int, content: bytes) -> None: ...

    def weights(self, key: str, repeat: int) -> bytes:
        """Raises RunError where they are not there."""

    def drop_weights(self, key: str, repeat: int) -> None: ...


class Alone:
    """The one driver of a run folder, whose lock keeps others out."""

    driver = ""
    ordinal = 0

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def claim(self, key: str, repeat: int, at_most: int | None = None) -> Claim:
        return Claim.OURS

    @contextmanager
    def storing(self, key: str, repeat: int) -> Iterator[bool]:
        yield True

    def others(self) -> int:
        return 0

    def leave(self) -> None: ...

    def keep_weights(self, key: str, repeat: int, content: bytes) -> None:
        path = self._run.weights(key, repeat)
        with storage_errors(self._run.path):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)

    def weights(self, key: str, repeat: int) -> bytes:
        with storage_errors(self._run.path):
            return self._run.weights(key, repeat).read_bytes()

    def drop_weights(self, key: str, repeat: int) -> None:
        with storage_errors(self._run.path):
            self._run.weights(key, repeat).unlink(missing_ok=True)


class Shared:
    """One of several drivers on the study `name`.

    record: what must be equal for all of them, such as settings and data. stored(key, repeat):
    whether a result is in the ledger, as it is now. Raises RunError where the study was begun with
    another record.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        record: Mapping[str, Any],
        stored: Callable[[str, int], bool],
        folder: Path,
    ) -> None:
        self._engine, self._name, self._stored, self._folder = engine, name, stored, folder
        self.driver = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        with self._transaction() as connection:
            fresh = {"name": name, "record": json.dumps(record)}
            connection.execute(insert_new(STUDIES).values(fresh).on_conflict_do_nothing())
            found = self._locked(connection)
            _check(name, record, json.loads(found))
            own = select(func.count()).select_from(DRIVERS).where(DRIVERS.c.study == name)
            self.ordinal = connection.execute(own).scalar_one()
            connection.execute(insert(DRIVERS).values(self._alive()))
        self._ended = threading.Event()
        threading.Thread(target=self._renew, args=(LEASE,), daemon=True).start()

    def claim(self, key: str, repeat: int, at_most: int | None = None) -> Claim:
        with self._transaction() as connection:
            self._locked(connection)
            self._expire(connection)
            if at_most is not None:
                counted = self._claims().where(CLAIMS.c.counted)
                if connection.execute(counted).scalar_one() >= at_most:
                    return Claim.FULL
            row = {
                **self._row(key, repeat),
                "driver": self.driver,
                "counted": at_most is not None,
                "done": False,
            }
            new = insert_new(CLAIMS).values(row).on_conflict_do_nothing().returning(CLAIMS.c.key)
            made = connection.execute(new).first()
            return Claim.TAKEN if made is None else Claim.OURS

    @contextmanager
    def storing(self, key: str, repeat: int) -> Iterator[bool]:
        """The claim is locked meanwhile, and done afterwards."""
        with self._transaction() as connection:
            mine = self._is(CLAIMS, key, repeat) & (CLAIMS.c.driver == self.driver)
            done = connection.execute(update(CLAIMS).where(mine).values(done=True))
            yield bool(done.rowcount)

    def others(self) -> int:
        with self._transaction() as connection:
            self._expire(connection)
            foreign = (CLAIMS.c.driver != self.driver) & ~CLAIMS.c.done
            found: int = connection.execute(self._claims().where(foreign)).scalar_one()
            return found

    def leave(self) -> None:
        self._ended.set()
        with self._transaction() as connection:
            own = (CLAIMS.c.study == self._name) & (CLAIMS.c.driver == self.driver)
            connection.execute(delete(CLAIMS).where(own, ~CLAIMS.c.done))

    def keep_weights(self, key: str, repeat: int, content: bytes) -> None:
        values = {**self._row(key, repeat), "content": content}
        with self._transaction() as connection:
            connection.execute(
                insert_new(WEIGHTS)
                .values(values)
                .on_conflict_do_update(constraint=WEIGHTS.primary_key, set_={"content": content})
            )

    def weights(self, key: str, repeat: int) -> bytes:
        with self._transaction() as connection:
            asked = select(WEIGHTS.c.content).where(self._is(WEIGHTS, key, repeat))
            content = connection.execute(asked).scalar_one_or_none()
        if content is None:
            raise RunError(f"the study {self._name!r} has lost the weights of {key}")
        return bytes(content)

    def drop_weights(self, key: str, repeat: int) -> None:
        with self._transaction() as connection:
            connection.execute(delete(WEIGHTS).where(self._is(WEIGHTS, key, repeat)))

    # ---- small things ------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with storage_errors(self._folder), self._engine.begin() as connection:
            yield connection

    def _locked(self, connection: Connection) -> str:
        """The record of the study, whose row is ours until the transaction ends."""
        asked = select(STUDIES.c.record).where(STUDIES.c.name == self._name).with_for_update()
        record: str = connection.execute(asked).scalar_one()
        return record

    def _expire(self, connection: Connection) -> None:
        """Free the claims of drivers that have not been heard of, but those whose result is stored:
        their driver died just before it could say so."""
        oldest = func.now() - text(f"interval '{LEASE} seconds'")
        dead = select(DRIVERS.c.id).where(DRIVERS.c.study == self._name, DRIVERS.c.renewed < oldest)
        left = (CLAIMS.c.study == self._name) & ~CLAIMS.c.done & CLAIMS.c.driver.in_(dead)
        for key, repeat in connection.execute(select(CLAIMS.c.key, CLAIMS.c.repeat).where(left)):
            one = left & self._is(CLAIMS, key, repeat)
            if self._stored(key, repeat):
                connection.execute(update(CLAIMS).where(one).values(done=True))
            else:
                connection.execute(delete(CLAIMS).where(one))

    def _renew(self, lease: float) -> None:
        """In a thread of its own; while the database is away, the driver itself meets the error."""
        while not self._ended.wait(lease / 6):
            with suppress(SQLAlchemyError), self._engine.begin() as connection:
                mine = update(DRIVERS).where(DRIVERS.c.id == self.driver)
                connection.execute(mine.values(renewed=func.now()))

    def _alive(self) -> dict[str, Any]:
        host, pid = socket.gethostname(), os.getpid()
        own = {"id": self.driver, "study": self._name, "host": host, "pid": pid}
        return {**own, "renewed": func.now()}

    def _row(self, key: str, repeat: int) -> dict[str, Any]:
        return {"study": self._name, "key": key, "repeat": repeat}

    def _is(self, table: Table, key: str, repeat: int) -> Any:
        columns = table.c
        return (columns.study == self._name) & (columns.key == key) & (columns.repeat == repeat)

    def _claims(self) -> Any:
        return select(func.count()).select_from(CLAIMS).where(CLAIMS.c.study == self._name)


def _check(name: str, asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises RunError that names what differs."""
    asked = json.loads(json.dumps(asked))
    differing = [
        f"{key} is {found.get(key)!r} there and {asked.get(key)!r} here"
        for key in sorted({*asked, *found})
        if asked.get(key) != found.get(key)
    ]
    if differing:
        raise RunError(
            f"the study {name!r} was begun with other settings: {'; '.join(differing)}; "
            "join it with its own, or name another with --study"
        )
