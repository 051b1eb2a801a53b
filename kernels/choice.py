"""Which implementation serves a call on the CPU: measured once, remembered on disk.

    table: "lean forward float32 last 1 | 64,64,56,56 64,64 ..." -> "llvm"

A call is timed on its own arguments the first time that its key is seen, a few milliseconds in all:
the candidates in turn, the best of several rounds each, in thread time where one thread computes.
A candidate has to be 5 % faster than the one before it in order, so that noise does not decide.
The table lies in the user's cache folder, one file for a processor and versions of what computes;
it is written whole or not at all, and one that cannot be read is made anew. A writer that finds it
locked for long goes on without writing.

    with frozen(table): ...     this table and the order elsewhere; nothing is measured

    with using("torch"): ...    calls that name no back end are served by plain torch

`frozen` is how a search gets the same table for the same seed. `record()` says who served.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

log = logging.getLogger("leanfield.kernels")

ROUNDS = 5
WINDOW = 0.002
"""Seconds that a candidate runs in each round, at least one call."""
PATIENT = 0.05
"""Seconds after which a round ends with the calls that it has made: where cores are shared, threads
that wait for each other may take a thousand times as long as the call before."""
SLOW, HOPELESS = 0.02, 5
"""A candidate is called once only if that takes more seconds, and as many times the best so far."""
LEAD = 0.95
"""A candidate further back in order is taken if its time is below this share."""
PATIENCE = 1.0
"""Seconds that a writer waits for another, which may have been stopped with the lock in hand."""

_state: dict[str, Any] = {"frozen": None, "table": None, "version": 0, "backend": "auto"}
_served: dict[str, dict[str, None]] = {}
_passed: dict[tuple[str, str], str] = {}


# ---- choosing ------------------------------------------------------------------------------------


def applies(x: Tensor) -> bool:
    """Whether there is anything to measure: on the CPU, and not nothing."""
    return x.device.type == "cpu" and x.numel() > 0


def choose(key: str, runs: Mapping[str, Callable[[], object]]) -> str:
    """The candidate of a key; `runs` in order, the likely best first."""
    first = next(iter(runs))
    if (given := _state["frozen"]) is not None:
        return given[key] if given.get(key) in runs else first
    table = _table()
    if table.get(key) not in runs:
        table[key] = measured(runs)
        _save(table)
    return table[key]


def measured(runs: Mapping[str, Callable[[], object]]) -> str:
    """The fastest, in doubt the one further in front."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    counts: dict[str, int] = {}
    least = float("inf")
    for name, run in runs.items():
        begin = time.perf_counter()
        run()
        once = time.perf_counter() - begin
        if once > SLOW and once > HOPELESS * least:
            continue
        begin = time.perf_counter()
        run()
        again = time.perf_counter() - begin
        least = min(least, again)
        counts[name] = max(1, int(WINDOW / max(again, 1e-9)))
    runs = {name: runs[name] for name in counts}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begin, done, limit = clock(), 0, time.perf_counter() + PATIENT
            while done < counts[name] and time.perf_counter() < limit:
                run()
                done += 1
            best[name] = min(best[name], (clock() - begin) / done)
    names = iter(best)
    chosen = next(names)
    for name in names:
        if best[name] < LEAD * best[chosen]:
            chosen = name
    log.debug("measured %s: %s", best, chosen)
    return chosen


def key(operation: str, direction: str, arguments: tuple[Any, ...]) -> str:
    """What a choice depends on. The batch counts as the next power of two."""
    x = arguments[0]
    layout = "last" if x.dim() == 4 and x.stride(1) == 1 else "first"
    batch = 1 << max(0, int(x.shape[0]) - 1).bit_length()
    shapes = [(batch, *x.shape[1:])]
    shapes += [tuple(a.shape) if isinstance(a, Tensor) else a for a in arguments[1:]]
    words = " ".join(_word(shape) for shape in shapes)
    kind = str(x.dtype).removeprefix("torch.")
    return f"{operation} {direction} {kind} {layout} {torch.get_num_threads()} | {words}"


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def version() -> int:
    """It changes with what `frozen` gives, so that earlier choices are forgotten."""
    return int(_state["version"])


@contextmanager
def frozen(table: Mapping[str, str]) -> Iterator[None]:
    """Take choices from this table, else the first in order; measure nothing."""
    before = _state["frozen"]
    freeze(table)
    try:
        yield
    finally:
        freeze(before)


def freeze(table: Mapping[str, str] | None) -> None:
    """As `frozen`, from now on; None measures again."""
    _state["frozen"] = None if table is None else dict(table)
    _state["version"] += 1


def backend() -> str:
    """The back end of calls that name none."""
    return str(_state["backend"])


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Let calls that name no back end be served by this one, such as "torch"."""
    before = _state["backend"]
    _state["backend"] = backend
    try:
        yield
    finally:
        _state["backend"] = before


def table() -> dict[str, str]:
    """The choices that hold now: frozen, or measured here so far."""
    return dict(_table() if _state["frozen"] is None else _state["frozen"])


# ---- what was chosen -----------------------------------------------------------------------------


def serve(operation: str, implementation: str) -> None:
    """Note that an implementation serves an operation."""
    _served.setdefault(operation, {})[implementation] = None


def pass_over(operation: str, implementation: str, reason: str) -> None:
    """Note, and log the first time, why an implementation could not serve."""
    if (operation, implementation) not in _passed:
        log.info("%s is not served by %s: %s", operation, implementation, reason)
        _passed[operation, implementation] = reason


def record(*, clear: bool = False) -> dict[str, list[str]]:
    """operation -> implementations that have served it in this process."""
    found = {operation: list(names) for operation, names in sorted(_served.items())}
    if clear:
        _served.clear()
        _state["version"] += 1
    return found


def reasons() -> dict[str, str]:
    """ "operation by implementation" -> the first reason for which it was passed over."""
    return {f"{operation} by {way}": reason for (operation, way), reason in sorted(_passed.items())}


def forget_reasons() -> None:
    """So that they are logged again."""
    _passed.clear()
    _state["version"] += 1


# ---- the file ------------------------------------------------------------------------------------


def folder() -> Path:
    """$XDG_CACHE_HOME/leanfield, by default ~/.cache/leanfield."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "leanfield"


def file() -> Path:
    """The table of this processor and these versions."""
    return folder() / f"kernels-{_fingerprint()}.json"


def forget() -> None:
    """Remove the table, so that everything is measured anew."""
    with suppress(OSError):
        file().unlink(missing_ok=True)
    _state["table"] = None
    _state["version"] += 1


def _table() -> dict[str, str]:
    if _state["table"] is None:
        _state["table"] = _read()
    return _state["table"]


def _read() -> dict[str, str]:
    try:
        found = json.loads(file().read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); choices are measured anew", file(), error)
        return {}
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        log.warning("%s is not a table of choices; they are measured anew", file())
        return {}
    return found


def _save(table: dict[str, str]) -> None:
    """Merge with what others wrote; a folder that cannot be written costs the memory only."""
    path = file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("a") as lock:
            _hold(lock)
            draft = path.with_suffix(f".{os.getpid()}.part")
            draft.write_text(json.dumps(_read() | table, indent=0, sort_keys=True))
            draft.replace(path)
    except OSError as error:
        log.info("%s cannot be written: %s", path, error)


def _hold(lock: IO[str]) -> None:
    """Take the lock; where there is none of the kind, a writer may undo another's entry.

    Raises TimeoutError after PATIENCE seconds.
    """
    with suppress(ImportError):
        import fcntl

        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() - begin > PATIENCE:
                    raise TimeoutError("another process holds its lock") from None
                time.sleep(0.01)


@cache
def _fingerprint() -> str:
    """Of the processor and of what computes."""
    parts = [platform.machine(), _processor()]
    for package in ("torch", "numba", "llvmlite"):
        with suppress(metadata.PackageNotFoundError):
            parts.append(f"{package} {metadata.version(package)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.partition(":")[2].strip()
    return platform.processor()
