"""The field of designs and blocks from the whole vocabulary, whole-plane operators included.

Nothing here names the operators of a random design: they are the examples of the vocabulary.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from analysis.field import field, support
from analysis.graph import channel_graph, dependency_graph, reachable
from spaces.design import Design, parse
from spaces.network import Part, block
from spaces.operator import DesignError, Operator
from spaces.vocabulary import vocabulary

WIDTHS = ((8, 12), (12, 8), (8, 16), (8, 8), (12, 12), (16, 16))
SIZE = (6, 5)


def standing(operators: list[Operator], rng: random.Random) -> tuple[Design, int, int] | None:
    """The operators as a design at some widths, some shuffles left out; None where none fit."""
    left_out = frozenset(i for i in range(3) if rng.random() < 0.3)
    design = Design(tuple(operators), None, left_out)
    for channels, features in WIDTHS:
        if design.why_invalid(channels, features) is None:
            return design, channels, features
    return None


def drawn(count: int) -> list[tuple[Design, int, int]]:
    """Random designs of length up to 4 that stand somewhere, each once."""
    rng = random.Random(0)
    found: dict[str, tuple[Design, int, int]] = {}
    while len(found) < count:
        kinds = rng.choices(list(vocabulary().values()), k=rng.choice((1, 2, 3, 3, 4, 4)))
        case = standing([rng.choice(kind.examples()) for kind in kinds], rng)
        if case is not None:
            found[str(case[0])] = case
    return list(found.values())


CASES = drawn(80)


def pattern_of(part: Part, dependency: Any) -> np.ndarray:
    """Which inputs (C, H, W) each output of a part depends on."""
    place = part.whole
    return dependency(part.module(), (place.channels, place.height, place.width))


def reads_of(part: Part) -> np.ndarray:
    """The same by folding its items: the body's field and the shortcut's, together."""
    place = part.whole
    shape = (place.features, place.out_height, place.out_width)
    outputs = np.eye(place.out_elements, dtype=bool).reshape(-1, *shape)
    needed = outputs
    for item, where, _ in reversed(part.body):
        needed = item.reads(needed, where)
    if part.shortcut is not None:
        needed = needed | part.shortcut.item.reads(outputs, part.shortcut.place)
    return needed.reshape(*shape, *needed.shape[1:])


# ---- gradients -----------------------------------------------------------------------------------


def test_the_random_designs_are_of_every_kind() -> None:
    drawn_from = {type(op) for design, _, _ in CASES for op in design.operators}
    assert len(drawn_from) >= len(vocabulary()) - 2
    assert {len(design.operators) for design, _, _ in CASES} == {1, 2, 3, 4}
    kinds = [{op.kind for op in design.operators} for design, _, _ in CASES]
    assert sum("step" in kind for kind in kinds) >= 20
    assert sum("residual" in kind for kind in kinds) >= 5


@pytest.mark.parametrize(("design", "channels", "features"), CASES, ids=lambda x: str(x))
def test_the_field_is_the_gradients(
    design: Design, channels: int, features: int, dependency: Any
) -> None:
    steps = design.places(channels, features, *SIZE)
    pattern = pattern_of(Part("design", steps), dependency)
    assert np.array_equal(reads_of(Part("design", steps)), pattern)
    centre = pattern[:, SIZE[0] // 2, SIZE[1] // 2]
    for output in range(features):
        seen = support(design, channels, features, output=output, size=SIZE)
        assert np.array_equal(seen.inputs, centre[output])
    found = field(design, channels, features, size=SIZE)
    volumes = centre.sum(axis=(1, 2, 3))
    assert found.volume == volumes.min()
    assert found.complete == bool(centre[:, :, 2:5, 1:4].all())
    sizes = [(s.any((0, 1)).sum(), s.any((0, 2)).sum(), s.any((1, 2)).sum()) for s in centre]
    assert found.size in sizes
    assert not found.uniform or len(set(sizes)) == len(set(volumes)) == 1


@pytest.mark.parametrize(("design", "channels", "features"), CASES, ids=lambda x: str(x))
def test_without_a_size_nothing_is_clipped(design: Design, channels: int, features: int) -> None:
    """The same figures on a map that is larger still, or "all" where a plane is read."""
    found = field(design, channels, features)
    if all(operator.window is not None for operator in design.operators):
        reach = 3 + sum(2 * (max(op.window or (1, 1)) // 2) for op in design.operators)
        wide = field(design, channels, features, size=(reach + 4, reach + 3))
        assert found == wide
    else:
        assert found.size[:2] == found.extent == ("all", "all")
        assert found.volume == found.steps[-1].volume == "all"
        assert field(design, channels, features, size=SIZE).size[2] == found.size[2]


BLOCKS = [
    (text, channels, features, stride)
    for text in (
        "RD", "IRD", "CRD", "CIRC", "LINEARMIX", "SIC", "SIC(s=2)", "TPS(2)", "TPS(2,k=1)",
        "UNR(b=2)", "SIC+SIC@1/2", "RD+PW", "DW+SIC", "IRD+SIC", "PWG(2)+RD", "TPS(3)+CRD",
    )
    for channels, features, stride in ((8, 8, 1), (8, 8, 2), (8, 16, 2))
    if parse(text).why_invalid(channels, features, stride) is None
]  # fmt: skip


@pytest.mark.parametrize(("text", "channels", "features", "stride"), BLOCKS)
def test_the_field_of_a_block_is_its_bodys_and_its_shortcuts(
    text: str, channels: int, features: int, stride: int, dependency: Any
) -> None:
    part = block("b", parse(text), channels, features, *SIZE, stride)
    assert np.array_equal(reads_of(part), pattern_of(part, dependency))


# ---- the whole plane -----------------------------------------------------------------------------


def test_a_whole_plane_is_all_of_an_unbounded_map() -> None:
    found = field(parse("DW+IRD"), 8)
    assert json.loads(json.dumps(found.to_dict())) == {
        "size": ["all", "all", 8],
        "extent": ["all", "all"],
        "volume": "all",
        "complete": True,
        "equals_standard": False,
        "uniform": True,
        "missing_channels": [],
        "missing_taps": 0,
        "steps": [
            {"operator": "DW", "size": [3, 3, 1], "volume": 9},
            {"operator": "IRD", "size": ["all", "all", 8], "volume": "all"},
        ],
    }
    clipped = field(parse("DW+IRD"), 8, size=(6, 4))
    assert (clipped.size, clipped.volume) == ((4, 6, 8), 8 * 24)
    assert (clipped.steps[-1].size, clipped.steps[-1].volume) == ((4, 6, 8), 8 * 24)


def test_a_step_of_a_single_pixel_reads_no_plane() -> None:
    assert field(parse("IRD(k=1)"), 8).size == (1, 1, 8)


@pytest.mark.parametrize(
    ("text", "size", "volume"),
    [
        ("RD", (5, 5, 8), 25 + 7),
        ("RD(k=5)", (9, 9, 8), 81 + 7),
        ("CRD", (5, 5, 8), 200),
        ("CIRC", (3, 3, 8), 72),
        ("LINEARMIX", (3, 3, 8), 9 + 7),
        ("SIC", (3, 3, 8), 72),
        ("UNR(k=5)", (5, 5, 8), 200),
        ("TPS(2)", (3, 3, 2), 18),
        ("TPS(3,k=1)", (1, 1, 1), 1),
    ],
)
def test_known_fields(text: str, size: tuple[int, int, int], volume: int) -> None:
    found = field(parse(text), 8)
    assert (found.size, found.volume, found.uniform) == (size, volume, True)


def test_a_periodic_map_is_read_round_its_border() -> None:
    """At the centre of a row of 4 the window of 5 comes back to where it began."""
    found = field(parse("CRD"), 4, size=(4, 9))
    assert (found.size, found.volume) == ((5, 4, 4), 4 * 20)


def test_the_graph_of_a_whole_plane(dependency: Any) -> None:
    graph = dependency_graph(parse("DW+IRD"), 2, size=(2, 3))
    assert len(reachable(graph, (0, 0, 0))) == 2 * 6
    counted = nx_taps(channel_graph(parse("DW+IRD"), 2))
    assert counted == {(1, 0): 9, (1, 1): 9, (2, 0): None, (2, 1): None}


def nx_taps(graph: Any) -> dict[tuple[int, int], int | None]:
    """The taps of one edge into each node."""
    return {target: data.get("taps") for _, target, data in graph.edges(data=True)}


def test_wide_whole_plane_designs_are_quick() -> None:
    assert field(parse("PWG(32)+IRD"), 2048).size == ("all", "all", 2048)
    assert field(parse("TPS(2)+RD"), 2048).size == (7, 7, 2048)


def test_a_design_that_cannot_stand_is_refused_as_ever() -> None:
    with pytest.raises(DesignError, match="no product of 2 factors"):
        field(parse("TPS(2)"), 13)
