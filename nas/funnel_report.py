"""The funnel's answer as plain data and as text; for an enlarged vocabulary under both targets.

The second target runs beside the first in a process of its own: they share no work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from analysis.choices import TARGETS
from analysis.funnel import Funnel, funnel
from analysis.survivors import survivors

SHOWN = 20
"""Survivors in the text; --json lists all."""


def answer(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`Funnel.as_dict` and the survivors, from the arguments of `analysis.funnel.funnel`."""
    return with_survivors(funnel(**arguments))


def with_survivors(result: Funnel) -> dict[str, Any]:
    """The result as plain data: JSON of `leanfield funnel`."""
    return result.as_dict() | {"survivors": [one.as_dict() for one in survivors(result)]}


def both_targets(arguments: Mapping[str, Any], target: str) -> dict[str, Any]:
    """The answer for one target, and under `other_target` that for the other."""
    other = next(name for name in TARGETS if name != target)
    with ProcessPoolExecutor(1) as pool:
        second = pool.submit(answer, {**arguments, "target": other})
        first = answer({**arguments, "target": target})
        return first | {"other_target": second.result()}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The table of steps, and the designs or the cheapest survivors."""
    yield f"{'pass':<12}{'rule':<14}{'kept':>10}{'removed':>11}"
    for step in report["steps"]:
        yield f"{step['pass']:<12}{step['rule']:<14}{step['kept']:>10,}{step['removed']:>11,}"
    linear = [one for one in report["survivors"] if one["rank"] is not None]
    yield (
        f"target {report['target']}: {len(linear)} linear families left, the cheapest of each; "
        f"{len(report['survivors']) - len(linear):,} with a time step"
    )
    yield f"{'params':>8}{'per output':>12}{'rank':>6}  design"
    for one in linear[:SHOWN]:
        yield (
            f"{one['params']:>8,}{one['weights_per_output']:>12.2f}{one['rank']:>6}"
            f"  {one['design']}"
        )
    if len(linear) > SHOWN:
        yield f"... and {len(linear) - SHOWN} more; --json lists all"
