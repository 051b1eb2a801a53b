"""The order of the house: kernels <- spaces <- analysis <- nas, and one home for each library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("kernels", "spaces", "analysis", "nas")
HOMES = {
    "cupy": ("kernels/",),
    "numba": ("kernels/", "analysis/sweep.py"),
    "llvmlite": ("kernels/jit/",),
    "networkx": ("analysis/graph.py",),
    "optuna": ("nas/",),
    "sqlalchemy": ("nas/study.py", "nas/team"),
    "distributed": ("nas/cluster.py",),
    "rich": ("nas/",),
    "pandas": ("nas/",),
    "typer": ("nas/cli",),
    "pydantic": ("nas/",),
    "safetensors": ("nas/exports/", "nas/trainer.py", "nas/training/", "nas/winners.py"),
    "sklearn": ("nas/datasets/",),
    "scipy": ("nas/surrogate.py", "nas/acquisition.py", "nas/places.py"),
    "PIL": ("nas/datasets/",),
}
HEAVY = ("torch", "optuna", "cupy", "numba", "llvmlite", "pandas", "sklearn", "scipy")


def imports() -> list[tuple[str, str]]:
    """(file, top-level name of what it imports) over all packages."""
    found = []
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                else:
                    continue
                found += [(path.relative_to(ROOT).as_posix(), n.split(".")[0]) for n in names]
    return found


def test_no_layer_imports_a_higher_one() -> None:
    order = {name: rank for rank, name in enumerate(LAYERS)}
    wrong = [
        f"{file} imports {name}"
        for file, name in imports()
        if name in order and order[name] > order[file.split("/")[0]]
    ]
    assert not wrong


def test_each_library_has_one_home() -> None:
    wrong = [
        f"{file} imports {name}"
        for file, name in imports()
        if name in HOMES and not file.startswith(HOMES[name])
    ]
    assert not wrong


def loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter holds after the code."""
    probe = f"{code}\nimport sys; print('\\nloaded', *(m for m in {HEAVY!r} if m in sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    word, *heavy = out.stdout.splitlines()[-1].split()
    assert word == "loaded"
    return set(heavy)


@pytest.mark.parametrize(
    "code",
    [
        "import kernels, spaces, analysis, nas",
        "from spaces.vocabulary import vocabulary; vocabulary()",
        "import analysis.cost, analysis.field, analysis.funnel, analysis.theorems",
        "import nas.candidates, nas.budget, nas.space",
        *(
            f"from nas.cli import run; run({command!r}.split())"
            for command in (
                "field PWG(4)+DW+PWG(4) --channels 560",
                "cost DW+PW --channels 64 --size 32",
                "funnel --channels 64",
                "optimum GC+PWG --channels 64",
                "search --max-params 300 --json",
            )
        ),
    ],
)
def test_queries_load_nothing_heavy(code: str) -> None:
    assert loaded(code) == set()
