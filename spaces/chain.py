"""A part written as a row of items, each of which stands where the one before it ended.

    chain = Chain("stage1.2", x).norm().relu().design(parse("DW+PW"))

For the blocks that `Drawing.convolution` does not know: pre-activation, pools within.
"""

from __future__ import annotations

from typing import Self

from spaces.design import Design, Step
from spaces.drawing import Map
from spaces.fixed import BatchNorm, ReLU, Shortcut
from spaces.network import Part
from spaces.operator import DesignError, Operator
from spaces.place import Place


class Chain:
    """Items in a row from the map `x`; `end` is the map after the last one so far.

    Each method raises DesignError, with the name of the part, where an item cannot stand.
    """

    def __init__(self, name: str, x: Map) -> None:
        self.name = name
        self.start = self.end = x
        self.steps: list[Step] = []
        self._operators = 0
        self._turning = 0

    def add(self, item: Operator, features: int | None = None, stride: int = 1) -> Self:
        """An item to `features` channels; as many as before, unless given."""
        place = self.end.place(features, stride)
        if (reason := item.why_invalid(place)) is not None:
            raise DesignError(f"{self.name}: {reason}")
        return self._stand(Step(item, place, None))

    def norm(self) -> Self:
        return self.add(BatchNorm())

    def relu(self) -> Self:
        return self.add(ReLU())

    def design(self, design: Design, features: int | None = None) -> Self:
        """A design in place of one convolution, with batch normalisation between its operators;
        what follows the last one is up to the layout.

        An operator that alternates along a design goes on alternating along the row.
        """
        turned = design.turned(self._turning)
        self._turning += sum(op.turned(0) is not op for op in design.operators)
        _, channels, height, width = self.end
        try:
            places = turned.places(channels, features, height, width)
        except DesignError as error:
            raise DesignError(f"{self.name}: {error}") from None
        last = len(design.operators) - 1
        for item, place, position in places:
            if position is None:
                self._stand(Step(item, place, None))
                continue
            self._stand(Step(item, place, self._operators))
            self._operators += 1
            if position != last and item.kind != "step":
                self.norm()
        return self

    def part(self, design: Design | None = None, *, shortcut: bool = False) -> Part:
        """The row as a part. design: what stands here for a dense convolution. shortcut: the
        input is added, as it is."""
        whole = self.start.place()
        return Part(
            self.name,
            tuple(self.steps),
            Step(Shortcut(), whole, None) if shortcut else None,
            design=design,
            sources=(self.start.source,),
        )

    def _stand(self, step: Step) -> Self:
        place: Place = step.place
        self.steps.append(step)
        self.end = Map(self.start.source, place.features, place.out_height, place.out_width)
        return self
