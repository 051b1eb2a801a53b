"""Whether a design sees the whole 3 x 3 x C window, without folding its field.

In a chain of grouped convolutions each step reads a product of channels and taps, so the field is
one too. With the shuffles in place, a run of f channels after operator i reads

    f <- min(W(i-1), f W(i-1) / g_i)                                                       (1)

channels before it (`analysis.theorems`), from f = 1 behind the last operator; one operator that
mixes all its channels (g = 1) ends the question whatever the shuffles. Where a shuffle is left out
and no operator mixes all, or where another kind of operator stands, the exact field decides.

Cost: O(operators) against the field's O(C H W) for each orbit of outputs.
"""

from __future__ import annotations

from functools import lru_cache

from analysis.field import field
from spaces.design import Design
from spaces.grouped import GroupedConvolution

WINDOW = (-1, 0, 1)
"""The taps of the target along one axis."""


@lru_cache(maxsize=65536)
def why_incomplete(design: Design, channels: int, features: int) -> str | None:
    """None, or what the output that sees least misses of the window, as a sentence.

    Raises DesignError where the design cannot stand.

    >>> from spaces.design import parse
    >>> why_incomplete(parse("GC(8)+PWG(8)"), 64, 64)
    >>> why_incomplete(parse("GC(8)+PWG(8)"), 56, 56)
    'GC(8)+PWG(8) at 56 -> 56 channels sees 49 channels, not all 56'
    """
    where = f"{design} at {channels} -> {features} channels"
    if not shuffled_chain(design):
        seen = field(design, channels, features)
        if seen.complete:
            return None
        return f"{where} sees {list(seen.size)}, not all of {[3, 3, channels]}"
    if not _covers(design):
        return f"{where} misses taps of the 3 x 3 window"
    seen_channels = channels_seen(design, channels, features)
    if seen_channels == channels:
        return None
    return f"{where} sees {seen_channels} channels, not all {channels}"


def shuffled_chain(design: Design) -> bool:
    """Whether (1) is exact for the design at all widths."""
    convolutions = all(isinstance(op, GroupedConvolution) for op in design.operators)
    return convolutions and (
        not design.unshuffled or not {"PW", "STD"}.isdisjoint(design.composition)
    )


def channels_seen(design: Design, channels: int, features: int) -> int:
    """How many input channels an output reads by (1)."""
    run = 1
    for item, place, position in reversed(design.places(channels, features)):
        if position is not None:
            run = min(place.channels, run * place.channels // item.groups(place))
    return run


@lru_cache(maxsize=16384)
def volume_seen(design: Design, channels: int, features: int) -> int | str:
    """How many inputs the output that sees least reads, as `analysis.field.Field.volume`.

    >>> from spaces.design import parse
    >>> volume_seen(parse("GC(32)+PWG(2)"), 64, 64)
    576
    """
    if not shuffled_chain(design):
        return field(design, channels, features).volume
    return channels_seen(design, channels, features) * len(_taps(design)) ** 2


def _covers(design: Design) -> bool:
    """Whether the stencils together reach every tap of the window."""
    return _taps(design).issuperset(WINDOW)


def _taps(design: Design) -> set[int]:
    """What the stencils together reach along one axis."""
    reached = {0}
    for operator in design.operators:
        if isinstance(operator, GroupedConvolution):
            half = operator.kernel // 2
            steps = [operator.dilation * step for step in range(-half, half + 1)]
            reached = {tap + step for tap in reached for step in steps}
    return reached
