"""What a search will do, settled from its settings before torch or Optuna is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas.budget import (
    BudgetError,
    Refusal,
    nearest_feasible,
    solve,
)
from nas.candidates import Candidate, Contender, Entry, Sized, Task
from nas.datasets import describe
from nas.files import RunError
from nas.known import DEPTHS, known_candidates
from nas.limits import Limits, show_seconds
from nas.objectives import LATENCY
from nas.rivals import RivalCandidate, RivalSized, entry_from_dict, solve_rival
from nas.run import Settings
from nas.space import SHARES, Space, space_for
from nas.timed_width import usual_seconds, within_latency
from spaces.layouts.fog import stages_for

if TYPE_CHECKING:
    from nas.latency import Stopwatch
    from nas.profile import Profile


class TooSlowError(BudgetError):
    """No network of the space is fast enough, as measured."""

    def __init__(self, limits: Limits, nearest: Entry, seconds: float) -> None:
        super().__init__(limits, nearest)
        self.excess = seconds / (limits.latency or seconds)
        self.args = (
            f"no network of the space fits {limits} on {nearest.task}; the nearest is "
            f"{nearest.candidate} at width {nearest.width}, which takes {show_seconds(seconds)}",
        )


@dataclass
class Plan:
    """The networks that a search can try.

    task: of the network that the limits hold for. data_task: of the one that is trained; they
    differ with `deploy` in input and classes only. known: each block of the literature within the
    analytic limits, or why it is not.
    """

    settings: Settings
    task: Task
    data_task: Task
    limits: Limits
    space: Space
    known: list[Entry | Refusal]
    _watch: Stopwatch | None = None
    _seconds: dict[str, float] = field(default_factory=dict)

    @property
    def times(self) -> bool:
        """Whether latencies are measured: as a limit or as an objective."""
        return self.limits.latency is not None or LATENCY in self.settings.objectives

    def _limits(self, candidate: Contender) -> Limits:
        """What a candidate may use of the limits."""
        share = candidate.share if isinstance(candidate, Candidate) else Fraction(1)
        return self.limits.part(share)

    def solve(self, candidate: Contender) -> Entry | Refusal:
        """The widest network of a candidate within all limits, or why there is none."""
        found = self.analytic(candidate)
        return found if isinstance(found, Refusal) else self.timed(found)

    def timed(self, entry: Entry) -> Entry | Refusal:
        """The same network, or a narrower one that meets the limit of latency."""
        if self.limits.latency is None:
            return entry

        def refit(width: int) -> Entry | Refusal:
            return self.analytic(entry.candidate, width)

        limits = self._limits(entry.candidate)
        return within_latency(entry, limits, self.measure, refit, self.expect)

    def analytic(self, candidate: Contender, at_most: int | None = None) -> Entry | Refusal:
        """The widest network within the limits that need no measuring."""
        if isinstance(candidate, RivalCandidate):
            return solve_rival(candidate, self.task, self.limits, at_most=at_most)
        if not isinstance(candidate, Candidate):
            raise TypeError(f"{candidate} is neither a design nor a rival")
        incomplete = self.settings.allow_incomplete
        return solve(
            candidate,
            self.task,
            self._limits(candidate),
            allow_incomplete=incomplete,
            at_most=at_most,
        )

    def add_rivals(self) -> None:
        """Let the user's own blocks compete, with as many blocks a stage as known ones have.

        Builds them, which imports torch. Raises RivalError.
        """
        for spec in self.settings.rivals:
            for depth in DEPTHS:
                found = self.analytic(RivalCandidate(spec, (depth,) * self.space.stages))
                if not isinstance(found, Refusal):
                    break
            self.known.append(found)

    def check_latency(self) -> None:
        """Raises TooSlowError where not even the smallest networks are fast enough."""
        if self.limits.latency is None:
            return
        found = []
        for candidate in self.space.smallest():
            entry = self.solve(candidate)
            if not isinstance(entry, Refusal):
                return
            if entry.nearest is not None:
                found.append((self.measure(entry.nearest), entry.nearest))
        seconds, nearest = min(found, key=lambda one: one[0])
        raise TooSlowError(self.limits, nearest, seconds)

    def expect(self, entry: Entry) -> float:
        """Seconds for one image by the profile of this machine, a usual guess where it has none."""
        if (profile := self._profile) is None:
            return usual_seconds(entry)
        from nas.roofline import estimate

        return estimate(entry.module(seed=0), (1, *entry.task.input), profile)

    @cached_property
    def _profile(self) -> Profile | None:
        """Of this machine, where it was measured."""
        from nas.profile import Profile, default_path

        path = default_path()
        return Profile.read(path) if path.exists() else None

    def measure(self, entry: Entry) -> float:
        """Seconds for one image on this machine, timed once a network."""
        if entry.key not in self._seconds:
            if self._watch is None:
                from nas.latency import Stopwatch

                self._watch = Stopwatch()
            self._seconds[entry.key] = self._watch(entry)
        return self._seconds[entry.key]

    def latency(self, entry: Entry) -> float | None:
        """What was measured, None where latency is neither limit nor objective."""
        return self.measure(entry) if self.times else None

    def remember(self, entry: Entry, seconds: float | None) -> None:
        """Take a latency from an earlier process, so that it is not measured again."""
        if seconds is not None:
            self._seconds.setdefault(entry.key, seconds)

    @property
    def how_timed(self) -> str | None:
        """How latency was measured, None where it was not."""
        return None if self._watch is None else str(self._watch)

    def proxy(self, entry: Entry) -> Entry:
        """The network that is trained for an entry: same design, blocks and width, own data."""
        if not isinstance(entry, Sized | RivalSized):
            raise TypeError(f"{entry} is neither a design nor a rival")
        return entry.candidate.sized(self.data_task, entry.width)

    def read(self, network: Mapping[str, Any]) -> Entry:
        """The entry of `Entry.to_dict`."""
        return entry_from_dict(dict(network))


def plan(settings: Settings) -> Plan:
    """Check the settings against the data's shape and find out whether any design fits.

    Raises BudgetError with the nearest design, DataError, DesignError and ValueError.
    """
    limits = Limits(
        settings.max_params, settings.max_mults, settings.max_traffic, settings.max_latency
    )
    shape = describe(settings.data)
    data_task = Task((shape.channels, shape.height, shape.width), shape.classes)
    task = data_task if settings.deploy is None else read_task(settings.deploy)
    stages = stages_for(*task.input[1:])
    space = space_for(
        task,
        limits,
        stages,
        include=settings.include,
        exclude=settings.exclude,
        vocabulary=settings.vocabulary,
        incomplete=settings.allow_incomplete,
        shares=SHARES if len(settings.objectives) > 1 else (),
    )
    known = known_candidates(task, limits, stages, allow_incomplete=settings.allow_incomplete)
    made = Plan(settings, task, data_task, limits, space, [*known])
    refused: list[Entry | Refusal] = []
    for candidate in space.smallest():
        found = made.analytic(candidate)
        if not isinstance(found, Refusal):
            break
        refused.append(found)
    else:
        raise BudgetError(limits, nearest_feasible(refused, limits))
    made.add_rivals()
    return made


def read_task(text: str) -> Task:
    """The two ends of a network, as `3x224x224:1000`. Raises RunError that says so.

    >>> read_task("3x224x224:1000")
    Task(input=(3, 224, 224), classes=1000)
    """
    match = re.fullmatch(r"\s*(\d+)x(\d+)x(\d+):(\d+)\s*", text)
    channels, height, width, classes = map(int, match.groups()) if match else (0, 0, 0, 0)
    if min(channels, height, width) < 1 or classes < 2:
        raise RunError(
            f"--deploy {text!r} is no task: write channels x height x width : classes, such as "
            "3x224x224:1000, each at least 1 and at least 2 classes"
        )
    return Task((channels, height, width), classes)
