"""SIGKILL at random moments: no finished training is lost, none is done again.

Ten searches on SQLite, half of them with two worker processes; see `killing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FAKE, LOGGED_REAL
from killing import SMALL, killed_search, kinds, lines, start

from nas.run import settings
from nas.search import resume, search
from nas.table import Row, table


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return search(settings(**SMALL), tmp_path_factory.mktemp("calm") / "run", trainer=FAKE).rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_drivers(seed: int, tmp_path: Path, undisturbed: list[Row]) -> None:
    """One training after the other: the table is the same to the last figure."""
    rows = killed_search(tmp_path / "run", tmp_path / "log", SMALL, seed, kills=4)
    assert [row.to_dict() for row in rows] == [row.to_dict() for row in undisturbed]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_drivers_and_workers(seed: int, tmp_path: Path, undisturbed: list[Row]) -> None:
    asked = {**SMALL, "workers": 2}
    rows = killed_search(tmp_path / "run", tmp_path / "log", asked, seed, "driver worker both")
    assert kinds(rows) == kinds(undisturbed)


@pytest.mark.slow
def test_real_trainings_killed(tmp_path: Path) -> None:
    """Killed in the middle of a training, the search ends with the very same figures."""
    asked = {**SMALL, "epochs": 1, "trials": 2, "seeds": 1}
    calm = search(settings(**asked), tmp_path / "calm")
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(run, log, asked, trainer=LOGGED_REAL)
    while sum(line[0] == "train" for line in lines(log)) < 4:
        assert process.is_alive()
    process.kill()
    process.join()
    assert 2 <= sum(row.seeds for row in table(run)) <= 4
    rows = resume(run).rows
    assert [_figures(row) for row in rows] == [_figures(row) for row in calm.rows]


def _figures(row: Row) -> dict[str, Any]:
    """All but wall time."""
    return {**row.to_dict(), "seconds": None}
