"""The run folder: all that a search is asked, finds and leaves.

run.json         settings, seed, versions, machine, fingerprint of the data, times
study.db         SQLite through Optuna: the one source of truth (`nas.study`), unless --storage is
trials.parquet   one table of all trials, made from study.db (`nas.table`)
weights/         of the networks that may still become finalists; gone at the end
winners/         one folder a finalist: network.json, weights.safetensors, stand-alone code
lock             held by the driver that owns the run; the kernel frees it, whatever kills it
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nas.files import RunError, storage_errors, write_atomically
from nas.machine import machine, versions
from nas.objectives import ACCURACY, checked

SCHEMA: Literal[1] = 1


def _executor(text: str) -> str:
    if re.fullmatch(r"in-process|processes|dask:\S+", text) is None:
        raise ValueError("valid are in-process, processes and dask:tcp://HOST:8786")
    return text


def _database(url: str) -> str:
    if re.match(r"postgresql(\+psycopg)?://", url) is None:
        raise ValueError(
            "valid is postgresql://USER@HOST/DATABASE; without it the run folder holds an SQLite "
            "file of its own, which one driver uses"
        )
    return url


OWN = {"workers", "executor", "per_gpu", "trial_timeout", "storage", "study"}
"""Settings in which the drivers of one study may differ."""

Positive = Annotated[int, Field(gt=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(_Record):
    """Every argument of a search. Make it with `settings`, whose errors are sentences.

    Limits count parameters, multiplications, bytes and seconds of one image, on the network for
    `deploy` (such as "3x224x224:1000") or, without it, for the data. `trials` different designs
    are trained, by the schedule `nas.schedule.BRIEF` (for `epochs`, where given); the best
    `finalists` of them and the known blocks with `seeds` seeds. A training takes `threads` threads:
    one by default, so that results do not depend on the number of cores; `workers` use more cores.

    sampler: "model" is ours (`nas.model`), the others are Optuna's. objectives: accuracy and
    perhaps costs (`nas.objectives`), which make the width vary. early_stopping: of searched
    designs, where the schedule has 4 epochs or more (`nas.stopping`).

    executor: "in-process", "processes" or "dask:ADDRESS of a scheduler"; unless given, processes
    where there are several workers or a time limit. trial_timeout: seconds of a training. per_gpu:
    workers on each GPU. storage: a PostgreSQL database in which drivers with equal settings share
    the study `study`.
    """

    data: str = "hard-digits"
    max_params: Positive | None = None
    max_mults: Positive | None = None
    max_traffic: Positive | None = None
    max_latency: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    deploy: str | None = None
    vocabulary: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    allow_incomplete: bool = False
    trials: Positive = 24
    finalists: Positive = 5
    seeds: Positive = 3
    epochs: Positive | None = None
    workers: Positive = 1
    threads: Positive = 1
    sampler: Literal["model", "tpe", "nsga2", "random", "gp"] = "model"
    objectives: Annotated[tuple[str, ...], AfterValidator(checked)] = (ACCURACY,)
    early_stopping: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    executor: Annotated[str, AfterValidator(_executor)] | None = None
    trial_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    per_gpu: Positive | None = None
    storage: Annotated[str, AfterValidator(_database)] | None = None
    study: Annotated[str, Field(min_length=1)] = "leanfield"

    def without_password(self) -> Settings:
        """For a file that others may read; a password is better kept in ~/.pgpass."""
        if self.storage is None:
            return self
        parts = urlsplit(self.storage)
        user, at, host = parts.netloc.rpartition("@")
        bare = parts._replace(netloc=user.partition(":")[0] + at + host)
        return self.model_copy(update={"storage": urlunsplit(bare)})


class Record(_Record):
    """run.json. choices: the table of implementations that all trainings were given, a key of
    `kernels.choice` each; what it does not hold is the first in order that serves. kernels: which
    ones have served, by operation.
    """

    schema_version: Literal[1] = SCHEMA
    settings: Settings
    schedule: dict[str, Any]
    data_fingerprint: str
    versions: dict[str, str]
    machine: dict[str, str]
    created: str
    finished: str | None = None
    choices: dict[str, str] = {}
    kernels: dict[str, list[str]] = {}

    def shared(self) -> dict[str, Any]:
        """What is equal for all drivers of one study: everything on which a result depends."""
        settings = self.settings.model_dump(mode="json", exclude=OWN)
        return {**settings, "schedule": self.schedule, "data_fingerprint": self.data_fingerprint}


def settings(**values: Any) -> Settings:
    """Checked settings. Raises RunError that names every value which is not valid."""
    try:
        return Settings(**values)
    except ValidationError as error:
        raise RunError(_sentences(error)) from None


@dataclass
class RunFolder:
    """A run folder that this process owns, as a context manager: leaving frees it."""

    path: Path
    _record: Record | None
    _lock: IO[str]
    _made: tuple[Path, ...] = ()

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new folder, owned and empty; raises RunError where it exists or cannot be written."""
        made = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - {"lock"}):
            go_on = f"go on with --resume {path} or " if (path / "run.json").is_file() else ""
            raise RunError(f"{path} exists already; {go_on}choose another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
            return cls(path, None, lock, made)
        except OSError as error:
            _remove(made)
            raise RunError(f"cannot write the run folder {path}: {error.strerror}") from None

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run to go on with; raises RunError where it is none or belongs to another driver."""
        record = read_record(path)
        try:
            return cls(path, record, _locked(path))
        except OSError as error:
            raise RunError(f"cannot write the run folder {path}: {error.strerror}") from None

    @property
    def record(self) -> Record:
        """What run.json holds. Raises RunError before `begin`."""
        if self._record is None:
            raise RunError(f"nothing was begun in {self.path} yet")
        return self._record

    def begin(self, asked: Settings, schedule: Mapping[str, Any], fingerprint: str) -> None:
        """Write run.json: from here on the run can be resumed."""
        self._write(
            Record(
                settings=asked.without_password(),
                schedule=dict(schedule),
                data_fingerprint=fingerprint,
                versions=versions(),
                machine=machine(),
                created=_now(),
            )
        )

    def finish(self, kernels: Mapping[str, list[str]] | None = None) -> None:
        """Note the time of the end and which implementations served; drop the weights that are in
        winners/ or of no use."""
        if self.record.finished is None:
            found = {"finished": _now(), "kernels": dict(kernels or {})}
            self._write(self.record.model_copy(update=found))
        shutil.rmtree(self.path / "weights", ignore_errors=True)

    def weights(self, key: str, repeat: int) -> Path:
        """Where a training leaves its weights."""
        return self.path / "weights" / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}-{repeat}"

    def _write(self, record: Record) -> None:
        with storage_errors(self.path):
            write_atomically(
                self.path / "run.json", record.model_dump_json(indent=2).encode() + b"\n"
            )
        self._record = record

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the run; a folder in which nothing was begun is removed again."""
        if self._record is None:
            with suppress(OSError):
                (self.path / "lock").unlink()
            _remove(self._made)
        self._lock.close()


def read_record(path: Path) -> Record:
    """What run.json says. Raises RunError: no run folder, or one of another version."""
    if not path.is_dir():
        raise RunError(f"there is no run folder {path}")
    file = path / "run.json"
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no run.json")
    try:
        data = json.loads(file.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{file} is not valid JSON: {error}") from None
    found = data.get("schema_version") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise RunError(
            f"{path} is a run of schema version {found}; this version of leanfield reads "
            f"version {SCHEMA} only"
        )
    try:
        return Record.model_validate(data)
    except ValidationError as error:
        raise RunError(f"{file}: {_sentences(error)}") from None


def _locked(path: Path) -> IO[str]:
    """The lock of the folder, held; raises RunError while another driver holds it."""
    lock = (path / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunError(
            f"{path} is in use by another search; wait for its end or stop it first"
        ) from None
    return lock


def _remove(folders: tuple[Path, ...]) -> None:
    """Remove empty folders, innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _sentences(error: ValidationError) -> str:
    """Each invalid value, where it stands and why."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'settings'} is {item['input']!r}: "
        f"{item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
