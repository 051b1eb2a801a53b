"""An operator is one file: the one shown in CONTRIBUTING.md does all that the others do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROBE = """
import json, sys
from pathlib import Path

import spaces.operators
spaces.operators.__path__.append(sys.argv[1])     # the folder with the one new file

import torch
torch.set_num_threads(1)
from analysis.cost import cost
from analysis.field import field
from nas.budget import solve
from nas.candidates import Candidate, Task
from nas.compositions import compositions
from nas.exports import export
from nas.limits import Limits
from nas.schedule import Schedule
from nas.space import space_for
from nas.train import train
from nas.datasets import load
from spaces.design import parse
from spaces.symbols import every_symbol

out = Path(sys.argv[2])
data = load("digits")
task = Task((data.shape.channels, data.shape.height, data.shape.width), data.shape.classes)
design = parse("sep+PW")
limits = Limits(params=4_000)
space = space_for(task, limits, 2, vocabulary=["SEP", "PW"])
sized = solve(Candidate(space.compositions[-1], (1, 1)), task, limits)
module = sized.module(seed=0)
initial = [p.clone() for p in module.parameters()]
outcome = train(module, data, Schedule(epochs=3), 0)
moved = all(not torch.equal(a, b) for a, b in zip(initial, module.parameters(), strict=True))
module.to(memory_format=torch.contiguous_format)  # training keeps maps channels last
files = export(sized, module.state_dict(), out)
x = torch.randn(3, *task.input)
torch.save((x, module.eval()(x)), out / "expected.pt")
seen, price = field(design, 16, 32), cost(parse("SEP"), 16, size=(32, 32))
print(json.dumps({
    "enumerated": "SEP" in every_symbol(),
    "compositions": [str(d) for d in compositions(["all"]) if "SEP" in d.composition],
    "searched": [str(d) for d in space.compositions],
    "size": seen.size, "complete": seen.complete, "alone": field(parse("SEP"), 16).size,
    "params": price.params, "mults": price.mults,
    "built": sum(p.numel() for p in module.parameters()), "counted": sized.cost.params,
    "accuracy": outcome.accuracy, "failure": outcome.failure, "moved": moved,
    "files": [str(f) for f in files],
}))
"""


def shown() -> str:
    """The code block of CONTRIBUTING.md, section "Adding an operator"."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Adding an operator")[1]
    found = re.search(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one new file."""
    path = tmp_path_factory.mktemp("operators")
    (path / "sep.py").write_text(shown())
    return path


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_one_file_is_enumerated_costed_queried_trained_and_exported(
    folder: Path, tmp_path: Path
) -> None:
    import json

    import torch

    done = run("-c", PROBE, str(folder), str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["enumerated"]
    assert "SEP+PW" in found["compositions"]
    assert found["searched"] == ["SEP+PW"]
    assert found["alone"] == [3, 3, 1]
    assert found["size"] == [3, 3, 16]
    assert found["complete"]
    assert (found["params"], found["mults"]) == (6 * 16, 6 * 16 * 32 * 32)
    assert found["built"] == found["counted"] <= 4_000
    assert found["failure"] is None
    assert found["accuracy"] > 0.5
    assert found["moved"]
    python, weights = found["files"]
    x, expected = torch.load(tmp_path / "expected.pt")
    torch.save(x, tmp_path / "x.pt")
    alone = (
        f"import sys, torch; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import {Path(python).stem} as winner\n"
        f"network = winner.load({weights!r}).eval()\n"
        "torch.set_num_threads(1)\n"
        f"torch.save(network(torch.load({str(tmp_path / 'x.pt')!r})), "
        f"{str(tmp_path / 'y.pt')!r})\n"
        "winner.Block(24, 48, stride=2)(torch.zeros(1, 24, 5, 5))"
    )
    done = run("-I", "-c", alone, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y.pt"), expected)


def test_the_contract_test_finds_it(folder: Path, tmp_path: Path) -> None:
    """Without being edited."""
    plugin = tmp_path / "with_sep.py"
    plugin.write_text(
        f"import spaces.operators\nspaces.operators.__path__.append({str(folder)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c",
         f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]; import pytest; "
         "raise SystemExit(pytest.main(['-q', '-p', 'with_sep', '-p', 'no:cacheprovider', "
         f"{str(ROOT / 'tests/spaces/test_contract.py')!r}, '-k', 'SEP and not pair']))"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 20
