"""Every command of the README runs, and what the README says it prints is what it prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
FIXED = ("field", "cost", "optimum", "funnel", "network", "tables")
RUNS = ("search", "show", "export", "train")


def leanfield(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `leanfield ...` as the README writes it."""
    program, *words = shlex.split(line)
    assert program == "leanfield"
    code = "import sys; from nas.cli import main; main()"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line, _ in BLOCKS}
    assert shown == {*FIXED, *RUNS, "doctor"}


@pytest.mark.parametrize(("line", "output"), [b for b in BLOCKS if b[0].split()[1] in FIXED])
def test_queries_print_what_the_readme_says(line: str, output: str, tmp_path: Path) -> None:
    done = leanfield(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def test_doctor_and_the_impossible_budget(tmp_path: Path) -> None:
    (doctor,) = (line for line, _ in BLOCKS if line.split()[1] == "doctor")
    assert leanfield(doctor, tmp_path).returncode == 0
    impossible, sentence = next(b for b in BLOCKS if b[0].endswith("--max-params 300"))
    done = leanfield(impossible, tmp_path)
    assert (done.returncode, done.stderr) == (3, sentence)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_search_of_the_readme(tmp_path: Path) -> None:
    lines = [line for line, _ in BLOCKS if line.split()[1] in RUNS and "300" not in line]
    assert [line.split()[1] for line in lines] == list(RUNS)
    for line in lines:
        done = leanfield(line, tmp_path)
        assert done.returncode == 0, done.stderr
    (code,) = (tmp_path / "mine").glob("*.py")
    ran = subprocess.run([sys.executable, "-I", code], capture_output=True, text=True, check=True)
    assert "params" in ran.stdout


@pytest.mark.slow
def test_the_python_of_the_readme(tmp_path: Path) -> None:
    codes = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(codes) == 2
    for code in codes:
        assert len(code.strip().splitlines()) <= 12
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_make_runs_the_search_of_the_readme() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "leanfield search --data hard-digits --max-params 50k" in recipe
