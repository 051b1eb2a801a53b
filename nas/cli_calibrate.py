"""The command that measures this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Option

from nas.cli_query import Json, emit


def calibrate(
    device: Annotated[str, Option(help="cpu, cuda or cuda:1")] = "cpu",
    threads: Annotated[int, Option(min=1, help="cores that torch takes on a cpu")] = 1,
    out: Annotated[Path | None, Option(help="file of the profile; the user's cache")] = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine is, in less than a minute, for estimates of latency."""
    from dataclasses import asdict

    from nas.calibrate import calibrate as measure
    from nas.profile import default_path

    path = out or default_path(device, threads)
    if as_json:
        profile = measure(device, threads)
    else:
        from rich.progress import Progress

        from nas.report import console

        with Progress(console=console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"measuring {device}", total=1.0)
            profile = measure(device, threads, lambda s: progress.update(task, completed=s))
    profile.write(path)
    if as_json:
        emit({"path": str(path), **json.loads(json.dumps(asdict(profile)))})
        return
    print(f"{profile.device}, {threads} thread{'s' * (threads > 1)}, {profile.dtype}")
    fastest = max(profile.bandwidths)
    print(f"  memory         {profile.bandwidths[-1] / 1e9:.1f} GB/s, {fastest / 1e9:.1f} in cache")
    for name, peak in profile.peaks.items():
        print(f"  {name:<14} {peak / 1e9:.1f} G multiplications a second at most")
    print(f"  a small call   {1e6 * profile.overheads['relu']:.1f} us")
    print(f"written to {path}")
