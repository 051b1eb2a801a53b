"""The commands `tables` and `network`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from analysis.published.rows import rows
from nas import cli_tables

app = typer.Typer()
app.command()(cli_tables.tables)
app.command()(cli_tables.network)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


def test_tables_lists_every_row_of_every_paper() -> None:
    found = answer("tables")
    assert [(r["paper"], r["table"], r["row"], r["dataset"]) for r in found["rows"]] == [
        (row.paper, row.table, row.row, row.dataset) for row in rows()
    ]
    keys = {"paper", "table", "row", "dataset", "published", "computed", "status", "note"}
    for row in found["rows"]:
        assert keys <= set(row)
        assert set(row["computed"]) == {"params", "flops", "adds", "mults"}
        assert row["within"] or row["status"] != "reproduced"
        assert found["conventions"][row["convention"]]


def test_tables_of_one_paper_as_text() -> None:
    text = run("tables", "lean")
    assert "LeanConvNets, Table IV" in text
    assert "Factorized" not in text
    line = next(line for line in text.splitlines() if line.startswith("  ResNet Res24, CIFAR10"))
    assert "params 4.7M -> 4,706,666 (+0.1%)" in line
    assert line.endswith("[weights+norm] reproduced")
    assert "not computed" in text
    assert "convention weights+norm: " in text


@pytest.mark.parametrize("paper", ["LeanConvNets", "Low-cost"])
def test_the_layout_string_of_a_row_gives_its_figures(paper: str) -> None:
    seen = set()
    for row in answer("tables", paper)["rows"]:
        key = (row["network"], tuple(row["input"]), row["convention"])
        if row["network"] is None or max(row["input"]) > 64 or key in seen or len(seen) >= 16:
            continue
        seen.add(key)
        shape = "x".join(map(str, row["input"]))
        asked = ["network", row["network"], "--input", shape, "--classes", str(row["classes"])]
        found = answer(*asked, "--convention", row["convention"])
        assert {key: found[key] for key in row["computed"]} == row["computed"]
    assert len(seen) >= 15


def test_network_adds_up_layer_by_layer() -> None:
    text = "LeanResNet(Res24, LEAN(g=16,s=5))"
    found = answer("network", text, "--input", "3x32x32", "--classes", "10")
    assert (found["network"], found["input"], found["classes"]) == (text, [3, 32, 32], 10)
    for figure in ("params", "flops", "mults", "adds"):
        assert sum(layer[figure] for layer in found["layers"]) == found[figure]
    assert found["params"] == 662282
    step = next(layer for layer in found["layers"] if layer["part"] == "stage1.1")
    assert step["design"] == "LEAN(g=16,s=5)"
    assert step["output"] == [32, 32, 32]
    assert step["field"]["size"] == [5, 5, 32]
    assert found["field"] == {"part": "stage4.3", "size": [32, 32, 3], "volume": 3072}
    assert found["peak_activation_bytes"] == 4 * 32 * 32 * 128


def test_network_as_text_names_its_convention() -> None:
    text = run("network", "LowCost(A, IRD)", "--convention", "weights")
    assert "block1.1" in text
    assert "(all, all, 32)" in text
    assert "convention weights: as torch, but batch normalisation has no parameters" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tables", "Nought"], "the papers are .*LeanConvNets"),
        (["network", "LeanResnet(Res99)"], "no configuration 'Res99'; valid are Res18"),
        (["network", "LeenResNet(Res18)"], "did you mean LeanResNet?"),
        (["network", "LeanResNet(Res24)", "--convention", "nought"], "known are torch"),
        (["network", "LeanResNet(Res24, GC(5))"], "stage1.1.*valid group numbers are 1, 2, 4"),
        (["network", "LeanResNet(Res24, nosuch*=DW)"], "replaces nothing"),
    ],
)
def test_bad_words_are_refused_with_what_is_valid(words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("shape", ["32", "3x32", "3x0x32", "axbxc"])
def test_an_input_that_does_not_read_is_refused(shape: str) -> None:
    result = CliRunner().invoke(app, ["network", "LeanResNet(Res24)", "--input", shape])
    assert result.exit_code == 2
    assert "write channels x height x width" in " ".join(result.output.split())


def test_neither_command_loads_torch() -> None:
    code = (
        "import sys; from nas import cli_tables; cli_tables.tables(as_json=True);"
        "cli_tables.network('LeanResNet(Res24)', as_json=True);"
        "print([m for m in ('torch', 'optuna', 'pandas', 'numba') if m in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
