"""What goes wrong in the middle of a search ends it in a sentence, and the run goes on later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FAKE, Counting

from kernels.backends import MissingComponentError
from nas.datasets import DataError
from nas.run import settings
from nas.search import resume, search
from nas.study import Training
from nas.table import rows

ASKED = {"data": "digits", "max_params": 1500, "trials": 2, "finalists": 1, "seeds": 2}


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (DataError("the data has changed"), DataError),
        (ImportError("No module named 'x'"), MissingComponentError),
        (ModuleNotFoundError("No module named 'x'"), MissingComponentError),
    ],
    ids=str,
)
def test_an_error_of_the_machine_ends_the_run(
    error: Exception, ends: type[Exception], tmp_path: Path
) -> None:
    def before(count: int, task: Mapping[str, Any]) -> None:
        if count == 3:
            raise error

    with pytest.raises(ends, match=r"changed|No module"):
        search(settings(**ASKED), tmp_path / "run", trainer=Counting(before).trainer)
    result = resume(tmp_path / "run", trainer=FAKE)
    assert not result.interrupted and result.best is not None


def test_the_same_rival_twice_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice_given.py").write_text(
        "from torch import nn\n\n\ndef block(c, f, s):\n    return nn.Conv2d(c, f, 3, s, 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    counting = Counting()
    asked = settings(**ASKED, rivals=("twice_given:block", "twice_given:block"))
    result = search(asked, tmp_path / "run", trainer=counting.trainer)
    rivals = [row for row in result.rows if row.known_as == "rival"]
    assert [row.state for row in rivals] == ["complete", "infeasible"]
    names = [(task["key"], task["repeat"]) for task in counting.trained]
    assert len(names) == len(set(names))


def test_a_failed_seed_costs_a_finalist_no_rank() -> None:
    """Finalists rank before the others, by the mean over the seeds that did not fail."""

    def row(key: str, repeat: int, accuracy: float | None) -> Training:
        facts = {
            "design": key,
            "candidate": key,
            "params": 1,
            "mults": 1,
            "width": 4,
            "blocks": [1],
            "traffic": 1,
            "seconds": 0.0,
        }
        reason = None if accuracy is not None else "diverged"
        return Training(key, repeat, {}, None, accuracy, reason, facts=facts)

    found = rows(
        [row("a", 0, 0.9), row("a", 1, None), row("b", 0, 0.1), row("b", 1, 0.1), row("c", 0, 1.0)],
        {},
        [],
    )
    assert [(one.design, one.rank) for one in found] == [("a", 1), ("b", 2), ("c", 3)]
