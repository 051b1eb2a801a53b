"""The sampler's memory: what it sees, and that a kill does not change what it proposes next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nas import proposals
from nas.proposals import Proposals
from nas.study import Ledger, Store, Training, opened, refusals

GENES = {"a": tuple(range(5)), "b": ("x", "y", "z"), "c": tuple(range(4))}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(proposals, "RECENT", 20)
    monkeypatch.setattr(proposals, "BEST", 3)
    with opened(tmp_path) as store:
        yield store


def begun(store: Store, sampler: str = "tpe") -> Proposals:
    return Proposals(store, GENES, sampler, 7)


def answer(asked: Proposals, count: int, start: int = 0) -> list[dict[str, object]]:
    """Ask and tell; each fifth proposal is refused, each seventh fails."""
    seen = []
    for index in range(start, start + count):
        proposal = asked.ask()
        seen.append(dict(proposal.genes))
        if index % 5 == 4:
            asked.refuse(proposal.number, {"design": str(index), "blocks": [1]}, "too large")
        else:
            accuracy = None if index % 7 == 6 else sum(map(str(proposal.genes).count, "0x")) / 10
            asked.tell(proposal.number, Training(str(index), 0, {}, accuracy=accuracy))
    return seen


@pytest.mark.parametrize(
    "sampler", ["random", *(pytest.param(s, marks=pytest.mark.slow) for s in ("tpe", "nsga2"))]
)
def test_opened_again_it_goes_on_as_it_would_have(
    sampler: str, tmp_path: Path, store: Store
) -> None:
    """Also where earlier results have left the window."""
    through = answer(begun(store, sampler), 45)
    (tmp_path / "other").mkdir()
    with opened(tmp_path / "other") as other:
        pieces = [answer(begun(other, sampler), 15, start) for start in (0, 15, 30)]
    assert [genes for piece in pieces for genes in piece] == through


def test_the_same_results_give_the_same_proposal(store: Store) -> None:
    asked = begun(store)
    answer(asked, 30)
    assert begun(store).ask().genes == asked.ask().genes


def test_the_sampler_sees_the_latest_and_the_best(store: Store) -> None:
    asked = begun(store)
    answer(asked, 30)
    memory = asked._window()
    assert len(memory.trials) == 20 + 3
    values = [told.value for told in asked._told[:10] if told.value is not None]
    assert sorted(t.value for t in memory.trials[:3]) == sorted(values)[-3:]


def test_an_open_proposal_stays_open_when_the_window_moves(store: Store) -> None:
    asked = begun(store)
    early = asked.ask()
    answer(asked, 30)
    asked.tell(early.number, Training("early", 0, {}, accuracy=0.5))
    told = [note for _, note in store.notes(store.study("search"), "told")]
    assert told[-1]["genes"] == early.genes and told[-1]["key"] == "early"


def test_one_that_another_driver_trains_is_not_told(store: Store) -> None:
    asked = begun(store)
    first = asked.ask()
    asked.drop(first.number)
    assert asked.ask().genes != first.genes
    assert store.notes(store.study("search"), "told") == []


def test_two_drivers_learn_from_each_other_and_propose_different_designs(store: Store) -> None:
    one, two = (Proposals(store, GENES, "tpe", 7, name, at) for at, name in enumerate("ab"))
    assert one.ask().genes != two.ask().genes
    answer(one, 6)
    two.refresh()
    assert len(two._told) == 6
    one.refresh()
    assert len(one._told) == 6


def test_refusals_are_kept_and_optuna_sees_the_constraint(store: Store) -> None:
    answer(begun(store), 10)
    assert [one["reason"] for one in refusals(store)] == ["too large"] * 2
    states = [(trial.state.name, bool(trial.constraints)) for trial in store.study("search").trials]
    assert states.count(("PRUNED", True)) == 2 and ("RUNNING", False) not in states


def test_what_was_timed_is_remembered(store: Store) -> None:
    Ledger(store).set_timed("PW x1", {"width": 8}, 0.25)
    assert Ledger(store).timed == {"PW x1": ({"width": 8}, 0.25)}
