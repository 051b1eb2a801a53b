"""The run folder: what it refuses, and that nothing is half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas import run as run_module
from nas.files import RunError, storage_errors, write_atomically
from nas.run import RunFolder, Settings, read_record, settings
from nas.study import Ledger, Training, opened


def begun(path: Path) -> RunFolder:
    folder = RunFolder.create(path)
    folder.begin(settings(max_params=1000), {"epochs": 1}, "abc")
    return folder


def test_run_json_holds_settings_versions_machine_data_and_times(tmp_path: Path) -> None:
    with begun(tmp_path / "run") as folder:
        folder.finish()
    record = read_record(tmp_path / "run")
    assert record.settings == Settings(max_params=1000)
    assert record.data_fingerprint == "abc"
    assert set(record.versions) >= {"python", "torch", "optuna"}
    assert int(record.machine["cores"]) >= 1
    assert record.finished is not None and record.created <= record.finished


def test_settings_name_every_invalid_value() -> None:
    with pytest.raises(RunError, match=r"trials is 0: .*; sampler is 'magic': .*'tpe'") as error:
        settings(trials=0, sampler="magic")
    assert "pydantic" not in str(error.value) and "\n" not in str(error.value)


def test_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists already; choose another"):
        RunFolder.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_existing_run_says_resume(tmp_path: Path) -> None:
    begun(tmp_path / "run").__exit__(None, None, None)
    with pytest.raises(RunError, match=r"--resume .*run"):
        RunFolder.create(tmp_path / "run")


def test_folder_in_which_nothing_was_begun_goes_away(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file" / "run", Path("/proc/nowhere/run")):
        with pytest.raises(RunError, match="cannot write the run folder"):
            RunFolder.create(impossible)


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"it has no run\.json"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 1, "settings": {}}')
    with pytest.raises(RunError, match="data_fingerprint"):
        RunFolder.open(tmp_path)


def test_run_of_another_version(tmp_path: Path) -> None:
    begun(tmp_path / "run").__exit__(None, None, None)
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 2}))
    with pytest.raises(RunError, match=r"schema version 2; .* reads version 1 only"):
        RunFolder.open(tmp_path / "run")


def _hold(path: str, ready: Any, forever: Any) -> None:
    with RunFolder.open(Path(path)):
        ready.set()
        forever.wait()


def test_two_drivers_cannot_own_a_run_and_a_kill_frees_it(tmp_path: Path) -> None:
    begun(tmp_path / "run").__exit__(None, None, None)
    context = multiprocessing.get_context("spawn")
    ready, forever = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "run"), ready, forever))
    other.start()
    assert ready.wait(30)
    with pytest.raises(RunError, match="in use by another search"):
        RunFolder.open(tmp_path / "run")
    other.kill()
    other.join()
    with RunFolder.open(tmp_path / "run"):
        pass


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="no space is left"), storage_errors(tmp_path):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_errors_that_are_not_of_the_disk_pass_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize("name", ["plain", "a b", "50%?x=1#{2}"])
def test_ledger_keeps_what_was_added(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    row = Training("key", 1, {"design": "PW"}, "rival", 0.5, facts={"curve": [0.25, 0.5]})
    with opened(folder) as storage:
        Ledger(storage).add(row)
    with opened(folder) as storage:
        ledger = Ledger(storage)
    assert ledger.rows == [row] and ledger.get("key", 1) == row and ledger.get("key") is None


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(RunError, match="file is not a database"), opened(tmp_path):
        pass


@pytest.fixture(params=["full disk", "quota"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder and the largest size of a file in it: a file system of 1 MiB, or a limit."""
    if request.param == "quota":
        yield tmp_path, 400_000
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("a file system of 1 MiB cannot be mounted here; the quota stands for it")
    yield tmp_path, resource.RLIM_INFINITY
    subprocess.run(["umount", str(tmp_path)], check=True)


def _fill(path: str, limit: int, answer: Any) -> None:
    """Add rows until nothing more can be written."""
    folder = Path(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with opened(folder) as storage:
        ledger = Ledger(storage)
        try:
            while True:
                ledger.add(Training(str(len(ledger.rows)), 0, {"filler": "x" * 10_000}))
        except RunError as error:
            answer.put((len(ledger.rows), str(error)))


@pytest.mark.slow
def test_full_disk_keeps_every_finished_row(narrow: tuple[Path, int]) -> None:
    folder, limit = narrow
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_fill, args=(str(folder), limit, answer))
    process.start()
    count, sentence = answer.get(timeout=60)
    process.join()
    why = "disk I/O error" if limit > 0 else "no space is left on the disk"
    assert why in sentence and f"--resume {folder}" in sentence
    with opened(folder) as storage:
        assert [row.key for row in Ledger(storage).rows] == [str(i) for i in range(count)]
    assert count > 5


def test_schema_of_the_record_is_the_one_that_is_checked() -> None:
    assert run_module.Record.model_fields["schema_version"].default == run_module.SCHEMA
