"""Weight gradients of the lean kernels: resources, the emulator against float64, seeded mutants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.cuda_backward import backward
from kernels.lean.cuda_weights import prologue_gradients, weight_gradients
from kernels.lean.reference import lean
from kernels.lean.weights_plan import CROSS, NEIGHBOURS, SUM, Plan, plan_for, plans

NAME = "lean_weights"
ROW = ((0, -1), (0, 1))
COLUMN = ((1, 0), (-1, 0))
FAR = ((-2, 0), (0, 2), (2, 2))


@dataclass(frozen=True)
class Case:
    """One call. The map is wider and higher than three tiles of a block where `size` is default."""

    channels: int
    features: int
    groups: int
    taps: Sequence[tuple[int, int]] = NEIGHBOURS
    size: tuple[int, int, int] = (2, 19, 45)
    affine: bool = False
    relu: bool = False
    transposed: bool = False

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        chance = torch.Generator().manual_seed(self.channels * 7 + self.groups)
        count, height, width = self.size
        sides = (width, height) if self.transposed else (height, width)
        x = torch.randn(count, self.channels, height, width, generator=chance).to(dtype)
        dy = torch.randn(count, self.features, *sides, generator=chance).to(dtype)
        if not self.affine:
            return dy, x, None, None
        return dy, x, *torch.randn(2, self.channels, generator=chance)


def reference(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """In float64: dcentre, douter, dbias, dscale, dshift, with the weights of `weights`."""
    dy, x, scale, shift = (t if t is None else t.double() for t in case.tensors(dtype))
    assert dy is not None and x is not None
    centre, outer = (w.double().requires_grad_() for w in weights(case))
    bias = torch.zeros(case.features, dtype=torch.float64, requires_grad=True)
    if scale is None or shift is None:
        scale, shift = torch.ones(case.channels).double(), torch.zeros(case.channels).double()
    scale.requires_grad_(), shift.requires_grad_()
    u = x * scale[:, None, None] + shift[:, None, None]
    u = u.relu() if case.relu else u
    y = lean(u, centre, outer, case.taps, case.groups, transposed=case.transposed)
    return torch.autograd.grad(y + bias[:, None, None], (centre, outer, bias, scale, shift), dy)


def weights(case: Case) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(3)
    per_group = case.channels // case.groups
    centre = torch.randn(case.features, case.channels, generator=chance)
    return centre, torch.randn(len(case.taps), case.features, per_group, generator=chance)


def check(case: Case, precision: str, run: Run, device: str = "cpu") -> None:
    given = case.tensors(checks.DTYPES[precision])
    dy, x, scale, shift = (t if t is None else t.to(device) for t in given)
    assert dy is not None and x is not None
    prologue = {"scale": scale, "shift": shift, "relu": case.relu}
    found = weight_gradients(
        dy, x, case.taps, case.groups, **prologue, transposed=case.transposed,
        precision=precision, run=run,
    )  # fmt: skip
    for one, right in zip(found, reference(case, checks.DTYPES[precision]), strict=False):
        assert one.dtype == torch.float32 and one.shape == right.shape
        assert agrees(one, right, precision)


def agrees(found: Tensor, right: Tensor, precision: str) -> bool:
    """Exactly where the gradient is zero: a map of one pixel has no neighbours."""
    if not right.any():
        return not found.any()
    return checks.rms_error(found, right) <= checks.GRADIENT_GATE[precision]


def check_prologue(case: Case, precision: str, run: Run) -> None:
    dy, x, scale, shift = case.tensors(checks.DTYPES[precision])
    centre, outer = weights(case)
    found = prologue_gradients(
        dy,
        x,
        centre,
        outer,
        case.taps,
        case.groups,
        scale=scale,
        shift=shift,
        relu=case.relu,
        transposed=case.transposed,
        precision=precision,
        run=run,
    )
    for one, right in zip(found, reference(case, checks.DTYPES[precision])[3:], strict=True):
        assert checks.rms_error(one, right) <= checks.GRADIENT_GATE[precision]


def identifier(plan: Plan) -> str:
    return f"{plan.precision}-{plan.block}-{plan.stencil}-{('', 'depthwise', 'band')[plan.taps_by]}"


@pytest.mark.parametrize("plan", plans()[9::40], ids=identifier)
def test_instance_fits(plan: Plan) -> None:
    checks.within_resources(plan.kernel())


def test_sum_fits() -> None:
    checks.within_resources(SUM)


def told_apart(plan: Plan) -> bool:
    """TF32 is FP32 with a third of the products, FP16 is BF16 with other conversions: a few do."""
    return plan.precision in ("fp32", "bf16") or (plan.stencil == 9 and plan.block >= 64)


@pytest.mark.slow
@pytest.mark.parametrize("plan", list(filter(told_apart, plans())), ids=identifier)
def test_every_instance_fits(plan: Plan) -> None:
    checks.within_resources(plan.kernel())


QUICK = [
    (Case(16, 16, 16), "bf16"),
    (Case(40, 40, 40, CROSS, affine=True, relu=True), "fp32"),
    (Case(24, 24, 3), "tf32"),
]
WIDE = [
    Case(53, 53, 53, affine=True),
    Case(16, 16, 4, CROSS, transposed=True),
    Case(64, 64, 16, size=(2, 9, 33)),
    Case(136, 136, 136, ROW, (1, 5, 20), transposed=True),
    Case(72, 72, 9, CROSS, (1, 9, 20), relu=True),
    Case(24, 40, 8, ROW, affine=True, relu=True),
    Case(40, 20, 20, COLUMN, (3, 1, 1)),
    Case(9, 9, 9, FAR, (1, 11, 18)),
    Case(40, 40, 1, ROW, (2, 14, 14)),
]


@checks.emulated
@pytest.mark.parametrize(("case", "precision"), QUICK)
def test_emulated(case: Case, precision: str) -> None:
    for seed in (1, 2):
        check(case, precision, Emulator(seed))


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("precision", checks.PRECISIONS)
def test_emulated_shapes(precision: str) -> None:
    for seed, case in enumerate(WIDE):
        check(case, precision, Emulator(seed))


@checks.emulated
@pytest.mark.parametrize("affine", [True, False])
def test_prologue_gradients(affine: bool) -> None:
    check_prologue(
        Case(16, 16, 16, CROSS, (2, 9, 20), affine=affine, relu=affine), "fp32", Emulator()
    )


@checks.emulated
@pytest.mark.slow
def test_all_gradients_together() -> None:
    case = Case(16, 16, 16, CROSS, (1, 9, 20), affine=True, relu=True)
    dy, x, scale, shift = case.tensors(torch.float32)
    options = {"scale": scale, "shift": shift, "relu": True, "run": Emulator()}
    found = backward(dy, x, *weights(case), CROSS, 16, **options)
    dcentre, douter, *rest = reference(case, torch.float32)
    for one, right in zip(found[1:], (dcentre, douter, *rest), strict=True):
        assert one is not None and agrees(one, right, "fp32")
    assert found[0] is not None and found[0].shape == x.shape
    few = backward(dy, x, *weights(case), CROSS, 16, needs=(0, 0, 1, 0, 0, 0), **options)
    assert [one is not None for one in few] == [False, False, True, False, False, False]


def test_instances_are_listed() -> None:
    """What a call asks for is among the instances that the tests compile."""
    listed = set(plans())
    for precision in checks.PRECISIONS:
        for wide in (1, 16, 17, 53, 64, 65, 512):
            for taps in ((), ROW, CROSS, NEIGHBOURS, FAR):
                for groups in {1, wide, max(1, wide // 16)}:
                    groups = groups if wide % groups == 0 else 1
                    assert plan_for(wide, wide, taps, groups, precision) in listed


def test_depthwise_and_small_groups_take_one_pass() -> None:
    assert plan_for(64, 64, NEIGHBOURS, 64, "bf16").stencil == 9
    assert plan_for(64, 64, ROW, 4, "bf16").stencil == 5
    assert plan_for(64, 64, ROW, 2, "bf16").stencil == 1


def test_dy_and_x_that_do_not_belong_together() -> None:
    x = torch.zeros(1, 8, 5, 6)
    for dy in (torch.zeros(1, 8, 6, 5), torch.zeros(2, 8, 5, 6), x.bfloat16()):
        with pytest.raises(ValueError, match="valid"):
            weight_gradients(dy, x, ROW, 8)
    with pytest.raises(ValueError, match="float64"):
        weight_gradients(x.double(), x.double(), ROW, 8)


def test_empty_batch_launches_nothing() -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("launched")

    for groups in (8, 2, 1):
        x = torch.zeros(0, 8, 5, 5)
        found = weight_gradients(x, x, ROW, groups, precision="fp32", run=never)
        assert [tuple(one.shape) for one in found] == [(8, 8), (2, 8, 8 // groups), (8,)]
        assert not any(one.any() for one in found)


MUTANTS = {
    "missing wait": ("    copy_wait<1>();  // the copies of this tile\n", ""),
    "last stage not awaited": (
        "if (tile + stride < tiles) load(tile + stride, next);\n    copy_commit();",
        "if (tile + stride < tiles) { load(tile + stride, next); copy_commit(); }",
    ),
    "missing barrier after the wait": ("    __syncthreads();  // everyone's copies\n", ""),
    "missing barrier before a stage is reused": (
        "    __syncthreads();  // read by everyone",
        "    //",
    ),
    "missing barrier before slices are added": (
        "  __syncthreads();\n  for (int i = threadIdx.x; i < size",
        "  for (int i = threadIdx.x; i < size",
    ),
    "halo off by one": ("at.column - RING - job.column", "at.column - job.column"),
    "missing zero fill": (" && (unsigned)w < (unsigned)map.width && channel", " && channel"),
    "transposed taps": (
        "window[r + 1 - tap_row(t)][(c - 1 - tap_column(t)) % 3]",
        "window[r + 1 - tap_column(t)][(c - 1 - tap_row(t)) % 3]",
    ),
    "tiles skipped": ("tile += stride) {", "tile += stride + (tile == 0)) {"),
    "divergent barrier": (
        "    __syncthreads();  // everyone's copies",
        "    if (warp != 1) __syncthreads();",
    ),
    "prologue outside the map": ("if (corner.row + r >= map.height || ", "if ("),
}
HARMLESS = ("#pragma unroll UNROLL\n", "")
PROBED = Case(16, 16, 16, NEIGHBOURS, (2, 19, 70), affine=True, relu=True)


def probe(run: Run) -> None:
    """At least three tiles a block, and a map that ends inside a tile."""
    check(PROBED, "bf16", run)


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    assert checks.catches(probe, [MUTANTS[name]], only=NAME)


@checks.emulated
@pytest.mark.slow
def test_harmless_change_is_not_flagged() -> None:
    assert not checks.catches(probe, [HARMLESS], only=NAME)
    assert checks.passes(probe, Emulator())


@checks.emulated
@pytest.mark.slow
def test_mutants_of_the_band_are_caught() -> None:
    def check_band(run: Run) -> None:
        check(Case(24, 24, 3, NEIGHBOURS, (1, 19, 20)), "bf16", run)

    assert checks.passes(check_band, Emulator())
    swapped = (
        "(1 - tap_row(t)) * Y_PITCH + 1 - tap_column(t)",
        "(1 - tap_column(t)) * Y_PITCH + 1 - tap_row(t)",
    )
    misplaced = (
        "band_tap(int job) { return job % TAPS",
        "band_tap(int job) { return job / TILES",
    )
    assert checks.catches(check_band, [swapped], only=NAME)
    assert checks.catches(check_band, [misplaced], only=NAME)


@checks.on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("case", [case for case, _ in QUICK] + WIDE)
    def test_shapes(self, case: Case, precision: str) -> None:
        check(case, precision, launch, "cuda")

    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("channels", [16, 32, 64, 128, 256, 512])
    def test_figure_5(self, channels: int, precision: str) -> None:
        case = Case(channels, channels, channels, size=(4, 8192 // channels, 8192 // channels))
        dy, x, _, _ = case.tensors(checks.DTYPES[precision])
        found = weight_gradients(dy.cuda(), x.cuda(), case.taps, case.groups, precision=precision)
        again = weight_gradients(dy.cuda(), x.cuda(), case.taps, case.groups, precision=precision)
        for one, other, right in zip(
            found, again, reference(case, checks.DTYPES[precision]), strict=False
        ):
            assert torch.equal(one, other), "not deterministic"
            assert checks.rms_error(one, right) <= checks.GRADIENT_GATE[precision]

    def test_not_contiguous(self) -> None:
        x = torch.randn(2, 40, 21, 60, device="cuda")[:, ::2, 1:, 3:50]
        dy = torch.randn(2, 20, 20, 47, device="cuda")
        found = weight_gradients(dy, x, ROW, 20, precision="fp32")
        same = weight_gradients(dy, x.contiguous(), ROW, 20, precision="fp32")
        assert all(torch.equal(one, other) for one, other in zip(found, same, strict=True))
