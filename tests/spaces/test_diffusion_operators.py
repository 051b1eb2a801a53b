"""LINEARMIX, RD, IRD, CRD, CIRC: costs, blocks, initial values, refusals."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from analysis.cost import cost
from kernels.diffusion import fourier, reference
from kernels.diffusion.stability import bound, power
from spaces.design import Design, parse
from spaces.fixed import AveragePool, BatchNorm, ReLU, Shortcut
from spaces.modules import Weighted, initialise
from spaces.network import Part, block
from spaces.operator import DesignError, Line, Operator
from spaces.place import Place

STEPS = ("RD", "IRD", "CRD")


def one(text: str) -> Operator:
    (operator,) = parse(text).operators
    return operator


def lines(text: str, place: Place) -> dict[str, list[Line]]:
    """The ledger lines by kind."""
    found: dict[str, list[Line]] = {}
    for line in one(text).lines(place, 4):
        found.setdefault(line.kind, []).append(line)
    return found


# ---- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [32, 48, 64, 128, 192, 256])
def test_weights_are_those_that_the_published_counts_need(channels: int) -> None:
    """9 C + C^2 a step or operator, 9 C for the bare circulant; batch normalisation apart."""
    place = Place(channels, channels, 8, 8)
    each = 9 * channels + channels**2
    assert one("LINEARMIX").params(place) == each
    assert one("CIRC").params(place) == 9 * channels
    for text in STEPS:
        found = lines(text, place)
        (norm,) = found["norm"]
        assert (norm.params, norm.mults, norm.adds) == (2 * channels, 64 * channels, 64 * channels)
        assert one(text).params(place) - norm.params == each


def test_explicit_mults_evaluate_k_and_its_adjoint_directly() -> None:
    """18 C a pixel beside the reaction's C^2: network A of the published ExpRD rows."""
    total = 0
    for channels, side in ((32, 32), (64, 16), (128, 8)):
        conv = lines("RD", Place(channels, channels, side, side))["conv"]
        total += 4 * sum(line.mults for line in conv)
    stem, connectors, classifier = (
        75 * 32 * 32**2,
        9 * (32 * 32**2 + 64 * 16**2 + 128 * 8**2),
        256 * 10,
    )
    assert round((total + stem + connectors + classifier) / 1e6, 3) == 19.688


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 4), (6, 5), (1, 1)])
def test_transforms_are_counted_by_formula(height: int, width: int) -> None:
    c, n = 6, height * width
    place = Place(c, c, height, width)
    kept = c * height * (width // 2 + 1)
    own, across = 2 * c * n * log2(n), 2 * c * n * log2(c * n)
    (found,) = lines("IRD", place)["fft"]
    assert (found.mults, found.adds) == (round(own) + 2 * kept, round(1.5 * own))
    (found,) = lines("CRD", place)["fft"]
    assert (found.mults, found.adds) == (round(across) + 2 * kept, round(1.5 * across))
    (found,) = lines("CIRC", place)["fft"]
    assert (found.mults, found.adds) == (
        round(across) + 4 * kept,
        round(1.5 * across) + 2 * kept,
    )


def test_the_sums_and_the_step_size_are_counted_with_the_residual() -> None:
    place = Place(8, 8, 4, 4)
    for text, sums in (("RD", 2), ("IRD", 1), ("CRD", 2)):
        (found,) = lines(text, place)["shortcut"]
        assert (found.params, found.mults, found.adds, found.bytes) == (0, 0, sums * 128, 0)
        (found,) = lines(f"{text}(h=1/2)", place)["shortcut"]
        assert (found.mults, found.adds) == (128, sums * 128)


@pytest.mark.parametrize("text", ["LINEARMIX", "CIRC", *STEPS])
def test_traffic_is_input_weights_and_output_once(text: str) -> None:
    place = Place(8, 8, 6, 4)
    weights = 72 if text == "CIRC" else 72 + 64
    assert one(text).traffic(place, 4) == 4 * (2 * 8 * 24 + weights)
    found = cost(parse(text), 8, size=(6, 4))
    assert found.traffic_bytes == found.traffic_bytes_fused == one(text).traffic(place, 4)
    assert found.peak_activation_bytes == 4 * 2 * 8 * 24
    assert found.params == one(text).params(place)


# ---- module --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["RD", "IRD", "CRD", "RD(h=1/2)", "IRD(h=2,k=5)", "CRD(k=1)"])
def test_the_module_is_the_formula(text: str) -> None:
    torch.manual_seed(0)
    operator, place = one(text), Place(6, 6, 5, 4)
    module = operator.module(place).double().train()
    y = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    reaction, kernel = module.reaction, module.advance.kernel
    direct = {
        "RD": reference.explicit,
        "IRD": reference.implicit,
        "CRD": reference.circulant_explicit,
    }
    expected = direct[operator.symbol](y, reaction(y), kernel, float(operator.step))  # type: ignore[attr-defined]
    assert (module(y) - expected).abs().max() < 1e-10
    assert [type(layer) for layer in reaction] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_the_bare_circulant_is_the_direct_one() -> None:
    module = one("CIRC(k=5)").module(Place(6, 6, 5, 4)).double()
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    assert (module(x) - reference.circulant(x, module.kernel)).abs().max() < 1e-10
    assert module.function.definition is fourier.circulant


@pytest.mark.parametrize("text", ["RD", "IRD", "CRD", "RD(k=5)", "CRD(k=7)"])
@pytest.mark.parametrize("channels", [4, 16, 64])
def test_the_diffusion_starts_with_a_transfer_function_of_at_most_one(
    text: str, channels: int
) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        module = nn.Sequential(one(text).module(Place(channels, channels, 8, 8)))
        initialise(module)
        kernel = module[0].advance.kernel.detach()
        for size in ((3, 3), (8, 8), (30, 17)):
            assert 0.05 < power(kernel, size).max() <= 1 + 1e-5


@pytest.mark.parametrize("text", ["RD", "CRD", "CRD(h=4)", "RD(k=5,h=1/2)"])
def test_an_explicit_module_stays_stable_when_training_takes_its_kernel_far(text: str) -> None:
    """At a rate that throws K out of its bound; then hundred steps of diffusion do not grow."""
    torch.manual_seed(0)
    module = one(text).module(Place(6, 6, 8, 8)).double()
    y = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    optimiser = torch.optim.SGD(module.parameters(), lr=30.0)
    for _ in range(3):
        optimiser.zero_grad()
        (module(y) + 3 * y).square().mean().backward()
        optimiser.step()
    assert bound(module.advance.kernel).max() > 2
    out, still = y, torch.zeros_like(y)
    with torch.no_grad():
        for _ in range(100):
            out = module.advance(out, still)
    assert out.norm() <= y.norm() * (1 + 1e-9)


@pytest.mark.parametrize("text", ["LINEARMIX", "CIRC", *STEPS])
def test_every_parameter_gets_a_gradient(text: str) -> None:
    torch.manual_seed(0)
    module = one(text).module(Place(8, 8, 6, 6))
    module(torch.randn(4, 8, 6, 6)).square().mean().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


# ---- the field by the direct reference -----------------------------------------------------------


class Direct(nn.Module):
    """A time step computed without transforms, its activation let through."""

    def __init__(self, function: Any, shape: tuple[int, ...], mixing: bool = True) -> None:
        super().__init__()
        self.function = function
        self.kernel = nn.Parameter(torch.empty(shape))
        self.mixing = nn.Conv2d(shape[0], shape[0], 1, bias=False) if mixing else None

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        if self.mixing is None:
            return self.function(y, self.kernel)
        return self.function(y, self.mixing(y), self.kernel)


@pytest.mark.parametrize("size", [(7, 6), (5, 5), (3, 2), (1, 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_reads_are_the_gradients_of_the_direct_computation(
    size: tuple[int, int], k: int, dependency: Any
) -> None:
    c = 3
    cases = {
        f"RD(k={k})": Direct(reference.explicit, (c, 1, k, k)),
        f"IRD(k={k})": Direct(reference.implicit, (c, 1, k, k)),
        f"CRD(k={k})": Direct(reference.circulant_explicit, (c, k, k)),
        f"CIRC(k={k})": Direct(reference.circulant, (c, k, k), mixing=False),
    }
    place = Place(c, c, *size)
    outputs = np.eye(place.out_elements, dtype=bool).reshape(-1, c, *size)
    for text, direct in cases.items():
        pattern = dependency(direct, (c, *size)).reshape(-1, c, *size)
        assert np.array_equal(one(text).reads(outputs, place), pattern), text


# ---- in a block ----------------------------------------------------------------------------------


def kinds(part: Part) -> list[str]:
    return [type(step.item).__name__ for step in part.steps()]


@pytest.mark.parametrize("text", STEPS)
def test_a_block_adds_nothing_to_a_step(text: str) -> None:
    name = type(one(text)).__name__
    assert kinds(block("b", parse(text), 8, 8, 6, 6)) == [name]
    assert kinds(block("b", parse(f"{text}+{text}(h=1/2)"), 8, 8, 6, 6)) == [name, name]
    assert kinds(block("b", parse(text), 8, 8, 6, 6, 2)) == ["AveragePool", name]


def test_a_step_among_others_keeps_its_own_normalisation_only() -> None:
    """The identity through the step ends at PW, so the block adds its own, and one ReLU."""
    part = block("b", parse("RD+PW"), 8, 16, 6, 6, 2)
    assert kinds(part) == [
        "AveragePool", "ReactionDiffusion", "Pointwise", "BatchNorm", "Shortcut", "ReLU"
    ]  # fmt: skip
    assert part.module()(torch.randn(2, 8, 6, 6)).shape == (2, 16, 3, 3)
    assert (part.whole.channels, part.whole.features, part.whole.stride) == (8, 16, 2)


@pytest.mark.parametrize("text", ["LINEARMIX", "CIRC"])
def test_linear_ones_stand_in_a_block_like_any_other(text: str) -> None:
    part = block("b", parse(text), 8, 8, 6, 6, 2)
    assert [type(step.item) for step in part.body] == [AveragePool, type(one(text)), BatchNorm]
    assert part.shortcut is not None and type(part.shortcut.item) is Shortcut
    assert [type(step.item) for step in part.after] == [ReLU]


# ---- notation and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prints"),
    [
        ("rd", "RD"),
        ("RD(h=1.0)", "RD"),
        ("RD(h=0.5)", "RD(h=1/2)"),
        ("IRD(h=2,k=5)", "IRD(k=5,h=2)"),
        ("Imp. RD", "IRD"),
        ("CircRD", "CRD"),
        ("LinearMix", "LINEARMIX"),
    ],
)
def test_spellings(text: str, prints: str) -> None:
    design = parse(text)
    assert str(design) == prints
    assert parse(prints) == design


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("RD(k=4)", "RD: kernel size 4 is not odd; valid are 1, 3, 5, 7"),
        ("CIRC(k=2)", "CIRC: kernel size 2 is not odd"),
        ("LINEARMIX(k=0)", "kernel size 0 is not odd"),
        ("RD(h=0)", "the step size h=0 must be positive"),
        ("IRD(h=-1/2)", "the step size h=-1/2 must be positive"),
        ("CRD(h=a)", "'a' is not a number; write e.g. 1/2"),
        ("RD(h=1/0)", "'1/0' is not a number"),
    ],
)
def test_bad_hyper_parameters_are_refused(text: str, says: str) -> None:
    with pytest.raises(DesignError, match=says):
        parse(text)


@pytest.mark.parametrize("text", ["LINEARMIX", "CIRC", *STEPS])
def test_they_keep_the_shape(text: str) -> None:
    assert "cannot map 8 to 16" in str(one(text).why_invalid(Place(8, 16, 4, 4)))
    assert "stride 2" in str(one(text).why_invalid(Place(8, 8, 4, 4, 2)))
    assert "no operator that can map 8 to 16" in str(parse(text).why_invalid(8, 16))
    first = parse(text).places(8, 8, 5, 4, 2)[0]
    assert isinstance(first.item, AveragePool) and first.place.out_height == 3


def test_an_earlier_pool_is_not_needed_where_another_operator_strides() -> None:
    design = Design((one("LINEARMIX"), one("DW")))
    assert [step.place.stride for step in design.places(8, 8, 4, 4, 2)] == [1, 2]


def test_weights_of_a_pure_function_are_what_an_export_finds() -> None:
    for text in ("LINEARMIX", "CIRC"):
        assert isinstance(one(text).module(Place(4, 4, 4, 4)), Weighted)
    assert isinstance(one("IRD").module(Place(4, 4, 4, 4)).advance, Weighted)
