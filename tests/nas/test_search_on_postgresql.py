"""Two drivers on one study in PostgreSQL share the work, whoever of them is killed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FAKE, LOGGED
from killing import SMALL, check, kinds, lines, moment, start
from postgres import programs, server

from nas.files import RunError
from nas.run import read_record, settings
from nas.search import search
from nas.study import Ledger, opened
from nas.table import Row, table
from nas.team import Claim, Shared

LEASE = 1.5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="pip install 'leanfield[postgresql]'")
    if (found := programs()) is None:
        pytest.skip("there is no PostgreSQL server here: apt-get install postgresql")
    with server(found) as url:
        yield url


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return search(settings(**SMALL), tmp_path_factory.mktemp("calm") / "run", trainer=FAKE).rows


@pytest.mark.parametrize("seed", range(10))
def test_two_drivers_killed(
    seed: int, tmp_path: Path, database: str, undisturbed: list[Row]
) -> None:
    chance, log = random.Random(seed), tmp_path / "log"
    asked = {**SMALL, "storage": database, "study": f"killed {seed}"}
    runs = [tmp_path / "a", tmp_path / "b"]
    drivers = [start(run, log, asked, LEASE) for run in runs]
    for _ in range(2):
        victim = chance.randrange(2)
        moment(log, chance, drivers[victim].is_alive)
        drivers[victim].kill()
        drivers[victim].join()
        drivers[victim] = start(runs[victim], log, asked, LEASE)
    for driver in drivers:
        driver.join(120)
        assert driver.exitcode == 0
    tables = [table(run) for run in runs]
    for rows in tables:
        check(rows, lines(log))
        assert kinds(rows) == kinds(undisturbed)
    assert [row.to_dict() for row in tables[0]] == [row.to_dict() for row in tables[1]]
    winners = [sorted(path.name for path in (run / "winners").iterdir()) for run in runs]
    assert winners[0] == winners[1] != []
    with opened(tmp_path, database, f"killed {seed}") as store:
        rows = [note for _, note in store.notes(store.study("trainings"), "row")]
        assert len(rows) == len(Ledger(store).rows), "a training is stored twice"


def test_both_drivers_do_a_part(tmp_path: Path, database: str) -> None:
    log = tmp_path / "log"
    asked = {**SMALL, "trials": 12, "storage": database, "study": "shared"}
    drivers = [start(tmp_path / run, log, asked) for run in "ab"]
    for driver in drivers:
        driver.join(120)
    by = {line[2] for line in lines(log) if line[0] == "train"}
    trained = [line[1] for line in lines(log) if line[0] == "train"]
    assert by == {str(driver.pid) for driver in drivers}
    assert len(trained) == len(set(trained))
    assert (
        sum(row.known_as is None and row.state == "complete" for row in table(tmp_path / "a")) == 12
    )


def test_another_search_is_refused_by_name(tmp_path: Path, database: str) -> None:
    asked = {**SMALL, "storage": database, "study": "one"}
    search(settings(**asked), tmp_path / "a", trainer=FAKE)
    with pytest.raises(RunError, match="trials is 4 there and 5 here; join it with its own"):
        search(settings(**{**asked, "trials": 5}), tmp_path / "b", trainer=FAKE)
    again = search(settings(**asked), tmp_path / "c", trainer=LOGGED)
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in table(tmp_path / "a")]


def test_a_lease_keeps_a_claim_until_it_expires(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.team.LEASE", 1.0)
    with opened(tmp_path, database, "claims") as store:
        first, second = (
            Shared(store.engine, "claims", {}, lambda key, repeat: key == "stored", tmp_path)
            for _ in range(2)
        )
        assert (first.ordinal, second.ordinal) == (0, 1)
        assert first.claim("a", 0, at_most=1) is Claim.OURS
        assert second.claim("a", 0) is Claim.TAKEN
        assert second.claim("b", 0, at_most=1) is Claim.FULL
        assert first.claim("stored", 0) is Claim.OURS
        time.sleep(1.5)
        assert second.claim("a", 0) is Claim.TAKEN, "the lease is renewed while its driver lives"
        assert (first.others(), second.others()) == (0, 2)
        first._ended.set()
        time.sleep(1.5)
        assert second.claim("stored", 0) is Claim.TAKEN
        assert second.claim("a", 0, at_most=1) is Claim.OURS
        with first.storing("a", 0) as ours:
            assert not ours
        with second.storing("a", 0) as ours:
            assert ours
        assert (first.others(), second.others()) == (0, 0)
        second.leave()


def test_no_password_is_written(tmp_path: Path, database: str) -> None:
    secret = database.replace("leanfield@", "leanfield:hidden@")
    asked = settings(**{**SMALL, "storage": secret, "study": "secret"})
    search(asked, tmp_path / "run", trainer=FAKE)
    assert read_record(tmp_path / "run").settings.storage == database
    assert not any(b"hidden" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**SMALL, "storage": "postgresql://nobody@127.0.0.1:1/none"}
    with pytest.raises(RunError, match=r"the database of the study: .*refused.* --resume"):
        search(settings(**asked), tmp_path / "run", trainer=FAKE)
    with pytest.raises(RunError, match="storage is 'mysql://x/y'"):
        settings(storage="mysql://x/y")
