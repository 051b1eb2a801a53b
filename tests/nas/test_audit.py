"""The audit: on trainings whose truth and noise are known, and once on real ones."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_trainer import FAKE, LOG, Counting, figure, judge, logged_train, name
from killing import CONTEXT, _ready, lines
from scipy.stats import kendalltau

from nas import audit as numbers
from nas import audit_report, auditor, cli
from nas.auditor import audit
from nas.files import RunError
from nas.rankings import FREE, TRIVIAL
from nas.run import settings
from nas.schedule import LONG
from nas.search import search
from nas.study import Ledger, opened
from nas.table import table
from nas.trainer import Trainer
from nas.winners import winner_folder

ASKED = {
    "data": "digits",
    "max_params": 1500,
    "trials": 12,
    "finalists": 3,
    "seeds": 2,
    "sampler": "random",
}
EPOCHS = 7


def truth(task: Mapping[str, Any]) -> float:
    """What a design is worth, whatever the seed."""
    return figure({"network": task["network"], "seed": "none"}, "truth")


def trainer(brief_noise: float, long_noise: float, sign: float = 1.0) -> Trainer:
    """Accuracies are truth (turned round in long training by sign) plus noise of a seed."""

    def train(task: Mapping[str, Any]) -> dict[str, Any]:
        long = task["schedule"]["epochs"] in (EPOCHS, LONG.epochs)
        worth = sign * truth(task) + (sign < 0) if long else truth(task)
        noise = (long_noise if long else brief_noise) * (figure(task, "noise") - 0.5)
        return {**FAKE.train(task), "accuracy": 0.25 + 0.5 * worth + noise}

    return Trainer(train, judge)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    search(settings(**ASKED), folder, trainer=trainer(0.2, 0.0))
    return folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without noise."""
    folder = tmp_path_factory.mktemp("exact") / "run"
    search(settings(**ASKED), folder, trainer=trainer(0.0, 0.0))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No scores and few rounds, in all tests but the slow ones."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(auditor, "training_free", lambda entry, data: dict.fromkeys(FREE))
        monkeypatch.setattr(numbers, "THOROUGH", 60)
    yield


# ---- agreement -----------------------------------------------------------------------------------


def test_without_noise_everything_agrees(exact: Path) -> None:
    content = audit(exact, sample=8, trainer=trainer(0.0, 0.0)).content
    brief = content["long"]["rankings"]["brief"]
    for column in ("kendall", "spearman"):
        assert brief[column] == pytest.approx({"value": 1.0, "low": 1.0, "high": 1.0})
    assert brief["recall"]["value"] == 1.0
    assert content["long"]["ceiling"]["single"]["value"] == 1.0
    assert content["brief"]["first_place"] == 1
    assert content["brief"]["seeds"]["kendall"]["value"] == 1.0
    verdict = content["long"]["verdict"]
    assert verdict["difference"]["value"] > 0 and verdict["difference"]["low"] >= 0
    assert ": tau 1.00 against 0." in verdict["text"]


def test_a_ranking_that_is_upside_down_is_told(exact: Path) -> None:
    turned = trainer(0.0, 0.0, sign=-1.0)
    found = audit(exact, sample=8, epochs=EPOCHS, trainer=turned).content["long"]
    assert found["rankings"]["brief"]["kendall"]["value"] == -1.0
    assert found["rankings"]["brief"]["recall"]["value"] == 0.0
    assert found["verdict"]["difference"]["high"] < 0
    assert "and it is worse: tau -1.00" in found["verdict"]["text"]


def test_tau_is_that_of_the_sampled_figures(run: Path) -> None:
    """Against scipy, on the very figures that the trainings were told to give."""
    noisy = trainer(0.2, 0.3)
    content = audit(run, sample=10, seeds=3, trainer=noisy).content
    designs = content["long"]["designs"]
    assert len(designs) == 10 and all(len(one["long"]) == 3 for one in designs)
    brief = [one["brief"] for one in designs]
    means = [sum(one["long"]) / 3 for one in designs]
    found = content["long"]["rankings"]
    assert found["brief"]["kendall"]["value"] == pytest.approx(kendalltau(brief, means).statistic)
    for key in TRIVIAL:
        expected = kendalltau([one[key] for one in designs], means).statistic
        assert found[key]["kendall"]["value"] == pytest.approx(expected)
    by_seed = list(zip(*(one["long"] for one in designs), strict=True))
    pairs = [kendalltau(by_seed[i], by_seed[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert content["long"]["ceiling"]["single"]["value"] == pytest.approx(np.mean(pairs))
    accuracies = {row.rank: (row.design, row.accuracy) for row in table(run)}
    for one in designs:
        assert (one["design"], one["brief"]) == accuracies[one["rank"]]


def test_known_correlation_gives_known_tau_and_verdict() -> None:
    """Greiner: normal columns of correlation r have tau 2/pi asin(r)."""
    random = np.random.default_rng(0)
    worth, width, *noise = random.standard_normal((5, 120))
    brief = 0.8 * worth + 0.6 * noise[0]
    trained = np.stack([worth + 0.3 * noise[1], worth + 0.3 * noise[2]], axis=1).tolist()
    none = dict.fromkeys((*TRIVIAL, *FREE), [None] * 120)
    rankings = {**none, "params": [1.0] * 120, "brief": brief.tolist(), "width": (-width).tolist()}
    found = numbers.long([{}] * 120, rankings, trained)
    expected = 2 / math.pi * math.asin(0.8 / math.sqrt(1 + 0.09 / 2))
    tau = found["rankings"]["brief"]["kendall"]
    assert tau["value"] == pytest.approx(expected, abs=0.07) and tau["low"] < expected < tau["high"]
    assert found["rankings"]["params"]["kendall"]["value"] is None
    assert found["verdict"]["rival"] == "width" and found["verdict"]["told_apart"]
    shadow = numbers.long([{}] * 120, {**rankings, "width": (-brief).tolist()}, trained)
    assert shadow["verdict"]["told_apart"] is False and shadow["verdict"]["sign"] == -1
    assert shadow["verdict"]["text"].startswith(
        "the ranking cannot be told from ranking by width, smallest first: tau 0.5"
    )


def test_the_sample_covers_the_ranking_and_depends_on_the_seed_only() -> None:
    values = [float(v) for v in np.random.default_rng(1).permutation(40)]
    chosen = numbers.stratified(values, 8, seed=3)
    assert chosen == numbers.stratified(values, 8, seed=3) != numbers.stratified(values, 8, seed=4)
    assert [int(39 - values[index]) // 5 for index in chosen] == list(range(8))
    assert sorted(numbers.stratified(values, 60, seed=0)) == list(range(40))


def test_a_user_s_own_block_has_no_field_and_stays_in_the_rest() -> None:
    columns = [[1.0, 2.0, 3.0, 4.0, 5.0, None], [1.0, 2.0, 3.0, 5.0, 4.0, 9.0]]
    found = numbers._agreement(numbers.kendall, columns)
    assert found is not None and found["value"] == pytest.approx(0.8)
    assert numbers._agreement(numbers.kendall, [column[:4] for column in columns]) is None


# ---- after a search ------------------------------------------------------------------------------


def test_a_search_leaves_its_audit(finished: Path) -> None:
    content = numbers.read(finished)
    assert content is not None and content["long"] is None
    brief, rows = content["brief"], [row for row in table(finished) if row.rank]
    assert brief["designs"] == len(rows)
    assert brief["first_place"] == sum(row.place[0] == 1 for row in rows)
    assert brief["places"] == len({row.place for row in rows})
    assert list(brief["rankings"]) == list(TRIVIAL)
    several = [row for row in rows if row.seeds == 2]
    assert brief["seeds"]["designs"] == len(several) == brief["freedom"]
    pooled = math.sqrt(sum(row.accuracy_std**2 for row in several) / len(several))
    assert brief["seed_deviation"] == pytest.approx(pooled)
    text = "\n".join(audit_report.lines(finished, content))
    assert f"of {len(rows)} designs" in text and f"leanfield audit {finished}" in text


def test_one_seed_each_says_that_nothing_is_known(tmp_path: Path) -> None:
    asked = settings(**{**ASKED, "seeds": 1, "trials": 2})
    result = search(asked, tmp_path / "run", trainer=FAKE)
    count = sum(row.rank is not None for row in result.rows)
    assert {row.place for row in result.rows if row.rank} == {(1, count)}
    content = numbers.read(tmp_path / "run")
    assert content is not None and content["brief"]["seed_deviation"] is None
    assert "trained once" in next(audit_report.of_search(content["brief"]))


def test_places_stand_in_the_table_of_files(finished: Path) -> None:
    frame = pd.read_parquet(finished / "trials.parquet")
    ranked = frame[frame["rank"].notna()]
    places = [tuple(place) for place in ranked["place"]]
    assert places == [row.place for row in table(finished) if row.rank]
    for rank, (first, last) in zip(ranked["rank"], places, strict=True):
        assert first <= rank <= last


# ---- the command ---------------------------------------------------------------------------------


def test_json_is_what_the_file_holds(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made_up(folder: Path, **words: Any) -> Any:
        return audit(folder, **words, trainer=trainer(0.2, 0.3))

    monkeypatch.setattr(auditor, "audit", made_up)
    words = ["audit", str(run), "--sample", "6", "--seeds", "1", "--epochs", str(EPOCHS)]
    assert cli.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert found.pop("run") == str(run) and found.pop("interrupted") is False
    assert found == json.loads((run / "audit.json").read_text())
    assert found["long"]["schedule"]["epochs"] == EPOCHS and found["long"]["ceiling"] is None
    assert cli.run(words) == 0
    shown = capsys.readouterr().out
    assert "brief training" in shown and found["long"]["verdict"]["text"][:40] in shown
    assert cli.run(["show", str(run)]) == 0
    assert found["long"]["verdict"]["text"][:40] in capsys.readouterr().out


def test_the_audit_leaves_the_table_and_the_winners_as_they_are(run: Path) -> None:
    before = [row.to_dict() for row in table(run)]
    winners = sorted((run / "winners").rglob("*"))
    audit(run, sample=6, trainer=trainer(0.2, 0.3))
    assert [row.to_dict() for row in table(run)] == before
    assert sorted((run / "winners").rglob("*")) == winners
    assert not (run / "weights").exists()


def test_winners_are_found_by_their_network_not_by_their_rank(run: Path) -> None:
    (first,) = (row for row in table(run) if row.rank == 1)
    (folder,) = (run / "winners").glob("01-*")
    moved = folder.rename(folder.with_name(folder.name.replace("01-", "77-", 1)))
    assert winner_folder(run, first) == moved


# ---- interrupted, killed, larger -----------------------------------------------------------------


def test_interrupted_and_resumed_trains_nothing_twice(run: Path) -> None:
    def stop(count: int, task: Mapping[str, Any]) -> None:
        if count == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    first = Counting(stop)
    early = audit(run, sample=6, trainer=first.trainer)
    assert early.interrupted and early.content["long"] is None
    second, third = Counting(), Counting()
    late = audit(run, sample=6, trainer=second.trainer)
    assert not late.interrupted and len(second.trained) == 12 - 4
    tasks = [*first.trained[:4], *second.trained]
    assert set(Counter(name(task) for task in tasks).values()) == {1}
    assert {task["schedule"]["epochs"] for task in tasks} == {LONG.epochs}
    assert len({task["seed"] for task in tasks}) == 2
    again = audit(run, sample=6, trainer=third.trainer)
    assert third.trained == [] and again.content == late.content
    more = Counting()
    audit(run, sample=6, seeds=3, trainer=more.trainer)
    assert len(more.trained) == 6


def test_another_schedule_is_another_training_and_the_seeds_are_new(run: Path) -> None:
    counting = Counting()
    audit(run, sample=5, seeds=1, trainer=counting.trainer)
    audit(run, sample=5, seeds=1, epochs=EPOCHS, trainer=counting.trainer)
    assert [task["schedule"]["epochs"] for task in counting.trained] == [LONG.epochs] * 5 + [
        EPOCHS
    ] * 5
    with opened(run) as store:
        used = {row.facts["seed"] for row in Ledger(store).rows if row.trained}
    assert len(used) == 2 and not used & {task["seed"] for task in counting.trained}


def drive(run: Path, log: Path) -> None:
    os.environ[LOG] = str(log)
    audit(run, sample=8, trainer=Trainer(logged_train, judge))


@pytest.mark.slow
def test_killed_and_resumed(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    _ready()
    for killed in (True, True, False):
        process = CONTEXT.Process(target=drive, args=(run, log))
        process.start()
        until = len(lines(log)) + 4
        while killed and process.is_alive() and len(lines(log)) < until:
            time.sleep(0.002)
        if killed:
            process.kill()
        process.join(120)
    assert process.exitcode == 0
    trained = Counter(line[1] for line in lines(log))
    assert len(trained) == 16
    # Only what was under way at a kill was begun again.
    assert sum(trained.values()) <= 16 + 2


def test_failed_trainings_are_left_out_and_named(run: Path) -> None:
    def fail(count: int, task: Mapping[str, Any]) -> dict[str, Any] | None:
        return {"accuracy": None, "failure": "diverged"} if count == 2 else None

    found = audit(run, sample=7, trainer=Counting(fail).trainer).content["long"]
    assert len(found["designs"]) == 6 and len(found["failed"]) == 1

    def all_fail(count: int, task: Mapping[str, Any]) -> dict[str, Any]:
        return {"accuracy": None, "failure": "diverged"}

    with pytest.raises(RunError, match="of 7 designs only 0 could be trained"):
        audit(run, sample=7, epochs=EPOCHS, trainer=Counting(all_fail).trainer)


# ---- errors --------------------------------------------------------------------------------------


def test_unknown_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        audit(tmp_path / "none")
    assert cli.run(["audit", str(tmp_path / "none")]) == 2
    assert cli.run(["audit", str(tmp_path)]) == 2

    def stop(count: int, task: Mapping[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    search(settings(**ASKED), tmp_path / "run", trainer=Counting(stop).trainer)
    with pytest.raises(RunError, match=r"is not finished.* --resume .*run first"):
        audit(tmp_path / "run", trainer=FAKE)


def test_too_few_designs_are_refused(tmp_path: Path) -> None:
    def fail(count: int, task: Mapping[str, Any]) -> dict[str, Any] | None:
        return {"accuracy": None, "failure": "diverged"} if count > 3 else None

    asked = settings(**{**ASKED, "trials": 1, "finalists": 1, "seeds": 1})
    search(asked, tmp_path / "run", trainer=Counting(fail).trainer)
    with pytest.raises(RunError, match="has 3 designs with an accuracy; an audit needs at least 5"):
        audit(tmp_path / "run", trainer=FAKE)
    with pytest.raises(RunError, match="a sample of 2 designs"):
        audit(tmp_path / "run", sample=2, trainer=FAKE)


def test_changed_data_is_refused(run: Path) -> None:
    file = run / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data_fingerprint": "other"}))
    with pytest.raises(RunError, match="the data has changed since"):
        audit(run, trainer=FAKE)


# ---- a real one ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_audit(tmp_path: Path) -> None:
    small = {"max_params": 700, "trials": 3, "epochs": 1, "finalists": 1}
    search(settings(**{**ASKED, **small}), tmp_path / "run")
    found = audit(tmp_path / "run", sample=5, seeds=2, epochs=2).content["long"]
    assert len(found["designs"]) == 5
    for one in found["designs"]:
        assert all(0.0 <= accuracy <= 1.0 for accuracy in one["long"])
        assert all(one[score] is None or math.isfinite(one[score]) for score in FREE)
    assert found["rankings"]["synflow"]["kendall"]["value"] is not None
    assert found["verdict"]["text"]
