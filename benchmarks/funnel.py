"""python -m benchmarks funnel: the funnel over the whole vocabulary, timed, with its survivors.

Writes the page docs/enlarged_funnel.md beside the figures in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.choices import TARGETS
from benchmarks.machine import RESULTS, machine, store
from nas.funnel_report import answer
from spaces.symbols import every_symbol

PAGE = Path(__file__).parent.parent / "docs" / "enlarged_funnel.md"
LONGEST_SHOWN = 2
"""Operators in a family with a time step that the page lists; there are thousands longer ones."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks funnel", description=__doc__)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    reports = []
    for target in reversed(TARGETS):
        start = time.perf_counter()
        space = {"channels": asked.channels, "max_length": asked.max_length}
        report = answer({**space, "vocabulary": "all", "target": target})
        report["seconds"] = round(time.perf_counter() - start, 2)
        reports.append(report)
        left = len(report["survivors"])
        print(f"target {target}: {left:,} families left, {report['seconds']:.1f} s")
    here = machine(["numpy"])
    kept = [{key: r[key] for key in ("target", "steps", "seconds")} for r in reports]
    store({"machine": here, "channels": asked.channels, "targets": kept}, asked.out / "funnel.json")
    asked.page.write_text("\n".join(page(reports, here)) + "\n")
    print(json.dumps(here))
    return 0


def page(reports: list[dict[str, Any]], here: dict[str, Any]) -> Iterator[str]:
    """The lines of the Markdown page."""
    first = reports[0]
    yield "# The funnel over the whole vocabulary\n"
    yield (
        f"All {len(every_symbol())} symbols, up to {first['max_length']} operators, "
        f"C = F = {first['channels']}, 3 x 3. Written by `python -m benchmarks funnel` on "
        f"{here['processor']} ({here['cores']} cores), {here['date'][:10]}. "
        "`leanfield funnel --vocabulary all --why DESIGN` gives the reason for any removal.\n"
    )
    yield f"Symbols: {', '.join(f'`{s}`' for s in every_symbol())}.\n"
    yield (
        "Target `covers`: every output reads the whole 3 x 3 x C window. Target `size`: the size "
        "of the field is (3, 3, C), which is the paper's test and which a field with holes can "
        "pass. Each family stands with the group numbers (1 < g) that need the fewest parameters "
        "for the target at a rank of at least F/4 of its equivalent matrix; where none has that "
        "rank, the cheapest is shown and its rank is struck through. The paper's four are in bold; "
        "all others it misses.\n"
    )
    for report in reports:
        yield from _target(report)


def _target(report: dict[str, Any]) -> Iterator[str]:
    yield f"## Target `{report['target']}` ({report['seconds']:.1f} s)\n"
    yield "| pass | rule | kept | removed |\n| --- | --- | ---: | ---: |"
    for step in report["steps"]:
        yield f"| {step['pass']} | {step['rule']} | {step['kept']:,} | {step['removed']:,} |"
    survivors = report["survivors"]
    linear = [one for one in survivors if one["rank"] is not None]
    steps = [one for one in survivors if one["rank"] is None]
    short = [one for one in steps if one["family"].count("+") < LONGEST_SHOWN]
    missed = sum(one["missed"] for one in linear)
    yield f"\n{len(linear)} linear families are left, {missed} of which the paper's four miss.\n"
    yield from _table(linear, report["channels"])
    yield (
        f"\nA time step has an activation of its own: no equivalent matrix, and no sub-sequence or "
        f"mirror image stands for it, so that {len(steps):,} families with one are left. Those of "
        f"up to {LONGEST_SHOWN} operators:\n"
    )
    yield from _table(short, report["channels"])
    yield ""


def _table(rows: list[dict[str, Any]], features: int) -> Iterator[str]:
    yield "| params | weights per output | rank | design |\n| ---: | ---: | ---: | --- |"
    for one in rows:
        rank = "-" if one["rank"] is None else str(one["rank"])
        rank = f"~~{rank}~~" if one["rank"] is not None and 4 * one["rank"] < features else rank
        name = f"`{one['design']}`" if one["missed"] else f"**`{one['design']}`**"
        yield f"| {one['params']:,} | {one['weights_per_output']:.2f} | {rank} | {name} |"
