"""What LEAN declares beyond the contract: its formulas, its turns, its identities."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from analysis.field import field, support
from spaces.design import parse
from spaces.operator import Box, DesignError
from spaces.operators.lean import Lean
from spaces.place import Place


def only(text: str, channels: int, features: int | None = None) -> tuple[Lean, Place]:
    (step,) = parse(text).places(channels, features, 6, 5)
    assert isinstance(step.item, Lean)
    return step.item, step.place


@pytest.mark.parametrize(
    ("text", "channels", "features", "params"),
    [
        ("LEAN(g=16)", 64, 64, 64 * 64 + 8 * 64 * 64 // 16),
        ("LEAN(g=16,s=5)", 64, 128, 64 * 128 + 4 * 64 * 128 // 16),
        ("LEAN(q=16,s=5)", 64, 128, 64 * 128 + 4 * 16 * 128),
        ("LEAN(g=8,s=1x3)", 64, 64, 64 * 64 + 2 * 64 * 64 // 8),
        ("LEAN(g=1,s=5)", 16, 24, 5 * 16 * 24),
        ("LEAN(g=1,s=3x1)", 16, 24, 3 * 16 * 24),
        ("LEAN(q=1,s=5)", 64, 64, 64 * 64 + 4 * 64),
        ("LEAN(q=1,s=5)", 64, 128, 64 * 128 + 4 * 128),
        ("LEAN(q=1,s=5)", 128, 64, 64 * 128 + 4 * 128),
        ("LEAN(q=1,s=5)", 48, 64, 48 * 64 + 4 * 64),
        ("LEAN(q=1,s=5)", 64, 48, 48 * 64 + 4 * 64),
    ],
)  # fmt: skip
def test_the_centre_tap_is_counted_once(
    text: str, channels: int, features: int, params: int
) -> None:
    operator, place = only(text, channels, features)
    assert operator.params(place) == params
    assert operator.mults(place) == params * 30
    assert operator.adds(place) == (params - features) * 30
    assert sum(p.numel() for p in operator.module(place).parameters()) == params


@pytest.mark.parametrize(("text", "printed"), [
    ("LEAN(16,s=5)", "LEAN(g=16,s=5)"),
    ("lean( g=16 , s=5 )", "LEAN(g=16,s=5)"),
    ("LEAN(g=c/16,s=5)", "LEAN(q=16,s=5)"),
    ("LEAN(g=C,s=3)", "LEAN(q=1,s=3)"),
    ("LEAN(g=c_in/8)", "LEAN(q=8)"),
    ("LEAN(g=1)", "STD"),
    ("LEAN(g=1,d=2)", "STD(d=2)"),
    ("LEAN(g=1,s=9)+PW", "STD+PW"),
    ("LEAN", "LEAN"),
])  # fmt: skip
def test_spellings(text: str, printed: str) -> None:
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)


@pytest.mark.parametrize(("text", "at", "printed"), [
    ("LEAN(q=16,s=5)", (64, 64), "LEAN(g=4,s=5)"),
    ("LEAN(q=16)", (16, 32), "STD"),
    ("LEAN(q=1)", (16, 8), "LEAN(g=8)"),
    ("LEAN(q=1)", (8, 12), "LEAN(g=8)"),
    ("LEAN(q=4,s=3)+PW", (8, 8), "LEAN(g=2,s=3)+PW"),
])  # fmt: skip
def test_identities_at_a_width(text: str, at: tuple[int, int], printed: str) -> None:
    canonical = parse(text).canonical(*at)
    assert str(canonical) == printed
    assert canonical.canonical(*at) == canonical


def test_s3_turns_along_a_design_and_starts_again_in_the_next() -> None:
    design = parse("LEAN(g=4,s=3)+PW+LEAN(g=4,s=3)+LEAN(g=2,s=5)+LEAN(g=4,s=3)")
    turned = [str(step.item) for step in design.places(8)]
    assert turned == [
        "LEAN(g=4,s=1x3)", "PW", "LEAN(g=4,s=3x1)", "LEAN(g=2,s=5)", "LEAN(g=4,s=1x3)",
    ]  # fmt: skip
    assert str(design).count("s=3)") == 3
    single = parse("LEAN(g=4,s=3)")
    assert str(single.turned()) == "LEAN(g=4,s=1x3)"
    assert str(single.turned(1)) == "LEAN(g=4,s=3x1)"
    assert parse("PW+DW").turned() == parse("PW+DW")


def test_its_groups_need_no_shuffle() -> None:
    steps = parse("LEAN(g=4)+LEAN(g=4)~+GC(4)+PW").places(16)
    assert [str(step.item) for step in steps] == [
        "LEAN(g=4)",
        "LEAN(g=4)",
        "GC(4)",
        "SHUFFLE",
        "PW",
    ]


def test_its_field_is_the_stencil_on_its_group_and_a_pixel_of_the_rest() -> None:
    seen = support(parse("LEAN(g=2,s=5)"), 4, output=3).inputs
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    point = np.zeros((3, 3), bool)
    point[1, 1] = True
    assert np.array_equal(seen, np.stack([point, point, cross, cross]))
    operator, place = only("LEAN(g=2,s=5)", 4)
    assert operator.reach(place) == (Box(3, 3, 2), Box(1, 1, 2))


def test_two_may_complete_the_field_that_one_does_not() -> None:
    assert not field(parse("LEAN(g=4)"), 16).complete
    assert field(parse("LEAN(g=4)+LEAN(g=4)"), 16).complete
    assert field(parse("LEAN(g=4,s=3)+LEAN(g=4,s=3)"), 16).complete is False
    separable = field(parse("LEAN(g=1,s=3)+LEAN(g=1,s=3)"), 16)
    assert separable.complete
    assert separable.equals_standard


def test_a_five_point_lean_is_no_convolution_with_zeros() -> None:
    operator, place = only("LEAN(g=4,s=5)", 8)
    shapes = {name: tuple(w.shape) for name, w in operator.module(place).named_parameters()}
    assert shapes == {"centre": (8, 8), "outer": (4, 8, 2)}
    assert not [m for m in operator.module(place).modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(("text", "reason"), [
    ("LEAN(g=4,s=7)", "stencil s=7; valid are 9, 5, 3, 1x3, 3x1"),
    ("LEAN(g=4,q=2)", "contradict"),
    ("LEAN(g=0)", "g=0 is below 1"),
    ("LEAN(g=4,d=0)", "dilation 0"),
    ("LEAN(g=*)", "not a whole number"),
])  # fmt: skip
def test_misuse_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DesignError, match=r"LEAN") as refusal:
        parse(text)
    assert reason in str(refusal.value)


def test_places_where_it_cannot_stand() -> None:
    assert "valid group numbers are 1, 2, 4" in str(parse("LEAN(g=3)").why_invalid(8, 12))
    assert "valid sizes are 1, 2, 3, 6" in str(parse("LEAN(q=4)").why_invalid(6))
    assert "no group number" in str(parse("LEAN").why_invalid(8))
    assert parse("LEAN(q=1)").why_invalid(6, 35) is None
