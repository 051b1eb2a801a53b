"""The blocks of the literature, sized for the same limits as everything else in a search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from analysis.completeness import why_incomplete
from nas.budget import Refusal, solve
from nas.candidates import Candidate, Sized, Task
from nas.limits import Limits
from spaces.design import Design
from spaces.grouped import GroupNumber
from spaces.known import KNOWN, Known

DEPTHS = (2, 1)
"""Blocks in each stage: two as in ResNet-18 (He et al. 2016a), else one."""


def known_candidates(
    task: Task, limits: Limits, stages: int, *, allow_incomplete: bool = False
) -> list[Sized | Refusal]:
    """Each known block at its widest, or why it cannot take part.

    A published group number is kept where it can be: first with two blocks a stage, then with one.
    Then comes the next smaller number for which a width fits, and the name says so. A refusal is
    that of the published block with one block a stage. A block that no width and number makes
    complete (LeanResNet's) competes as it was published: the window is our demand, not its.
    """
    results: list[Sized | Refusal] = []
    for known in KNOWN:
        allow = allow_incomplete or not _can_be_complete(known)
        refusal: Sized | Refusal | None = None
        for candidate in _forms(known, stages):
            found = solve(candidate, task, limits, allow_incomplete=allow)
            if isinstance(found, Sized):
                results.append(found)
                break
            if candidate.design == known.design:
                refusal = found
        else:
            if refusal is not None:
                results.append(refusal)
    return results


def _forms(known: Known, stages: int) -> Iterator[Candidate]:
    """The block with its published number of groups and with each smaller one down to two."""
    published = _groups(known.design)
    for groups in range(published, min(published, 2) - 1, -1):
        name, design = known.name, known.design
        if groups != published:
            name = f"{name} ({groups} groups)"
            design = _with_groups(design, groups)
        for depth in DEPTHS:
            yield Candidate(design, (depth,) * stages, known.inner, name)


@cache
def _can_be_complete(known: Known) -> bool:
    """Whether one group, at a width that every published number divides, sees the window."""
    width = 16 * _groups(known.design)
    return why_incomplete(_with_groups(known.design, 1), width, width) is None


def _groups(design: Design) -> int:
    """The largest group number of the design, 1 if it has none."""
    numbers = [op.g for op in design.operators if isinstance(op, GroupNumber)]
    return max((g for g in numbers if isinstance(g, int)), default=1)


def _with_groups(design: Design, groups: int) -> Design:
    """The design with its group numbers cut to at most `groups`."""
    operators = tuple(
        replace(op, g=min(op.g, groups))
        if isinstance(op, GroupNumber) and isinstance(op.g, int)
        else op
        for op in design.operators
    )
    return replace(design, operators=operators)
