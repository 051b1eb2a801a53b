"""No network is trained twice in ten thousand proposals, whatever it is called.

What is the same is judged apart from keys and designs: by the torch modules of the networks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import train

from nas import proposals, study
from nas.candidates import Sized
from nas.proposals import Proposals
from nas.run import settings
from nas.search import search
from nas.trainer import Trainer

Tasks = list[Mapping[str, Any]]


@pytest.fixture
def proposed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], tuple[int, Tasks]]:
    """Searches until there are so many proposals; how many there were, and what was trained.

    The search is interrupted before its end, so nothing that is stored is read again; storing,
    four fifths of the time, is left out.
    """

    def run(count: int) -> tuple[int, Tasks]:
        trained: Tasks = []
        ask, numbers = Proposals.ask, []

        def keep(task: Mapping[str, Any]) -> Mapping[str, Any]:
            trained.append(task)
            return train(task)

        def limited(self: Proposals, genes: Any = None) -> Any:
            if self.count >= count:
                raise KeyboardInterrupt
            numbers.append(self.count)
            return ask(self, genes)

        monkeypatch.setattr(Proposals, "ask", limited)
        for module in (proposals, study):
            monkeypatch.setattr(module, "add", lambda study, trial: None)
        asked = settings(
            data="hard-digits", max_params=5_000, trials=10**6, sampler="random", seed=3
        )
        result = search(asked, tmp_path / "run", trainer=Trainer(keep, train))
        assert result.interrupted
        return len(numbers), trained

    return run


def same(trained: Tasks) -> list[list[str]]:
    """Networks that are one and the same, as torch builds them, by the designs they came from.

    Only those of equal costs are built: others can not be the same.
    """
    alike: defaultdict[object, list[Sized]] = defaultdict(list)
    for task in trained:
        entry = Sized.from_dict(dict(task["network"]))
        alike[entry.cost, entry.width, entry.candidate.blocks].append(entry)
    built: defaultdict[str, list[str]] = defaultdict(list)
    for entries in alike.values():
        for entry in entries if len(entries) > 1 else ():
            built[str(entry.module())].append(str(entry.candidate))
    return [names for names in built.values() if len(names) > 1]


@pytest.mark.slow
def test_ten_thousand_proposals_train_nothing_twice(
    proposed: Callable[[int], tuple[int, Tasks]],
) -> None:
    count, trained = proposed(10_000)
    assert count == 10_000
    keys = [task["key"] for task in trained]
    assert len(keys) == len(set(keys)) > 1_000
    assert len(keys) < 0.9 * count  # many proposals were for what had been trained
    assert same(trained) == []


def test_the_judge_sees_what_a_key_of_names_would_train_twice(
    proposed: Callable[[int], tuple[int, Tasks]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control: told apart by their designs alone, the same networks are trained again."""
    by_name = property(lambda entry: json.dumps([str(entry.candidate), entry.width]))
    monkeypatch.setattr(Sized, "key", by_name)
    _, trained = proposed(300)
    assert same(trained)
