"""A search whose trainings all fail ends with the reason, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import Counting

from nas.failures import IN_A_ROW, Failures
from nas.files import RunError
from nas.run import settings
from nas.search import resume, search
from nas.table import table

ASKED = {"data": "digits", "max_params": 1500, "trials": 12, "finalists": 1, "seeds": 1}


def broken(count: int, task: Mapping[str, Any]) -> None:
    raise ZeroDivisionError(f"no gradient at step {count}")


def test_trainings_that_all_fail_end_the_search(tmp_path: Path) -> None:
    run = tmp_path / "run"
    counting = Counting(broken)
    asked = settings(**ASKED, sampler="random")
    with pytest.raises(RunError, match=rf"10 .*ZeroDivisionError: no gradient .*--resume {run}"):
        search(asked, run, trainer=counting.trainer)
    assert len(counting.trained) == IN_A_ROW
    failed = {row.key for row in table(run) if row.state == "failed"}
    assert failed == {task["key"] for task in counting.trained}
    mended = Counting()
    result = resume(run, trainer=mended.trainer)
    assert failed.isdisjoint(task["key"] for task in mended.trained)
    assert result.best is not None and not result.interrupted
    assert {row.key for row in result.rows if row.state == "failed"} == failed
    searched = [r for r in result.rows if r.state != "infeasible" and r.known_as is None]
    assert len(searched) == asked.trials


def test_a_search_goes_on_where_some_trainings_succeed_or_fail_otherwise(tmp_path: Path) -> None:
    def before(count: int, task: Mapping[str, Any]) -> None:
        if count % IN_A_ROW == 5:
            raise ValueError("another reason")
        if count % IN_A_ROW:
            raise RuntimeError("no luck")

    asked = settings(**ASKED, sampler="random")
    result = search(asked, tmp_path / "run", trainer=Counting(before).trainer)
    assert not result.interrupted
    assert sum(row.state == "failed" for row in result.rows) > IN_A_ROW


def test_as_many_must_fail_as_run_side_by_side(tmp_path: Path) -> None:
    counted = Failures(3 * IN_A_ROW, tmp_path)
    for step in range(3 * IN_A_ROW - 1):
        counted.add(f"nan at step {step}")
    with pytest.raises(RunError, match="30 trainings in a row"):
        counted.add("nan at step 7")


def test_a_success_between_them_starts_the_count_anew(tmp_path: Path) -> None:
    counted = Failures(1, tmp_path)
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            counted.add("no luck")
        counted.add(None)
