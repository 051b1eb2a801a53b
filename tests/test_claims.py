"""The benchmark of the claims: intervals, verdicts, fair arms, going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import claims
from benchmarks.claims import CLAIMS, Arm, effect, main
from benchmarks.operators import Row
from nas.budget import Refusal, solve
from nas.candidates import Task
from nas.limits import Limits


def test_the_interval_is_students_over_the_seeds() -> None:
    found = effect([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t(2) at 97.5 %


@pytest.mark.parametrize(
    ("better", "as_good", "verdict"),
    [
        ([0.60, 0.61, 0.62], False, "seen"),
        ([0.40, 0.41, 0.42], False, "not seen"),
        ([0.40, 0.50, 0.60], False, "undecided"),
        ([0.489, 0.490, 0.491], False, "not seen"),
        ([0.489, 0.490, 0.491], True, "seen"),
        ([0.469, 0.470, 0.471], True, "not seen"),
    ],
)
def test_a_verdict_needs_the_whole_interval(
    better: list[float], as_good: bool, verdict: str
) -> None:
    assert effect(better, [0.5, 0.5, 0.5], as_good=as_good).verdict == verdict


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        effect([0.5], [0.4])


def test_both_arms_of_every_claim_spend_the_budget() -> None:
    limits = Limits(params=30_000)
    spent: dict[Arm, float] = {}
    for arm in {one for claim in CLAIMS for one in (claim.better, claim.worse)}:
        sized = solve(arm.candidate, Task((1, 16, 16), 10), limits, allow_incomplete=True)
        assert not isinstance(sized, Refusal), sized.reason
        spent[arm] = sized.cost.params / 30_000
    assert min(spent.values()) > 0.7
    for claim in CLAIMS:
        assert abs(spent[claim.better] - spent[claim.worse]) < 0.25, claim


def test_a_stopped_run_goes_on_and_prints_every_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def measure(candidate: object, *_: object) -> Row:
        if len(trained) == 5:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(str(candidate))
        return Row(str(candidate), 8, 100, [0.1 * len(trained), 0.5], 1.0, [])

    monkeypatch.setattr(claims, "measure", measure)
    file = tmp_path / "claims.json"
    with pytest.raises(KeyboardInterrupt):
        main(["--json", str(file)])
    assert len(json.loads(file.read_text())["arms"]) == 5
    assert main(["--json", str(file)]) == 0
    assert len(trained) - 1 == len(set(trained)) - 1  # none a second time
    stored = json.loads(file.read_text())
    assert len(stored["claims"]) == len(CLAIMS)
    table = capsys.readouterr().out
    assert all(f"| {claim.sentence} (" in table for claim in CLAIMS)
