"""A network drawn part by part: each step takes maps and gives the map that it makes.

Layouts whose blocks branch (projections, squeeze-and-excitation, several resolutions) are written
as if they computed: `y = drawing.convolution("stem", x, 64, "STD(k=7)", stride=2)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from spaces.activations import Bias
from spaces.design import Step, parse
from spaces.fixed import BatchNorm, Fixed, ReLU
from spaces.items import Dense, Flatten, GlobalPool, Subsample, dense, pooled
from spaces.merge import Concat, Merge, Product, Sum
from spaces.network import INPUT, Network, Part, block
from spaces.operator import DesignError
from spaces.place import Place
from spaces.slots import Slots

RELU = ReLU()


class Map(NamedTuple):
    """What a part gives: (C, H, W), and the part's name."""

    source: str
    channels: int
    height: int
    width: int

    def place(self, features: int | None = None, stride: int = 1) -> Place:
        """Where an item stands on this map; it keeps the width unless said."""
        return Place(self.channels, features or self.channels, self.height, self.width, stride)


class Drawing:
    """The parts so far; `slots` says which design stands in each convolution."""

    def __init__(self, input: tuple[int, int, int], slots: Slots) -> None:
        self.input = Map(INPUT, *input)
        self.slots = slots
        self.parts: dict[str, Part] = {}

    def network(self, classes: int) -> Network:
        """What has been drawn. Raises DesignError for a rule that matches no convolution."""
        self.slots.check()
        x = self.input
        return Network((x.channels, x.height, x.width), classes, tuple(self.parts.values()))

    def convolution(
        self,
        name: str,
        x: Map,
        features: int,
        own: str = "STD",
        stride: int = 1,
        *,
        activation: Fixed | None = RELU,
        norm: bool = True,
        bias: bool = False,
        behind: Sequence[str] = (),
    ) -> Map:
        """The layout's `own` convolution or what replaces it, batch normalisation after each
        operator (`norm`), one number a channel added by the last (`bias`), the activation.

        behind: the convolutions before it in its block, along which operators that alternate go
        on alternating. The stride of a 1 x 1 convolution leaves pixels out. Time steps have a norm
        and an activation of their own. Raises DesignError where the design cannot stand.
        """
        body: list[Step] = []
        if stride > 1 and not any(operator.spatial for operator in parse(own).operators):
            place = x.place(stride=stride)
            body.append(Step(Subsample(), place, None))
            x, stride = x._replace(height=place.out_height, width=place.out_width), 1
        design = self.slots.design(name, own).turned(self._alternating(behind))
        part = block(name, design, x.channels, features, x.height, x.width, stride, shortcut=False)
        body += [step for step in part.body if norm or not isinstance(step.item, BatchNorm)]
        whole = part.whole
        ended = Place(features, features, whole.out_height, whole.out_width)
        if bias:
            last = max(i for i, step in enumerate(body) if step.position is not None)
            body.insert(last + 1, Step(Bias(), ended, None))
        after = (Step(activation, ended, None),) if activation and part.after else ()
        return self.add(replace(part, body=tuple(body), after=after, sources=(x.source,)))

    def block(
        self, name: str, x: Map, features: int, own: str = "STD", stride: int = 1, *, inner: bool
    ) -> Map:
        """A design in a residual block of its own, as `spaces.network.block`; `inner` puts a ReLU
        after each of its operators but the last as well."""
        design = self.slots.design(name, own)
        middle = tuple(range(len(design.operators) - 1)) if inner else ()
        place = x.place(features, stride)
        part = block(
            name, design, x.channels, features, place.height, place.width, stride, inner=middle
        )
        return self.add(replace(part, sources=(x.source,)))

    def item(self, name: str, x: Map, *items: Fixed | Step) -> Map:
        """Items in a row; one without a place of its own keeps the shape."""
        body: list[Step] = []
        for item in items:
            body.append(item if isinstance(item, Step) else Step(item, x.place(), None))
            place = body[-1].place
            x = Map(x.source, place.features, place.out_height, place.out_width)
        return self.add(Part(name, tuple(body), sources=(x.source,)))

    def sum(self, name: str, *maps: Map, activation: Fixed | None = RELU) -> Map:
        """Maps of one shape, added; then the activation."""
        return self._merge(name, Sum(tuple(m.channels for m in maps)), maps, maps[0], activation)

    def concatenation(self, name: str, *maps: Map) -> Map:
        """Maps of one size, their channels in a row."""
        widths = tuple(m.channels for m in maps)
        whole = maps[0]._replace(channels=sum(widths))
        return self._merge(name, Concat(widths), maps, whole, None)

    def scaled(self, name: str, x: Map, scale: Map) -> Map:
        """A map times one number a channel."""
        return self._merge(name, Product((x.channels, scale.channels)), (x, scale), x, None)

    def residual(
        self,
        name: str,
        x: Map,
        y: Map,
        layers: Sequence[str],
        shortcut: Map | None = None,
        *,
        activation: Fixed | None = RELU,
    ) -> Map:
        """y + x, or y + shortcut where their shapes differ, then the activation.

        layers: the names of the convolutions from x to y. Where each of their operators already
        adds its input, the identity goes through all of them and there is no second one.
        """
        operators = [
            step for layer in layers for step in self.parts[layer].body if step.position is not None
        ]
        if shortcut or not all(step.item.adds_input(step.place) for step in operators):
            return self.sum(name, y, shortcut or x, activation=activation)
        if activation is None or all(step.item.kind == "step" for step in operators):
            return y
        return self.item(name, y, activation)

    def head(self, x: Map, classes: int, *before: Fixed) -> Map:
        """The mean over the map, the items `before`, a dense layer with bias: class scores.

        A design may replace the dense layer, which it enters as a map of one pixel; its name is
        `head`.
        """
        pool = Step(GlobalPool(), pooled(x.channels, x.height, x.width), None)
        design = self.slots.design("head", "PW")
        if design == parse("PW"):
            layer = Step(Dense(), dense(x.channels, classes), None)
            return self.item("head", x, pool, *before, layer)
        try:
            steps = design.places(x.channels, classes)
        except DesignError as error:
            raise DesignError(f"head: {error}") from None
        return self.item("head", x, pool, *before, *steps, Bias(), Flatten())

    def _alternating(self, layers: Sequence[str]) -> int:
        """How many operators that alternate along a block stand in these convolutions."""
        designs = (self.slots.asked[layer] for layer in layers)
        return sum(op.turned(0) is not op for design in designs for op in design.operators)

    def _merge(
        self, name: str, merge: Merge, maps: Sequence[Map], whole: Map, activation: Fixed | None
    ) -> Map:
        body = () if activation is None else (Step(activation, whole.place(), None),)
        step = Step(merge, whole.place(), None)
        return self.add(Part(name, body, sources=tuple(m.source for m in maps), merge=step))

    def add(self, part: Part) -> Map:
        """A part of one's own making."""
        self.parts[part.name] = part
        place = part.exit
        return Map(part.name, place.features, place.out_height, place.out_width)
