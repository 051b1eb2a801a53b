"""The table of SparseKernelBench: what it must hold, what it answers, and how it is made."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from nas.agreement import kendall
from nas.budget import solve
from nas.candidates import Candidate, Sized
from nas.limits import Limits
from nas.schedule import BRIEF, LONG, Schedule
from nas.sparse_kernel_bench import TABLE, BenchError, SparseKernelBench
from nas.sparse_kernel_bench.designs import BUDGETS, DEAREST, TASK, Listed, half, sized
from nas.sparse_kernel_bench.generate import generate, records
from nas.sparse_kernel_bench.pack import SCHEMA, fingerprint, pack
from nas.sparse_kernel_bench.plan import Job, plan, sampled, woven
from nas.sparse_kernel_bench.protocols import PROTOCOLS, Protocol, data_for
from spaces.design import parse

# ---- the table in the repository ---------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> SparseKernelBench:
    return SparseKernelBench.load()


def complete_rows(bench: SparseKernelBench, schedule: str) -> pd.DataFrame:
    """Pairs with each seed of the schedule."""
    return bench.accuracies(schedule).dropna()


def test_the_table_is_as_large_as_promised(bench: SparseKernelBench) -> None:
    brief, long = complete_rows(bench, "brief"), complete_rows(bench, "long")
    assert (len(brief) >= 300, brief.shape[1]) == (True, 3)
    assert (len(long) >= 120, long.shape[1]) == (True, 2)
    assert set(long.index) <= set(brief.index)
    pairs = bench.pairs().set_index(["design", "budget"])
    assert (~pairs.loc[long.index, "complete"]).sum() >= 40
    assert set(pairs.index.get_level_values("budget")) == set(BUDGETS)
    assert set(pairs["kernel"]) >= {1, 3, 5}
    assert TABLE.stat().st_size < 4_000_000


def test_the_sample_has_every_stratum_in_both_halves_at_both_budgets(
    bench: SparseKernelBench,
) -> None:
    counts = bench.pairs("long").value_counts(["stratum", "half", "budget"])
    assert len(counts) == 3 * 2 * len(BUDGETS)
    assert counts.min() >= 7


def test_schema_and_fingerprint_are_those_of_the_file(bench: SparseKernelBench) -> None:
    table = parquet.read_table(TABLE)
    assert table.schema.names == list(SCHEMA) == list(bench.record["columns"])
    assert fingerprint(table.to_pylist()) == bench.fingerprint
    assert bench.record["data_fingerprint"] == data_for(1.0, 1).fingerprint
    named = ["design", "budget", "schedule", "seed"]
    assert not bench.trainings.duplicated(named).any()
    changed = table.to_pylist()
    changed[0]["accuracy"] += 0.01
    assert fingerprint(changed) != bench.fingerprint


def test_the_schedules_of_the_table_are_those_of_today(bench: SparseKernelBench) -> None:
    recorded = {name: facts["schedule"] for name, facts in bench.record["schedules"].items()}
    assert Schedule(**recorded["brief"]) == BRIEF
    assert Schedule(**recorded["long"]) == LONG
    assert PROTOCOLS["long"].images >= 10 * PROTOCOLS["brief"].images
    assert set(PROTOCOLS["long"].seeds).isdisjoint(PROTOCOLS["brief"].seeds)


def test_a_row_says_what_its_network_costs(bench: SparseKernelBench) -> None:
    pairs = bench.pairs()
    for row in pairs.iloc[:: len(pairs) // 25].itertuples():
        blocks = tuple(map(int, row.blocks.split("-")))
        candidate = Candidate(parse(row.block), blocks)
        assert str(candidate) == row.design
        network = candidate.sized(TASK, row.width)
        assert (network.cost.params, network.cost.mults) == (row.params, row.mults)
        assert network.why_incomplete() is None or not row.complete
        limits = Limits(params=row.budget, mults=DEAREST)
        widest = solve(candidate, TASK, limits, allow_incomplete=not row.complete)
        assert isinstance(widest, Sized)
        assert widest.width == row.width
        assert row.half == half(candidate.design)


def test_a_curve_ends_on_the_accuracy(bench: SparseKernelBench) -> None:
    rows = bench.trainings[bench.trainings["failure"].isna()]
    assert np.allclose([curve[-1] for curve in rows["curve"]], rows["accuracy"], atol=1e-4)
    assert set(rows["curve"].map(len)[rows["schedule"] == "brief"]) == {BRIEF.epochs}
    assert rows["seconds"].min() > 0


# ---- what it answers ---------------------------------------------------------------------------


def test_accuracies_are_those_of_the_rows(bench: SparseKernelBench) -> None:
    design, budget = complete_rows(bench, "long").index[0]
    seeds = [bench.accuracy(design, budget, seed=seed) for seed in PROTOCOLS["long"].seeds]
    assert bench.accuracy(design, budget) == pytest.approx(np.mean(seeds))
    curve = bench.curve(design, budget, "long", PROTOCOLS["long"].seeds[0])
    assert list(curve)[-1] == LONG.epochs
    assert curve[LONG.epochs] == pytest.approx(seeds[0], abs=1e-4)
    assert bench.costs(design, budget)["params"] <= budget
    only = bench.pairs("long", half="B", budget=budget)
    assert set(only["half"]) == {"B"}
    assert set(only["budget"]) == {budget}
    assert not set(bench.pairs(complete=False)["complete"]) - {False}


def test_what_it_does_not_hold_is_told_with_what_is_near(bench: SparseKernelBench) -> None:
    with pytest.raises(BenchError, match=r"no design 'STD x2-2-3'; near are .*STD x2-2-2"):
        bench.accuracy("STD x2-2-3", BUDGETS[0])
    with pytest.raises(BenchError, match="no budget 7; near are"):
        bench.costs("STD x2-2-2", 7)
    with pytest.raises(BenchError, match=r"no schedule 'short'; near are .*brief.*long"):
        bench.accuracies("short")
    with pytest.raises(BenchError, match=r"no column 'halve'; near are .*half"):
        bench.pairs(halve="A")
    only_brief = set(complete_rows(bench, "brief").index) - set(complete_rows(bench, "long").index)
    design, budget = min(only_brief)
    with pytest.raises(BenchError, match="was not trained by 'long', but by brief"):
        bench.accuracy(design, budget)
    with pytest.raises(BenchError, match="has no brief seed 77, but 0, 1, 2"):
        bench.accuracy(design, budget, "brief", 77)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content in (("none", None), ("text", b"not parquet")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BenchError, match="is no table of SparseKernelBench"):
            SparseKernelBench.load(path)


# ---- the promise of the ranking -----------------------------------------------------------------


def test_brief_training_ranks_better_than_any_trivial_ranking(bench: SparseKernelBench) -> None:
    """On the half and the budget on which nothing was chosen."""
    asked: dict[str, Any] = {"half": "B", "budget": BUDGETS[1]}
    long = bench.accuracies("long", **asked).dropna()
    truth = long.mean(axis=1)
    brief = bench.accuracies("brief", **asked).loc[truth.index].mean(axis=1)
    facts = bench.pairs(**asked).set_index(["design", "budget"]).loc[truth.index]
    trivial = ("params", "mults", "traffic_bytes", "width", "depth", "field_size", "field_volume")
    reached = kendall(brief, truth)
    for name in (*trivial, "naswot", "gradient", "snip", "synflow"):
        assert reached > abs(kendall(facts[name], truth)), name
    assert reached >= 0.85 * kendall(*long.to_numpy().T)


# ---- how it is made ------------------------------------------------------------------------------

TINY = Protocol(Schedule(1, 512), (0, 1))


def tiny_jobs() -> list[Job]:
    """Six trainings of a fraction of a second."""
    listed = [
        Listed(Candidate(parse(text), (1, 1, 1)), "fog", text) for text in ("STD", "DW+PW", "SIC")
    ]
    return [Job(one, BUDGETS[0], TINY, seed) for one in listed for seed in TINY.seeds]


def what(record: dict[str, Any]) -> str:
    """A record without the time that it took."""
    return json.dumps({name: value for name, value in record.items() if name != "seconds"})


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
from test_sparse_kernel_bench import tiny_jobs
from nas.sparse_kernel_bench.generate import generate
if __name__ == "__main__":
    generate(tiny_jobs(), Path(sys.argv[1]), workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_generator_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    path, script = tmp_path / "table.jsonl", tmp_path / "script.py"
    script.write_text(SCRIPT)
    here = f"{Path(__file__).parent}:{Path.cwd()}"
    process = subprocess.Popen([sys.executable, script, path, str(workers), here])
    while len(records(path)) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = records(path)
    assert 2 <= len(before) < 6
    with path.open("ab") as file:
        file.write(b'{"cut off by the end of the pro')
    assert records(path) == before
    assert generate(tiny_jobs(), path) == 6 - len(before)
    after = records(path)
    assert after[: len(before)] == before
    assert len({what(record) for record in after}) == 6
    assert generate(tiny_jobs(), path) == 0
    undisturbed = tmp_path / "other.jsonl"
    generate(tiny_jobs(), undisturbed)
    assert sorted(map(what, records(undisturbed))) == sorted(map(what, after))


def test_no_training_begins_after_the_time(tmp_path: Path) -> None:
    assert generate(tiny_jobs(), tmp_path / "table.jsonl", seconds=-1) == 0
    assert records(tmp_path / "table.jsonl") == []


def test_a_packed_table_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "tiny", TINY)
    path = tmp_path / "table.jsonl"
    generate(tiny_jobs(), path)
    lines = records(path)
    unnamed = {**lines[0], "protocol": {**lines[0]["protocol"], "every": 3}}
    packed = tmp_path / "table.parquet"
    assert pack([*lines, lines[0], unnamed], packed) == 6
    bench = SparseKernelBench.load(packed)
    assert bench.schedules == ("tiny",)
    assert bench.accuracy("STD x1-1-1", BUDGETS[0], "tiny", 0) == pytest.approx(
        next(line["accuracy"] for line in lines if line["network"]["design"] == "STD")
    )
    with pytest.raises(ValueError, match="no finished training"):
        pack([unnamed], packed)


def test_a_seed_settles_a_training(tmp_path: Path) -> None:
    (job, *_) = tiny_jobs()
    generate([job], tmp_path / "one.jsonl")
    generate([job], tmp_path / "two.jsonl")
    (one,), (two,) = records(tmp_path / "one.jsonl"), records(tmp_path / "two.jsonl")
    assert what(one) == what(two)


def test_less_data_is_less_of_the_same(tmp_path: Path) -> None:
    whole, half_of_it = data_for(1.0, 1), data_for(0.5, 1)
    assert len(half_of_it.train) == round(len(whole.train) / 2)
    assert np.array_equal(half_of_it.validation.images, whole.validation.images)
    pooled = data_for(1.0, 2)
    assert pooled.shape.height == pooled.test.images.shape[2] == whole.shape.height // 2
    assert pooled.test.images[3, 0, 1, 2] == pytest.approx(
        whole.test.images[3, 0, 2:4, 4:6].mean(), rel=1e-5
    )


@pytest.mark.slow
def test_the_plan_makes_the_table(bench: SparseKernelBench) -> None:
    """Every training of the table is planned, and its sample is woven of all strata."""
    jobs = list(plan())
    planned = {(str(job.listed.candidate), job.budget, job.seed) for job in jobs}
    rows = bench.trainings
    assert set(zip(rows["design"], rows["budget"], rows["seed"], strict=True)) <= planned
    order = woven({job.listed: None for job in jobs})
    first = [one.stratum for one in sampled(order)[:12]]
    assert set(first) == {"fog", "full", "control"}
    for job in jobs[:: len(jobs) // 20]:
        network = sized(job.listed, job.budget)
        assert network is not None
        assert (network.why_incomplete() is None) <= (job.listed.stratum != "control")
