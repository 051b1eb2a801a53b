"""The tables of LeanConvNets and Low-cost parameterizations, three times: the analytic model, the
built network on torch's meta device, and closed formulas written out here."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from analysis.conventions import CONVENTIONS, TORCH, convention
from analysis.cost import network_cost
from analysis.published.recompute import built, recompute
from analysis.published.rows import FIGURES, Row, papers, rows

LEAN = rows("LeanConvNets")
LOW_COST = rows("Low-cost parameterizations")
OURS = LEAN + LOW_COST
FOURIER = ("IRD", "CRD")


def identity(row: Row) -> str:
    return f"{row.table}-{row.row}-{row.dataset}"


REPRODUCED = [row for row in OURS if row.status == "reproduced"]
BUILT = {(row.network, row.input, row.classes, row.convention): row for row in OURS if row.network}
QUICK = [row for row in BUILT.values() if row.network in {
    "LeanResNet(Res24, STD, connect*=PW)",
    "LeanResNet(Res24, LEAN(g=16,s=5))",
    "LeanResNet(Res18, LEAN(q=8,s=3))",
    "LowCost(A, RD)",
    "LowCostPlain(A, DW+PW)",
}]  # fmt: skip
SLOW = [row for row in BUILT.values() if row not in QUICK]


# ---- the analytic model --------------------------------------------------------------------------


def test_the_tables_are_all_there() -> None:
    assert (len(LEAN), len(LOW_COST)) == (102, 36)
    assert len(REPRODUCED) == 96
    by_table = {
        table: sum(row.table == table for row in REPRODUCED) for table in ("II", "III", "IV", "2")
    }
    assert by_table == {"II": 12, "III": 3, "IV": 46, "2": 35}


@pytest.mark.parametrize("row", REPRODUCED, ids=identity)
def test_a_reproduced_row_is_within_a_unit_of_its_last_digit(row: Row) -> None:
    computed = recompute(row)
    assert set(row.unit) == set(row.published)
    assert row.holds(computed)
    for figure, residual in row.residuals(computed).items():
        assert -row.unit[figure] / 2 <= residual < row.unit[figure]


def test_every_other_row_says_why() -> None:
    for row in OURS:
        if row.status != "reproduced":
            assert len(row.note) > 20, identity(row)
            assert row.network is None or not row.holds(recompute(row)), identity(row)


def test_removing_the_published_figures_changes_no_computed_one() -> None:
    for row in rows():
        bare = replace(row, published={}, unit={}, tolerance=None, status="not reproduced", note="")
        assert recompute(bare) == recompute(row)


def test_a_row_without_a_network_is_not_computed() -> None:
    row = next(row for row in LEAN if row.row == "U-net ResNet34")
    assert recompute(row) == dict.fromkeys(FIGURES)
    assert not row.holds(recompute(row))
    with pytest.raises(ValueError, match="Table VI, U-net ResNet34: the paper names no network"):
        built(row)


def test_units_decide_and_the_tolerance_where_there_is_none() -> None:
    row = replace(LEAN[0], published={"params": 4.7e6, "flops": 212e6})
    assert row.holds({"params": 4_799_999, "flops": 211.5e6})
    assert not row.holds({"params": 4_649_999, "flops": 212e6})
    row = replace(row, unit={"params": 1e5})
    figures = {"params": 4_799_999, "flops": 213e6}
    assert not row.holds(figures)
    assert replace(row, tolerance=0.01).holds(figures)
    assert not replace(row, tolerance=0.01).holds(figures | {"params": 4_800_000})
    assert not replace(row, tolerance=0.01).holds({"params": 4_700_000})


# ---- closed formulas -----------------------------------------------------------------------------

WIDTHS = {
    "Res18": ([32, 64, 128, 256], [2, 2, 2, 2]),
    "Res24": ([32, 64, 128, 256], [2, 3, 3, 3]),
    "Res34": ([64, 128, 256, 512], [3, 4, 6, 3]),
    "Res38": ([64, 128, 256, 512, 1024], [4, 5, 5, 3, 1]),
    "Res40": ([64, 128, 256, 512], [3, 5, 7, 4]),
}


def operator_weights(row: Row, c: int, f: int) -> int:
    """c f + (r - 1) c f / g, read from the row's own name; depthwise (r - 1) f."""
    words = str(row.row).replace("-pt", "").split()
    points = int(words[1]) if words[1] in {"9", "5", "3"} else 9
    if words[0] == "ResNet":
        return points * c * f
    groups = words[2]
    if groups == "DW":
        return c * f + (points - 1) * f
    if groups.startswith("c/"):
        return c * f + (points - 1) * int(groups[2:]) * f
    return c * f + (points - 1) * c * f // int(groups)


def between(row: Row) -> tuple[int, int]:
    """Table II: params without normalisation, flops with one per normalised element."""
    widths, steps = WIDTHS[str(row.row).split()[-1]]
    assert row.input is not None and row.classes is not None
    side = row.input[1]
    dense = str(row.row) in {"ResNet Res24", "ResNet Res40"}
    params = 27 * widths[0] + widths[-1] * row.classes + row.classes
    flops = (27 + 1) * widths[0] * side**2 + widths[-1] * row.classes
    for stage, (w, n) in enumerate(zip(widths, steps, strict=True)):
        pixels, halved = (side // 2**stage) ** 2, (side // 2 ** (stage + 1)) ** 2
        own = operator_weights(row, w, w)
        params += 2 * n * own
        flops += 2 * n * (own + w) * pixels
        if stage < len(widths) - 1:
            connector = w * w if dense else 9 * w
            params += connector
            flops += connector * pixels + 2 * w * halved
    return params, flops


def within(row: Row) -> tuple[int, int]:
    """Table IV: params with normalisation, flops with two per normalised element."""
    widths, steps = WIDTHS[str(row.row).split()[-1]]
    assert row.input is not None and row.classes is not None
    side = row.input[1]
    params = 27 * widths[0] + widths[-1] * row.classes + row.classes + 2 * widths[0]
    flops = (27 + 2) * widths[0] * side**2 + widths[-1] * row.classes
    before = widths[0]
    for stage, (w, n) in enumerate(zip(widths, steps, strict=True)):
        pixels = (side // 2**stage) ** 2
        for step in range(n):
            source, large = (before, 4 * pixels) if stage and not step else (w, pixels)
            first, second = operator_weights(row, source, w), operator_weights(row, w, w)
            params += first + second + 2 * (source + w)
            flops += (first + 2 * source) * large + (second + 2 * w) * pixels
            if source < w:
                params += 9 * source + 2 * w
                flops += 9 * source * large + 2 * w * pixels
        before = w
    return params, flops


def low_cost(row: Row) -> int:
    """Table 2: params without normalisation."""
    kind, name = str(row.row).split()
    widths = {"A": [32, 64, 128], "B": [48, 96, 192], "C": [32, 64, 128, 256]}[name]
    assert row.classes is not None
    step = {"ResNet": lambda c: 18 * c * c, "LinearMix": lambda c: 2 * (9 * c + c * c)}
    weights = step.get(kind, lambda c: 9 * c + c * c)
    head = 2 * widths[-1] * row.classes + row.classes
    return 75 * widths[0] + 4 * sum(map(weights, widths)) + 9 * sum(widths) + head


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in LEAN
        if str(row.network).startswith("LeanResNet(") and "narrow" not in str(row.row)
    ],
    ids=identity,
)
def test_lean_networks_by_formula(row: Row) -> None:
    computed = recompute(row)
    formula = between(row) if row.table == "II" else within(row)
    assert (computed["params"], computed["flops"]) == formula


@pytest.mark.parametrize("row", LOW_COST, ids=identity)
def test_low_cost_networks_by_formula(row: Row) -> None:
    assert recompute(row)["params"] == low_cost(row)


# ---- the built network ---------------------------------------------------------------------------


def built_counts(row: Row) -> dict[str, int]:
    """What the modules hold and torch's flop counter sees; normalised elements by hooks."""
    found = {"params": 0, "norm_params": 0, "elements": 0}
    with torch.device("meta"):
        module = built(row).module().eval()

    def normalised(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        found["elements"] += output.numel()

    for layer in module.modules():
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        found["params"] += own
        if isinstance(layer, nn.BatchNorm2d):
            found["norm_params"] += own
            layer.register_forward_hook(normalised)
    assert row.input is not None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = module(torch.empty(1, *row.input, device="meta"))
    found["mults"] = counter.get_total_flops() // 2
    assert out.shape[:2] == (1, row.classes)
    return found


def agrees(row: Row) -> None:
    found, computed = built_counts(row), recompute(row)
    counted = {
        "torch": (0, 0),
        "weights": (1, 0),
        "weights+norm": (1, 1),
        "torch+norm": (0, 1),
        "torch+2norm": (0, 2),
    }
    left_out, elements = counted[row.convention]
    assert computed["params"] == found["params"] - left_out * found["norm_params"]
    if not any(symbol in str(row.network) for symbol in FOURIER):
        assert computed["mults"] == found["mults"]
        assert computed["flops"] == found["mults"] + elements * found["elements"]


@pytest.mark.parametrize("row", QUICK, ids=identity)
def test_the_built_network_agrees_to_the_unit(row: Row) -> None:
    agrees(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", SLOW, ids=identity)
def test_every_built_network_agrees_to_the_unit(row: Row) -> None:
    agrees(row)


def test_network_cost_gives_the_same_figures_as_the_table() -> None:
    for row in QUICK:
        total = network_cost(built(row), convention=convention(row.convention))
        found = {figure: getattr(total, figure) for figure in FIGURES}
        assert found == recompute(row)
        assert total.convention == row.convention


# ---- reading the tables --------------------------------------------------------------------------


def test_a_paper_is_found_by_a_part_of_its_name() -> None:
    assert rows("leanconv") == rows("LEANCONVNETS") == LEAN
    assert rows("low-cost") == LOW_COST
    assert len(rows()) == sum(len(rows(paper)) for paper in papers())


@pytest.mark.parametrize("name", ["unknown", "", "n"])
def test_an_unknown_or_ambiguous_paper_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"the papers are .*LeanConvNets"):
        rows(name)


def test_the_files_hold_nothing_but_rows() -> None:
    for file in files("analysis.published").iterdir():
        if file.name.endswith(".json"):
            data = json.loads(file.read_text(encoding="utf-8"))
            assert set(data) == {"paper", "source", "rows"}
            for row in data["rows"]:
                assert set(row["published"]) <= set(FIGURES)
                assert row["status"] in {"reproduced", "fit", "not reproduced"}
                assert row.get("convention", "torch") in CONVENTIONS


def test_an_unknown_convention_or_quantity_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"unknown convention 'torhc'; did you mean torch\?"):
        convention("torhc")
    with pytest.raises(ValueError, match="unknown quantity 'size'; known are counts"):
        recompute(replace(LEAN[0], quantity="size"))


def test_conventions_are_named_after_themselves_and_say_what_they_count() -> None:
    assert CONVENTIONS["torch"] is TORCH
    for name, entry in CONVENTIONS.items():
        assert entry.name == name
        assert len(entry.statement) > 20
