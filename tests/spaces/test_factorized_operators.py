"""UNR, SIC and TPS against the tables of Factorized Convolutional Neural Networks."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from analysis.field import field
from analysis.symmetry import representatives
from spaces.design import parse
from spaces.fixed import BatchNorm, ReLU
from spaces.network import block
from spaces.operator import DesignError, Operator
from spaces.place import Place
from spaces.subdivided import squarest

MAPS = ((128, 36), (256, 18), (512, 6))
"""Channels and side of the stages 2 to 4, Table 1."""


def one(text: str) -> Operator:
    (operator,) = parse(text).operators
    return operator


def stages(*texts: str) -> int:
    """Mults of these designs on the maps of the stages, once each."""
    if len(texts) == 1:
        texts = texts * 3
    return sum(
        step.item.mults(step.place)
        for text, (c, side) in zip(texts, MAPS, strict=True)
        for step in parse(text).places(c, c, side, side)
    )


# ---- cost ----------------------------------------------------------------------------------------

FIXED = 158_706_688
"""Mults of models A to M outside the substituted layers."""


@pytest.mark.parametrize(
    ("model", "layers", "texts", "millions"),
    [
        ("A", 2, ["STD"], 1092.988),
        ("B", 2, ["UNR"], 593.186),
        ("C", 2, ["SIC"], 267.326),
        ("D", 4, ["SIC"], 375.946),
        ("E", 6, ["SIC"], 484.566),
        ("F", 4, ["SIC(k=5)"], 393.051),
        ("G", 4, ["TPS(d=8x16,t=4x8)", "TPS(d=16x16,t=8x8)", "TPS(d=16x32,t=8x16)"], 625.847),
        ("G, squarest grids", 4, ["TPS(2)"], 625.847),
        (
            "H",
            4,
            ["TPS(d=4x8x4,t=2x5x3)", "TPS(d=8x8x4,t=4x5x3)", "TPS(d=8x8x8,t=4x5x6)"],
            596.651,
        ),
        ("I", 4, ["GC(4)"], 625.847),
        ("J", 8, ["SIC(s=2)"], 281.759),
        ("L", 4, ["SIC+SIC@1/2"], 380.757),
        ("M", 6, ["SIC+SIC@1/2"], 491.782),
    ],
)
def test_mults_of_the_models(model: str, layers: int, texts: list[str], millions: float) -> None:
    assert round((FIXED + layers * stages(*texts)) / 1e6, 3) == millions


@pytest.mark.parametrize("channels", [128, 256, 512])
def test_a_bottleneck_pair_costs_about_one_layer(channels: int) -> None:
    steps = parse("SIC+SIC@1/2").places(channels)
    assert sum(s.item.params(s.place) for s in steps) == channels**2 + 27 * channels // 2


@pytest.mark.parametrize("b", [1, 2, 4, 9])
def test_unraveled_costs_b_times_filter_and_projection(b: int) -> None:
    place = Place(128, 128, 36, 36)
    assert one(f"UNR(b={b})").mults(place) == b * (9 * 128 + 128**2) * 36**2


def test_only_connected_weights_exist() -> None:
    place = Place(128, 128, 4, 4)
    for text, weights in (
        ("TPS(d=8x16,t=4x8)", 128 * 32 * 9),
        ("TPS(d=8x16,t=4x8,k=1)", 128 * 32),
        ("SIC(d=8x16,t=4x8)", 128 * 9 + 128 * 32),
    ):
        assert one(text).params(place) == weights
        assert sum(p.numel() for p in one(text).module(place).parameters()) == weights


# ---- the channels on a grid ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "channels", "prints"),
    [
        ("TPS(2)", 128, "TPS(d=8x16,t=4x8)"),
        ("TPS(2)", 256, "TPS(d=16x16,t=8x8)"),
        ("TPS(2)", 512, "TPS(d=16x32,t=8x16)"),
        ("TPS(3)", 128, "TPS(d=4x4x8,t=2x2x4)"),
        ("TPS(2)", 15, "TPS(d=3x5,t=2x3)"),
        ("TPS(1,k=1)", 6, "TPS(d=6,t=3,k=1)"),
        ("TPS(d=3x4)", 12, "TPS(d=3x4,t=2x2)"),
        ("TPS(d=4x8,t=4x8,k=1)", 32, "PW"),
        ("TPS(d=4x8,t=4x8)", 32, "STD"),
        ("TPS(d=4x8,t=4x8,k=5)", 32, "STD(k=5)"),
        ("TPS(2)", 4, "DW"),
        ("SIC(s=2)", 128, "SIC(d=8x16,t=4x8)"),
        ("SIC(d=4x8,t=4x8)", 32, "SIC"),
    ],
)
def test_identities_at_a_width(text: str, channels: int, prints: str) -> None:
    assert str(parse(text).canonical(channels)) == prints


def test_the_squarest_grid_is_the_one_found_by_trying_all() -> None:
    for number, axes in product(range(1, 130), (1, 2, 3)):
        every = [
            grid
            for grid in product(range(2, number + 1), repeat=axes - 1)
            if number % prod(grid) == 0 and number // prod(grid) > 1
        ]
        full = [tuple(sorted((*grid, number // prod(grid)))) for grid in every]
        expected = min(full, key=lambda grid: grid[::-1], default=None)
        assert squarest(number, axes) == expected


@pytest.mark.parametrize("text", ["TPS(d=8x16,t=4x8,k=1)", "TPS(d=8x16,t=4x8)"])
def test_two_layers_see_2t_minus_1_along_each_axis(text: str) -> None:
    """7 x 15 = 105 of 128: two layers of the paper's stage 2 do not reach every channel."""
    side = 5 if "k=1" not in text else 1
    found = field(parse(f"{text}+{text}"), 128)
    assert found.size == (side, side, 105)
    assert found.uniform and not found.complete
    assert field(parse(f"{text}+{text}+{text}"), 128).size[2] == 128


@pytest.mark.parametrize("text", ["TPS(d=8x16,t=4x8)", "TPS(3)", "SIC(s=2)", "SIC(d=4x32,t=1x7)"])
def test_one_output_speaks_for_all(text: str) -> None:
    assert representatives(parse(text).places(128)) == [0]


def test_reads_at_the_border_of_the_grid_go_round() -> None:
    place = Place(12, 12, 1, 1)
    last = np.zeros((12, 1, 1), bool)
    last[11] = True
    read = one("TPS(d=3x4,t=2x3,k=1)").reads(last, place)
    assert np.flatnonzero(read).tolist() == [0, 1, 3, 8, 9, 11]


# ---- the identity of SIC -------------------------------------------------------------------------


def kinds(text: str, channels: int, features: int, stride: int = 1) -> list[str]:
    part = block("b", parse(text), channels, features, 6, 6, stride)
    module = part.module()
    assert module(torch.randn(2, channels, 6, 6)).shape[1] == features
    return [type(step.item).__name__ for step in part.steps()]


def test_a_block_of_sic_has_one_identity() -> None:
    assert kinds("SIC", 8, 8) == ["SingleIntraChannel", "BatchNorm", "ReLU"]
    assert kinds("SIC+SIC", 8, 8) == 2 * ["SingleIntraChannel", "BatchNorm"] + ["ReLU"]
    assert kinds("SIC", 8, 8, 2) == ["AveragePool", "SingleIntraChannel", "BatchNorm", "ReLU"]


def test_the_bottleneck_pair_has_one_residual_around_both() -> None:
    assert kinds("SIC+SIC@1/2", 8, 8) == [
        *2 * ["SingleIntraChannel", "BatchNorm"], "Shortcut", "ReLU"
    ]  # fmt: skip
    for place in (Place(8, 4, 3, 3), Place(4, 8, 3, 3)):
        (conv, shortcut) = one("SIC").lines(place, 4)
        assert (conv.kind, shortcut.adds) == ("conv", 0)


def test_where_an_operator_breaks_the_identity_the_block_adds_one() -> None:
    assert "Shortcut" in kinds("SIC+PW", 8, 8)
    assert "Shortcut" in kinds("SIC", 8, 16, 2)
    assert "Shortcut" not in kinds("SIC+RD", 8, 8)


def test_a_row_of_residuals_keeps_the_blocks_normalisation_and_relu() -> None:
    part = block("b", parse("SIC"), 8, 8, 6, 6)
    assert [type(step.item) for step in part.body[1:]] == [BatchNorm]
    assert [type(step.item) for step in part.after] == [ReLU]


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("UNR(b=0)", "0 bases; .* valid are 1 to 9"),
        ("UNR(b=10)", "10 bases; a 3 x 3 window has at most 9 independent ones"),
        ("UNR(k=2)", "kernel size 2 is not odd"),
        ("SIC(k=4)", "kernel size 4 is not odd"),
        ("TPS(0)", "0 axes; valid are 1, 2, 3"),
        ("TPS(2,d=2x4)", "give s=2 or a grid d="),
        ("TPS(t=2x4)", "t=2x4 needs a grid d="),
        ("TPS(d=2x4,t=2)", "d=2x4 and t=2 differ in their axes"),
        ("TPS(d=2x4,t=2x5)", "5 neighbours on an axis of 4; valid are 1 to 4"),
        ("TPS(d=2x0)", "'2x0' is no grid"),
        ("TPS(d=2x)", "'2x' is no grid"),
        ("SIC(d=a)", "'a' is no grid"),
        ("SIC(3)", "needs a key"),
    ],
)
def test_bad_hyper_parameters_are_refused(text: str, says: str) -> None:
    with pytest.raises(DesignError, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("text", "channels", "features", "says"),
    [
        ("TPS(2)", 7, 7, "7 channels are no product of 2 factors above 1"),
        ("TPS(3)", 10, 10, "10 channels are no product of 3 factors above 1"),
        ("TPS(d=8x16,t=4x8)", 64, 64, "the grid 8x16 holds 128 channels, not 64"),
        ("TPS", 8, 8, "TPS has no grid yet"),
        ("TPS(2)", 8, 16, "no operator that can map 8 to 16"),
        ("SIC(s=2)", 8, 16, "cannot map 8 to 16"),
        ("SIC(s=2)", 11, 11, "11 channels are no product of 2 factors"),
    ],
)
def test_widths_that_do_not_fit_are_refused(
    text: str, channels: int, features: int, says: str
) -> None:
    assert says in str(parse(text).why_invalid(channels, features))


def test_open_subdivisioning_is_a_family() -> None:
    assert parse("TPS").is_family and not parse("TPS(2)").is_family
    assert not parse("SIC").is_family
    with pytest.raises(DesignError, match="family"):
        field(parse("TPS"), 8)


def test_the_grid_survives_the_string_and_the_file_name() -> None:
    from spaces.design import from_slug

    for text in ("TPS(d=8x16,t=4x8)", "SIC(d=2x2x2,t=1x2x2,k=5)", "TPS(2,k=1)"):
        assert str(parse(text)) == text
        assert from_slug(parse(text).slug) == parse(text)
