"""A whole network as data: parts that feed each other, each a chain of items with an optional
shortcut.

Cost, field, module and export walk the same steps; nothing recomputes where an item stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.design import Design, Step
from spaces.fixed import BatchNorm, ReLU, Shortcut
from spaces.operator import DesignError
from spaces.place import Place

if TYPE_CHECKING:
    from torch import nn

Slot = Callable[[str, int, int, int, int, int], Design]
"""The design for a slot of a layout: (name, C, F, H, W, stride) -> design."""


INPUT = "input"
"""The name of the network's input among the sources of a part."""


@dataclass(frozen=True)
class Part:
    """after(body(x) + shortcut(x)) of x = merge(sources).

    `design` is what stands here for a dense convolution, if anything. `sources` names the parts
    whose outputs enter, `INPUT` for the network's own; empty means the part before.
    """

    name: str
    body: tuple[Step, ...]
    shortcut: Step | None = None
    after: tuple[Step, ...] = ()
    design: Design | None = None
    sources: tuple[str, ...] = ()
    merge: Step | None = None

    def steps(self) -> Iterator[Step]:
        """Every item with a cost, in the order of the forward pass."""
        if self.merge is not None:
            yield self.merge
        yield from self.body
        if self.shortcut is not None:
            yield self.shortcut
        yield from self.after

    @property
    def entry(self) -> Place:
        """Where the part begins."""
        return next(self.steps()).place

    @property
    def exit(self) -> Place:
        """Where the part ends."""
        if self.after or self.body:
            return (self.after or self.body)[-1].place
        return self.entry

    @property
    def whole(self) -> Place:
        """From the input of the body to its output, at the stride of all its items."""
        first, last = self.body[0].place, self.body[-1].place
        stride = math.prod(step.place.stride for step in self.body)
        return Place(first.channels, last.features, first.height, first.width, stride)

    def module(self) -> nn.Module:
        """(N, C, H, W) -> (N, F, H', W')."""
        from torch import nn

        from spaces import modules

        return modules.Part(
            nn.Sequential(*(step.item.module(step.place) for step in self.body)),
            self.shortcut.item.module(self.shortcut.place) if self.shortcut else None,
            nn.Sequential(*(step.item.module(step.place) for step in self.after)),
            self.merge.item.module(self.merge.place) if self.merge else None,
        )


@dataclass(frozen=True)
class Network:
    """Parts in topological order, from (channels, height, width) to class scores."""

    input: tuple[int, int, int]
    classes: int
    parts: tuple[Part, ...]

    def blocks(self) -> Iterator[Part]:
        """The parts that replace a dense convolution."""
        return (part for part in self.parts if part.design is not None)

    @property
    def wiring(self) -> tuple[tuple[int, ...], ...]:
        """For each part the indices of the parts whose outputs enter, -1 for the input.

        Raises KeyError for a source that does not come before its reader.
        """
        index = {INPUT: -1}
        rows = []
        for i, part in enumerate(self.parts):
            rows.append(tuple(index[name] for name in part.sources) or (i - 1,))
            index[part.name] = i
        return tuple(rows)

    @property
    def is_chain(self) -> bool:
        """Whether each part takes the output of the part before and nothing else."""
        return all(row == (i - 1,) for i, row in enumerate(self.wiring))

    def module(self) -> nn.Module:
        """(N, channels, height, width) -> (N, classes), freshly initialised."""
        from torch import nn

        from spaces import modules

        parts = [part.module() for part in self.parts]
        network = nn.Sequential(*parts) if self.is_chain else modules.Graph(parts, [*self.wiring])
        modules.initialise(network)
        return network


def block(
    name: str,
    design: Design,
    channels: int,
    features: int,
    height: int,
    width: int,
    stride: int = 1,
    *,
    inner: tuple[int, ...] = (),
    shortcut: bool = True,
) -> Part:
    """A design with batch normalisation after each operator and ReLU after the sum.

    A time step owns its normalisation and activation: none follows it, nor a row of nothing else.
    Where every operator already adds its input, the identity goes through all of them and the
    block adds no second one.
    inner: indices of the operators that a ReLU follows as well (as some known blocks have it).
    Raises DesignError where the design cannot stand. Source: Penetrating the Fog, section 4.1.
    """
    try:
        steps = design.places(channels, features, height, width, stride)
    except DesignError as error:
        raise DesignError(f"{name}: {error}") from None
    body: list[Step] = []
    for step in steps:
        body.append(step)
        if step.position is not None and step.item.kind != "step":
            at = _behind(step.place)
            body.append(Step(BatchNorm(), at, None))
            if step.position in inner:
                body.append(Step(ReLU(), at, None))
    whole = Place(channels, features, height, width, stride)
    operators = [step for step in steps if step.position is not None]
    own_identity = all(step.item.adds_input(step.place) for step in operators)
    own_activation = all(step.item.kind == "step" for step in operators)
    return Part(
        name,
        tuple(body),
        Step(Shortcut(), whole, None) if shortcut and not own_identity else None,
        () if own_activation else (Step(ReLU(), _behind(whole), None),),
        design,
    )


def _behind(place: Place) -> Place:
    """The place of an item that keeps the shape of what stands at `place`."""
    return Place(place.features, place.features, place.out_height, place.out_width)
