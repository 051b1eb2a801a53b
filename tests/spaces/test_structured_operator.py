"""What STRUCT, COMPOSITE and SHIFT declare beyond the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.cost import cost
from spaces.bases import dependence, registered
from spaces.design import Step, from_json, from_slug, parse
from spaces.operator import DesignError
from spaces.place import Place
from spaces.summed import linear_adds


def step_of(text: str, channels: int, features: int, stride: int = 1) -> Step:
    """The last step: an operator that takes no stride has a pool before it."""
    return parse(text).places(channels, features, 5, 4, stride)[-1]


def sums_by_a_loop(step: Step, masks: list[np.ndarray], groups: int) -> int:
    """Additions of every mask at every place where the sum is taken, one by one."""
    rows, columns = step.place.height, step.place.width
    total = 0
    for _ in range(groups * rows * columns):
        for mask in masks:
            for i, _ in enumerate(np.argwhere(mask)):
                total += i > 0
    return total


# ---- STRUCT ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "STRUCT(c=1/2,n=2)", "STRUCT(c=1,n=2)", "STRUCT(c=9/16,n=3)", "STRUCT(c=1/2,n=1,k=1)",
    "STRUCT(c=1/2,n=2,g=2)", "STRUCT(c=1/4,n=3,k=5,d=2)", "STRUCT(c=1/2,n=2,q=1)",
])  # fmt: skip
@pytest.mark.parametrize("stride", [1, 2])
def test_adds_are_those_of_the_sums_and_of_the_small_convolution(text: str, stride: int) -> None:
    step = step_of(text, 8, 16, stride)
    (weight,) = step.item.module(step.place).parameters()
    features, c, n, _ = weight.shape
    options = step.item.module(step.place).options
    groups, kernel, dilation = options["groups"], options["kernel"], options["dilation"]
    depth, side = 8 // groups - c + 1, kernel - n + 1
    border = dilation * (kernel - 1)
    padded = (step.place.height + border, step.place.width + border)
    sums = 0
    for _ in range(groups * c):
        for _ in range(padded[0] - dilation * (side - 1)):
            for _ in range(padded[1] - dilation * (side - 1)):
                sums += depth * side * side - 1
    small = (c * n * n - 1) * features * step.place.out_pixels
    assert step.item.adds(step.place) == sums + small
    assert [(line.kind, line.adds) for line in step.item.lines(step.place, 4)] == [
        ("sum-pool", sums), ("conv", small),
    ]  # fmt: skip
    found = cost(parse(text), 8, 16, size=(5, 4), stride=stride)
    assert found.adds == sums + small
    assert found.params == c * n * n * features


def test_the_paper_s_counts_of_one_layer() -> None:
    """Section 4.2 at C = 64, F = 128, N = 3, {c, n} = {32, 2} on 14 x 14, p = 1."""
    found = cost(parse("STRUCT(c=1/2,n=2)"), 64, 128, size=(14, 14))
    assert found.params == 32 * 4 * 128
    assert found.mults == 32 * 4 * 128 * 14 * 14
    assert found.adds == (33 * 4 - 1) * 32 * 15 * 15 + (32 * 4 - 1) * 128 * 14 * 14
    dense = cost(parse("STD"), 64, 128, size=(14, 14))
    assert dense.params / found.params == 64 * 9 / (32 * 4)


def test_a_linear_layer_adds_r_times_q_minus_r_and_the_small_product() -> None:
    inputs, outputs, kept = 7, 5, 3
    sums = sum(inputs - kept + 1 - 1 for _ in range(kept))
    assert linear_adds(inputs, outputs, kept) == sums + outputs * (kept - 1)
    assert linear_adds(inputs, outputs, inputs) == outputs * (inputs - 1)


@pytest.mark.parametrize(("text", "printed"), [
    ("STRUCT", "STRUCT(c=1/2,n=2)"),
    ("STRUCT(n=2,c=0.5)", "STRUCT(c=1/2,n=2)"),
    ("STRUCT(k=5)", "STRUCT(k=5,c=1/2,n=3)"),
    ("STRUCT(k=1)", "STRUCT(k=1,c=1/2,n=1)"),
    ("STRUCT(c=1/2,n=2,g=1)", "STRUCT(c=1/2,n=2)"),
    ("STRUCT(c=1,n=3)", "STD"),
    ("STRUCT(c=1,n=5,k=5,d=2)", "STD(k=5,d=2)"),
    ("STRUCT(c=1,n=1,k=1)", "PW"),
    ("STRUCT(c=1,n=3,g=4)", "GC(4)"),
    ("STRUCT(c=1,n=1,k=1,g=4)", "PWG(4)"),
])  # fmt: skip
def test_spellings_and_identities(text: str, printed: str) -> None:
    assert str(parse(text)) == printed
    assert parse(printed) == parse(text)


@pytest.mark.parametrize(("text", "channels", "printed"), [
    ("STRUCT(c=1/2,n=2,q=1)", 8, "STRUCT(g=8,c=1,n=2)"),
    ("STRUCT(c=1/2,n=3,q=1)", 8, "DW"),
    ("STRUCT(c=1/2,n=2)", 5, "STRUCT(c=2/5,n=2)"),
    ("STRUCT(c=9/16,n=2)", 64, "STRUCT(c=9/16,n=2)"),
    ("STRUCT(c=1/2,n=2,q=4)", 8, "STRUCT(g=2,c=1/2,n=2)"),
])  # fmt: skip
def test_identities_at_a_width(text: str, channels: int, printed: str) -> None:
    assert str(parse(text).canonical(channels)) == printed


def test_c_keeps_at_least_one_channel() -> None:
    assert cost(parse("STRUCT(c=1/16,n=2)"), 8).params == 1 * 4 * 8


@pytest.mark.parametrize(("text", "reason"), [
    ("STRUCT(c=2,n=2)", "c=2 is no share"),
    ("STRUCT(c=0,n=2)", "c=0 is no share"),
    ("STRUCT(c=1/0,n=2)", "not a fraction"),
    ("STRUCT(c=1/2,n=4)", "n=4 is outside 1 to k=3"),
    ("STRUCT(c=1/2,n=0)", "n=0 is outside 1 to k=3"),
    ("STRUCT(k=4)", "kernel size 4 is not odd"),
])  # fmt: skip
def test_what_is_out_of_range_is_named(text: str, reason: str) -> None:
    with pytest.raises(DesignError) as refusal:
        parse(text)
    assert reason in str(refusal.value)


# ---- COMPOSITE ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "freedom", "additions"), [
    ("fig1a", 4, 15), ("fig1b", 4, 15), ("fig1c", 6, 11),
])  # fmt: skip
def test_the_registered_bases_count_as_equation_2(name: str, freedom: int, additions: int) -> None:
    step = step_of(f"COMPOSITE({name})", 1, 1)
    assert step.item.params(step.place) == freedom
    sums = sums_by_a_loop(step, list(registered(name).masks), 1)
    assert step.item.adds(step.place) == sums + (freedom - 1) * 20
    per_output = step.item.adds(step.place) // 20
    assert per_output == registered(name).ones - 1
    if name == "fig1b":
        assert per_output == additions


@pytest.mark.parametrize("stride", [1, 2])
def test_composite_adds_count_every_mask_once(stride: int) -> None:
    step = step_of("COMPOSITE(fig1c)", 6, 8, stride)
    sums = sums_by_a_loop(step, list(registered("fig1c").masks), 6)
    small = (6 * 6 - 1) * 8 * step.place.out_pixels
    assert step.item.adds(step.place) == sums + small
    assert cost(parse("COMPOSITE(fig1c)"), 6, 8, size=(5, 4), stride=stride).adds == sums + small


def write(path: Path, masks: object) -> str:
    np.savez(path, masks=np.array(masks))
    return str(path.with_suffix(""))


def test_a_basis_from_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((6, 2, 3, 3)) < 0.5).astype(int)
    name = write(tmp_path / "mine-of_1.5.npz", masks)
    design = parse(f"COMPOSITE({name}.npz)+PW")
    digest = design.operators[0].basis.digest
    assert str(design) == f"COMPOSITE({name},h={digest})+PW"
    assert parse(str(design)) == design
    assert from_slug(design.slug) == design
    assert not set("/()") & set(design.slug)
    assert from_json(design.to_json()) == design
    (step, _) = design.places(8, 8, 5, 4)
    assert step.item.params(step.place) == 4 * 6 * 8
    assert "multiples of 2" in str(design.why_invalid(7))
    with pytest.raises(DesignError, match="has changed"):
        parse(f"COMPOSITE({name},h={'0' * 12})")
    write(tmp_path / "mine-of_1.5.npz", masks[:3])
    assert parse(f"COMPOSITE({name})+PW") != design


def test_a_dependent_basis_is_rejected_with_the_reason(tmp_path: Path) -> None:
    rows = [[[1, 1, 1], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 1], [0, 0, 0]]]
    both = np.add(*rows).tolist()
    name = write(tmp_path / "dependent.npz", [*rows, [[0, 0, 0], [0, 0, 0], [0, 1, 0]], both])
    with pytest.raises(DesignError, match=r"element 4 depends on .* it is element 1 \+ element 2"):
        parse(f"COMPOSITE({name})")
    twice = write(tmp_path / "twice.npz", [rows[1], rows[0], rows[1]])
    with pytest.raises(DesignError, match=r"element 3 depends on others: it is element 1$"):
        parse(f"COMPOSITE({twice})")
    left = [[[0, 0, 0]] * 3]
    empty = write(tmp_path / "empty.npz", [rows[0], *left])
    with pytest.raises(DesignError, match="element 2 is empty"):
        parse(f"COMPOSITE({empty})")


@pytest.mark.parametrize(("masks", "reason"), [
    ([[[1, 0], [0, 1]]], "N odd"),
    ([1, 0], "masks of shape"),
    ([[[2.0]]], "binary"),
])  # fmt: skip
def test_what_is_no_basis(tmp_path: Path, masks: object, reason: str) -> None:
    with pytest.raises(DesignError, match=reason):
        parse(f"COMPOSITE({write(tmp_path / 'wrong.npz', masks)})")


def test_an_unknown_basis_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DesignError, match="registered are fig1a, fig1b, fig1c"):
        parse("COMPOSITE(fig2)")
    np.savez(tmp_path / "objects.npz", np.array([None]))
    with pytest.raises(DesignError, match="cannot be read"):
        parse(f"COMPOSITE({tmp_path / 'objects'})")


def test_dependence_is_exact() -> None:
    """Against the rank over the rationals of random binary matrices of low rank."""
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        count, length = rng.integers(1, 8), rng.integers(1, 8)
        rows = rng.random((count, length)) < 0.6
        verdict = dependence(rows)
        if verdict is None:
            assert np.linalg.matrix_rank(rows.astype(float)) == count
            continue
        found += 1
        element, terms = verdict
        total = sum((float(a) * rows[j] for j, a in terms.items()), np.zeros(length))
        assert np.allclose(total, rows[element])
        assert np.linalg.matrix_rank(rows[:element].astype(float)) == element
    assert found > 50


# ---- SHIFT -------------------------------------------------------------------------------------


def test_shift_is_free() -> None:
    found = cost(parse("SHIFT"), 18, size=(5, 4))
    assert (found.params, found.mults, found.adds) == (0, 0, 0)
    assert found.traffic_bytes == 2 * 18 * 20 * 4
    assert not list(
        step_of("SHIFT", 18, 18).item.module(step_of("SHIFT", 18, 18).place).parameters()
    )


def test_shift_needs_a_channel_for_each_tap() -> None:
    assert "valid are 9 and more" in str(parse("SHIFT").why_invalid(8))
    assert "keeps the width" in str(parse("SHIFT").operators[0].why_invalid(Place(18, 36, 5, 4)))


def test_shift_and_a_pointwise_convolution_see_everything() -> None:
    x = torch.zeros(1, 9, 5, 5)
    x[0, :, 2, 2] = 1
    moved = step_of("SHIFT", 9, 9).item.module(parse("SHIFT").places(9, 9, 5, 5)[0].place)(x)[0]
    assert [tuple(at[0].tolist()) for at in (m.nonzero() for m in moved)] == [
        (3, 3), (3, 2), (3, 1), (2, 3), (2, 2), (2, 1), (1, 3), (1, 2), (1, 1),
    ]  # fmt: skip
