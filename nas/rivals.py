"""A user's own block, `package.module:Block`, in the layout and under the limits of a search.

`Block(in_channels, out_channels, stride)` gives a module from (N, C, H, W) to
(N, F, ceil(H / stride), ceil(W / stride)). It takes the place of a whole block, with whatever
normalisation, activation and shortcut it has; stem and head are those of everyone else. Nothing
is known of it beforehand: its costs come from building and running it (`nas.rival_cost`). Torch
is imported when the first one is built.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cost import Cost, part_cost, total
from nas.budget import Refusal, widest_index
from nas.candidates import SCHEMA, Entry, Sized, Task
from nas.ladder import NARROWEST
from nas.limits import Limits
from spaces.design import parse
from spaces.layouts.fog import fog
from spaces.network import Network, Part

if TYPE_CHECKING:
    from torch import nn

STEPS = 128
"""Largest step of the widths that is tried."""


class RivalError(ValueError):
    """A block that cannot be found, built or used, with the reason as a sentence."""


@lru_cache(maxsize=64)
def load(spec: str) -> Callable[[int, int, int], nn.Module]:
    """The class or function behind `package.module:Block`, looked up from the working folder too.

    Raises RivalError that says which part of the name is wrong.
    """
    path, colon, name = spec.partition(":")
    if not (path and colon and name.isidentifier()):
        raise RivalError(f"{spec!r} does not name a block; write package.module:Block")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise RivalError(f"cannot import {path!r} of {spec!r}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        classes = [n for n, _ in inspect.getmembers(module, inspect.isclass)]
        have = f"its classes are {', '.join(classes)}" if classes else "it has no class"
        raise RivalError(f"{path!r} has no class or function {name!r}; {have}")
    return found


@lru_cache(maxsize=64)
def fingerprint(spec: str) -> str:
    """The first digits of the SHA-256 of the block's source: an edited block is another block."""
    found = load(spec)
    try:
        source = Path(inspect.getfile(found)).read_bytes()
    except (TypeError, OSError):
        source = repr(found).encode()
    return hashlib.sha256(source).hexdigest()[:12]


@dataclass(frozen=True)
class RivalCandidate:
    """A user's block in every slot of the layout."""

    spec: str
    blocks: tuple[int, ...]

    @property
    def known_as(self) -> str | None:
        return "rival"

    def __str__(self) -> str:
        return f"{self.spec} x{'-'.join(map(str, self.blocks))}"

    def sized(self, task: Task, width: int) -> RivalSized:
        return RivalSized(self, task, width)


@dataclass(frozen=True)
class RivalSized:
    """A rival's network at a width: it serves wherever a `nas.candidates.Entry` does."""

    candidate: RivalCandidate
    task: Task
    width: int

    @property
    def title(self) -> str:
        return self.candidate.spec

    @property
    def key(self) -> str:
        spec = self.candidate.spec
        identity = [str(self.task), self.width, self.candidate.blocks]
        return json.dumps([*identity, "rival", spec, fingerprint(spec)])

    @cached_property
    def cost(self) -> Cost:
        """Raises RivalError where the block cannot be built or changes the shape wrongly."""
        from nas.rival_cost import block_cost

        def of(part: Part) -> Cost:
            if part.shortcut is None:
                return part_cost(part)
            return block_cost(self.candidate.spec, part.shortcut.place)

        return total(of(part) for part in self._layout.parts)

    def module(self, seed: int | None = None) -> nn.Module:
        """(N, channels, height, width) -> (N, classes); the same seed gives the same weights."""
        import torch

        if seed is None:
            return self._build()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build()

    def _build(self) -> nn.Module:
        from torch import nn

        from spaces.modules import initialise

        make = load(self.candidate.spec)
        parts: list[nn.Module] = []
        for part in self._layout.parts:
            if part.shortcut is not None:
                place = part.shortcut.place
                parts.append(make(place.channels, place.features, place.stride))
            else:
                parts.append(part.module())
                initialise(parts[-1])
        return nn.Sequential(*parts)

    @cached_property
    def _layout(self) -> Network:
        """The layout with a stand-in where the rival's blocks come."""
        return fog(
            lambda name, c, f, h, w, stride: parse("STD"),
            input=self.task.input,
            classes=self.task.classes,
            width=self.width,
            blocks=self.candidate.blocks,
        )

    # ---- the file form -----------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "layout": "fog",
            "rival": self.candidate.spec,
            "known_as": self.candidate.known_as,
            "blocks": list(self.candidate.blocks),
            "width": self.width,
            "input": list(self.task.input),
            "classes": self.task.classes,
        }


def entry_from_dict(data: dict[str, Any]) -> Entry:
    """Back from `to_dict` of a rival or of a design. Raises DesignError as `Sized.from_dict`."""
    if "rival" not in data:
        return Sized.from_dict(data)
    Sized.check_schema(data)
    channels, height, width = data["input"]
    candidate = RivalCandidate(data["rival"], tuple(data["blocks"]))
    return candidate.sized(Task((channels, height, width), data["classes"]), data["width"])


def solve_rival(
    candidate: RivalCandidate, task: Task, limits: Limits, *, at_most: int | None = None
) -> RivalSized | Refusal:
    """The widest network within the analytic limits, by building and bisection.

    The costs are taken to grow with the width, and the widths at which the block can be built to
    be the multiples of one number. at_most: no wider than that. Raises RivalError if the block
    cannot be built at any width up to 128.
    """
    limits = limits.analytic
    unit = step(candidate, task)
    low = unit * -(-NARROWEST // unit)
    last = None if at_most is None else (at_most - low) // unit

    def sized(index: int) -> RivalSized:
        return candidate.sized(task, low + index * unit)

    index = widest_index(lambda i: limits.allow(sized(i).cost), last)
    if index >= 0:
        return sized(index)
    nearest = sized(0)
    broken = limits.why_not(nearest.cost) or f"is wider than {at_most}"
    return Refusal(candidate, f"width {low}, the narrowest, has {broken}", nearest)


@lru_cache(maxsize=64)
def step(candidate: RivalCandidate, task: Task) -> int:
    """The smallest number whose first multiples are widths at which the block can be built.

    Raises RivalError with the block's own complaint at width 128 if there is none.
    """
    for unit in range(1, STEPS + 1):
        first = -(-NARROWEST // unit)
        if all(why_not_built(candidate, task, unit * (first + i)) is None for i in range(3)):
            return unit
    reason = why_not_built(candidate, task, STEPS)
    raise RivalError(
        f"{candidate.spec} cannot be built at the multiples of any number up to {STEPS}"
        + (f"; at width {STEPS}: {reason}" if reason else "")
    )


def why_not_built(candidate: RivalCandidate, task: Task, width: int) -> str | None:
    """None, or the block's complaint at this width. Raises RivalError for a wrong shape."""
    from nas.rival_cost import BuildError

    try:
        _ = candidate.sized(task, width).cost
    except BuildError as error:
        return str(error)
    return None
