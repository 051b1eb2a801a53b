"""The table of choices: measured once, kept on disk, frozen, and whole whatever happens to it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kernels import choice

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of our own, and nothing in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = dict(choice._state)
    choice._state.update(table=None, frozen=None)
    yield tmp_path / "cache"
    choice._state.update(before)


def burning(seconds: float, calls: list[str] | None = None, name: str = "") -> Callable[[], None]:
    def run() -> None:
        if calls is not None:
            calls.append(name)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    return run


def test_the_faster_one_is_measured_once() -> None:
    calls: list[str] = []
    runs = {"slow": burning(0.003, calls, "slow"), "fast": burning(0.0005, calls, "fast")}
    assert choice.choose("key", runs) == "fast"
    seen = len(calls)
    assert choice.choose("key", runs) == "fast"
    assert len(calls) == seen


def test_a_tie_goes_to_the_one_in_front() -> None:
    runs = {"plain": burning(0.001), "other": burning(0.00099)}
    assert choice.choose("key", runs) == "plain"


def test_the_table_outlives_the_process() -> None:
    choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)})
    assert json.loads(choice.file().read_text()) == {"key": "b"}
    choice._state["table"] = None
    assert choice.choose("key", {"a": burning(0), "b": burning(0.01)}) == "b"


def test_an_implementation_that_is_gone_is_measured_anew() -> None:
    choice.file().parent.mkdir(parents=True)
    choice.file().write_text('{"key": "gone"}')
    assert choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)}) == "b"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"key": 3}', '{"key": {"a": 1}}', "\x00"])
def test_a_file_that_cannot_be_read_is_made_anew(
    content: str, caplog: pytest.LogCaptureFixture
) -> None:
    choice.file().parent.mkdir(parents=True)
    choice.file().write_text(content)
    assert choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)}) == "b"
    assert "measured anew" in caplog.text
    assert json.loads(choice.file().read_text()) == {"key": "b"}


def test_a_folder_that_cannot_be_written_costs_the_memory_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    assert choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)}) == "b"
    assert choice.table() == {"key": "b"}


def test_a_call_that_stalls_ends_its_round() -> None:
    """Quick when the calls of a round are counted, slow ever after: 200 calls would take 20 s."""
    calls = {"a": 0}

    def stalling() -> None:
        calls["a"] += 1
        time.sleep(0.1 if calls["a"] > 2 else 1e-5)

    assert choice.measured({"a": stalling}) == "a"
    assert calls["a"] <= 2 + choice.ROUNDS


def test_a_lock_that_is_never_given_back_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a process that was stopped while it wrote."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(choice, "PATIENCE", 0.02)
    choice.file().parent.mkdir(parents=True)
    with caplog.at_level(logging.INFO), choice.file().with_suffix(".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)}) == "b"
        assert "another process holds its lock" in caplog.text
        assert choice.table() == {"key": "b"} and not choice.file().exists()
    choice._save({"more": "a"} | choice.table())
    assert json.loads(choice.file().read_text()) == {"key": "b", "more": "a"}


def test_frozen_it_measures_nothing() -> None:
    def never() -> None:
        raise AssertionError("measured")

    with choice.frozen({"known": "b", "gone": "c"}):
        assert choice.choose("known", {"a": never, "b": never}) == "b"
        assert choice.choose("unknown", {"a": never, "b": never}) == "a"
        assert choice.choose("gone", {"a": never, "b": never}) == "a"
        assert choice.table() == {"known": "b", "gone": "c"}
    assert not choice.file().exists()


def test_what_was_measured_can_be_frozen_and_is_forgotten_behind() -> None:
    choice.choose("key", {"a": burning(0.002), "b": burning(0.0002)})
    kept, before = choice.table(), choice.version()
    with choice.frozen(kept):
        assert choice.version() != before
        assert choice.choose("key", {"a": burning(0), "b": burning(1)}) == "b"
    choice.forget()
    assert choice.table() == {}


def test_a_key_says_all_that_the_choice_depends_on() -> None:
    x = torch.zeros(3, 8, 5, 4)
    keys = {
        choice.key("lean", "forward", (x, None, 4)),
        choice.key("lean", "backward", (x, None, 4)),
        choice.key("lean", "forward", (x, None, 2)),
        choice.key("lean", "forward", (x.double(), None, 4)),
        choice.key("lean", "forward", (x.to(memory_format=torch.channels_last), None, 4)),
        choice.key("lean", "forward", (x, torch.zeros(2), 4)),
        choice.key("lean", "forward", (x[:, :4], None, 4)),
        choice.key("lean", "forward", (x[:1], None, 4)),
    }
    assert len(keys) == 8
    assert choice.key("lean", "forward", (x, None, 4)) == choice.key(
        "lean", "forward", (torch.zeros(4, 8, 5, 4), None, 4)
    )


def write(name: str) -> None:
    choice._state.update(table=None, frozen=None)
    for i in range(40):
        choice._save({f"{name} {i}": "a"})


def test_writers_at_the_same_moment_leave_a_whole_file() -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(name,)) for name in "pq"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = json.loads(choice.file().read_text())
    assert {f"{name} {i}" for name in "pq" for i in range(40)} == set(found)
    assert [path.name for path in choice.folder().glob("*.part")] == []
