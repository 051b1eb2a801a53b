"""The built wheel holds all that a user needs, and runs away from the repository."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_runs_from_anywhere(tmp_path: Path) -> None:
    wheel = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "-q", "-w", str(tmp_path)], check=True)
    (built,) = tmp_path.glob("leanfield-*.whl")
    home = tmp_path / "home"
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        archive.extractall(home)
    sources = {
        path.relative_to(ROOT).as_posix()
        for layer in ("kernels", "spaces", "analysis", "nas")
        for path in (ROOT / layer).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import nas, spaces; "
        "assert nas.__file__.startswith(sys.argv[1]), nas.__file__; "
        "from nas.cli import run; sys.exit(run(['funnel', '--channels', '64', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(home)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)["designs"]) == 4
