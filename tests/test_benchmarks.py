"""The benchmarks start, check what they time, and store their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_unknown_benchmark_names_the_known() -> None:
    done = benchmark("nothing")
    assert done.returncode == 2
    assert "sweep" in done.stderr


@pytest.mark.slow
def test_sweep_benchmark(tmp_path: Path) -> None:
    done = benchmark("sweep", "--sample", "20", "--repeats", "1", "--out", str(tmp_path))
    assert "20 sampled rows against field, cost and the built module: 0 disagree" in done.stdout
    result = json.loads((tmp_path / "sweep.json").read_text())
    assert {"date", "processor", "versions"} <= result["machine"].keys()
    assert [peer["agree"] for peer in result["peers"]] == [20] * 5
    assert result["ratio_without_building"] > 10_000
    assert done.returncode == 0


@pytest.mark.slow
def test_operators_benchmark(tmp_path: Path) -> None:
    asked = ("--only", "SIC", "--epochs", "1", "--seeds", "1", "--max-params", "6k")
    done = benchmark("operators", *asked, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "operators.json").read_text())
    assert {"date", "processor", "versions"} <= result["machine"].keys()
    assert [row["operators"] for row in result["rows"]] == [["STD"], ["SIC"]]
    assert all(row["params"] <= 6_000 and not row["failures"] for row in result["rows"])
    assert result["schedule"]["epochs"] == 1


@pytest.mark.slow
def test_driver_benchmark(tmp_path: Path) -> None:
    sizes = ("--trials", "2", "--seconds", "0.01", "--speed-up-trials", "0", "--stored", "1200")
    done = benchmark("driver", *sizes, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1,200 trials, sampler model: open in" in done.stdout
    result = json.loads((tmp_path / "driver.json").read_text())
    assert result["overhead"]["trainings"] > 2 and 0 < result["overhead"]["share"] < 1
    assert all(result[f"large {sampler}"]["propose"] > 0 for sampler in ("model", "tpe"))


def test_kernels_benchmark(tmp_path: Path) -> None:
    """Correct results, every peer, the floor; the aims need a quiet machine."""
    quick = ("--threads", "1", "--rounds", "1", "--window", "0.001", "--layers", "1")
    done = benchmark("kernels", "--device", "cpu", *quick, "--no-compile", "--out", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr
    result = json.loads((tmp_path / "kernels-cpu-1.json").read_text())
    assert {"date", "processor", "versions"} <= result["machine"].keys()
    assert result["wrong"] == []
    assert "MALLOC_TOP_PAD_" in result["allocator"]
    rows = result["rows"]
    assert {row["operation"] for row in rows} == {
        "lean",
        "structured c=C/2",
        "structured c=C/4",
        "sic",
        "explicit",
        "implicit",
        "circulant",
    }
    assert all(row["served"] and row["ratios"] for row in rows)
    assert all(row["floor"] > 0 for row in rows if row["direction"] == "forward")
