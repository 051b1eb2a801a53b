"""A candidate: a network of the layout up to its width, and its sized form.

Width is never searched: a budget solves for it (`nas.budget`). Nothing here needs torch until
`Sized.module` is called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from analysis.completeness import why_incomplete
from analysis.cost import Cost, total
from analysis.theorems import resolve
from nas.standing import Slot, block_cost, ends_cost, here, standing, written
from spaces.design import Design, parse
from spaces.layouts.fog import fog
from spaces.network import Network
from spaces.operator import DesignError

if TYPE_CHECKING:
    from torch import nn

SCHEMA = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """The two ends of a network: (channels, height, width) in, class scores out."""

    input: tuple[int, int, int]
    classes: int

    def __str__(self) -> str:
        return "x".join(map(str, self.input)) + f":{self.classes}"


class Contender(Protocol):
    """What a search can try: a candidate, or a user's own block (`nas.rivals`)."""

    @property
    def blocks(self) -> tuple[int, ...]: ...
    @property
    def known_as(self) -> str | None: ...


class Entry(Protocol):
    """A contender at a width, for a task: what is costed, timed, trained and ranked."""

    @property
    def candidate(self) -> Contender: ...
    @property
    def task(self) -> Task: ...
    @property
    def width(self) -> int: ...
    @property
    def title(self) -> str:
        """The design as a table shows it."""

    @property
    def cost(self) -> Cost: ...
    @property
    def key(self) -> str:
        """Equal for the same function, whatever it is called."""

    def module(self, seed: int | None = None) -> nn.Module: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Candidate:
    """A design in every block, and the number of blocks of each stage.

    design: with numbers, with constant group sizes (`q=`) or starred (the optimum of each layer).
    inner: operators that a ReLU follows besides the sum, as known blocks have it. share: of the
    limits that it may use; less than all where costs are objectives too.
    """

    design: Design
    blocks: tuple[int, ...]
    inner: tuple[int, ...] = ()
    known_as: str | None = field(default=None, compare=False)
    share: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise DesignError(
                f"blocks per stage are {list(self.blocks)}; each stage needs at least one"
            )

    def __str__(self) -> str:
        relu = f" relu@{','.join(map(str, self.inner))}" if self.inner else ""
        share = f" with {self.share} of the limits" if self.share != 1 else ""
        return f"{self.design} x{'-'.join(map(str, self.blocks))}{relu}{share}"

    def sized(self, task: Task, width: int) -> Sized:
        """The network of this width. Raises DesignError that names the block that cannot stand."""
        return Sized(self, task, width)


@dataclass(frozen=True)
class Sized:
    """A candidate at a width, for a task: everything about the network is settled."""

    candidate: Candidate
    task: Task
    width: int

    @cached_property
    def network(self) -> Network:
        design = self.candidate.design
        return fog(
            lambda name, c, f, h, w, stride: resolve(design, c, f) if design.is_family else design,
            input=self.task.input,
            classes=self.task.classes,
            width=self.width,
            blocks=self.candidate.blocks,
            inner=self.candidate.inner,
        )

    @cached_property
    def cost(self) -> Cost:
        """Of the network, by what its ends and its blocks cost; it is not built."""
        candidate, task, width = self.candidate, self.task, self.width

        def cost_at(slot: Slot) -> Cost:
            return block_cost(self._at(resolve, slot), candidate.inner, slot, width)

        ends = ends_cost(task.input, task.classes, len(candidate.blocks), width)
        return total([ends, *(cost for _, cost in self._each(cost_at))])

    @property
    def title(self) -> str:
        return str(self.candidate.design)

    @property
    def layers(self) -> tuple[str, ...]:
        """The canonical design of each block: equal layers at equal widths are one network."""
        return tuple(text for _, text in self._each(partial(self._at, written)))

    @property
    def key(self) -> str:
        """What makes two sized candidates the same function, whatever they were called."""
        identity = [str(self.task), self.width, self.candidate.blocks, self.layers]
        return json.dumps([*identity, self.candidate.inner])

    def why_incomplete(self) -> str | None:
        """None, or the first block whose outputs do not all see the 3 x 3 x C window."""
        for name, design, channels, features in self._blocks():
            if (reason := why_incomplete(design, channels, features)) is not None:
                return f"{name}: {reason}"
        return None

    def _blocks(self) -> Iterator[tuple[str, Design, int, int]]:
        """Name, canonical design and widths of each block."""
        for name, (design, slot) in self._each(lambda slot: (self._at(here, slot), slot)):
            yield name, design, slot.channels * self.width, slot.features * self.width

    def _at(self, work: Callable[[Design, int, int], T], slot: Slot) -> T:
        """An answer about the design at the widths of a slot."""
        return work(self.candidate.design, slot.channels * self.width, slot.features * self.width)

    def _each(self, work: Callable[[Slot], T]) -> Iterator[tuple[str, T]]:
        """For each block its name and an answer. Raises DesignError with the name of the block."""
        for name, slot in standing(self.task.input, self.candidate.blocks):
            try:
                answer = work(slot)
            except DesignError as error:
                raise DesignError(f"{name}: {error}") from None
            yield name, answer

    def module(self, seed: int | None = None) -> nn.Module:
        """(N, channels, height, width) -> (N, classes); the same seed gives the same weights."""
        import torch

        if seed is None:
            return self.network.module()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.network.module()

    # ---- the file form -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "layout": "fog",
            "design": str(self.candidate.design),
            "inner": list(self.candidate.inner),
            "known_as": self.candidate.known_as,
            "blocks": list(self.candidate.blocks),
            "width": self.width,
            "input": list(self.task.input),
            "classes": self.task.classes,
        }

    @staticmethod
    def check_schema(data: dict[str, Any]) -> None:
        """Raises DesignError for another schema or layout."""
        if data.get("schema") != SCHEMA or data.get("layout") != "fog":
            raise DesignError(f"not a network of schema {SCHEMA} and layout fog: {data}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Sized:
        """Back from `to_dict`. Raises DesignError for another schema or layout."""
        cls.check_schema(data)
        candidate = Candidate(
            parse(data["design"]), tuple(data["blocks"]), tuple(data["inner"]), data["known_as"]
        )
        channels, height, width = data["input"]
        return cls(candidate, Task((channels, height, width), data["classes"]), data["width"])
