"""Files that are whole or absent, and a full disk told as a sentence."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
ROOM = 1 << 20
"""Bytes without which SQLite cannot work."""


class RunError(ValueError):
    """A run cannot be begun, continued or read; the message says why and what would be valid."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole and on the disk; after any failure `path` is as before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """What goes wrong while a run reads or writes its files, as a RunError.

    SQLite's transactions and `write_atomically` leave what was there before, so the run goes on
    from its last finished training.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        cause = _storage_cause(error)
        if cause is None:
            raise
        kept = f"every finished training is kept: go on with --resume {folder} when that is mended"
        if _is_database(cause):
            words = " ".join(str(cause).split())
            raise RunError(f"the database of the study: {words}; {kept}") from error
        what = "no space is left on the disk" if _is_full(cause, folder) else str(cause)
        raise RunError(f"{folder} cannot be read or written: {what}; {kept}") from error


def _storage_cause(error: BaseException | None) -> BaseException | None:
    """The error of the operating system or of a database that lies below `error`, if one does."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (OSError, sqlite3.Error)) or _is_database(error):
            return error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _is_database(error: BaseException) -> bool:
    """Whether PostgreSQL says this; its driver is not imported where it is not used."""
    return type(error).__module__.partition(".")[0] == "psycopg"


def _is_full(cause: BaseException, folder: Path) -> bool:
    """SQLite calls a full disk so in most places, and an I/O error in some."""
    if isinstance(cause, OSError):
        return cause.errno in FULL
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK)
    short = code & 0xFF == sqlite3.SQLITE_IOERR and shutil.disk_usage(folder).free < ROOM
    return code == sqlite3.SQLITE_FULL or short
