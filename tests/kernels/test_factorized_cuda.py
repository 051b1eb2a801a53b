"""Kernels of the single intra-channel convolution and of topological subdivision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.factorized import cuda, reference
from kernels.factorized.mix_plan import (
    ALONE,
    STENCIL,
    TAPS,
    Connections,
    Plan,
    plan_for,
    plans,
    table,
)
from kernels.lean.cuda_depthwise import depthwise_gradients


@dataclass(frozen=True)
class Case:
    """A single intra-channel convolution, or with `bare` topological subdivision alone."""

    channels: int
    features: int
    span: int
    grid: tuple[int, ...] = ()
    near: tuple[int, ...] = ()
    residual: bool = True
    bare: bool = False
    size: tuple[int, int, int] = (2, 19, 21)

    def tensors(self, dtype: torch.dtype) -> list[Tensor]:
        """dy, x, then the weights; of order one in and out."""
        chance = torch.Generator().manual_seed(self.channels + self.span)
        count, height, width = self.size
        connected = math.prod(self.near) if self.grid else self.channels
        spatial = (self.channels, 1, self.span, self.span)
        mixing = (self.features, connected, *(spatial[2:] if self.bare else (1, 1)))
        shapes = [(count, self.features, height, width), (count, self.channels, height, width)]
        shapes += [mixing] if self.bare else [spatial, mixing]
        made = [torch.randn(shape, generator=chance) for shape in shapes]
        for weight in made[2:]:
            weight /= math.prod(weight.shape[1:]) ** 0.5
        return [one.to(dtype) for one in made]

    def forward(self, x: Tensor, weights: list[Tensor], precision: str, run: Run) -> Tensor:
        if self.bare:
            return cuda.topological(x, *weights, self.grid, self.near, precision=precision, run=run)
        options = (self.residual, self.grid, self.near)
        return cuda.single_intra_channel(x, *weights, *options, precision=precision, run=run)

    def backward(
        self, dy: Tensor, x: Tensor, weights: list[Tensor], precision: str, run: Run
    ) -> tuple[Tensor | None, ...]:
        if self.bare:
            return cuda.topological_backward(
                dy, x, *weights, self.grid, self.near, precision=precision, run=run
            )
        options = (self.residual, self.grid, self.near)
        return cuda.single_intra_channel_backward(
            dy, x, *weights, *options, precision=precision, run=run
        )

    def reference(self, dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, ...]]:
        """In float64: the output and the gradients of x and the weights."""
        dy, *leaves = [one.double() for one in self.tensors(dtype)]
        leaves = [one.requires_grad_() for one in leaves]
        if self.bare:
            y = reference.topological(*leaves, self.grid, self.near)
        else:
            options = (self.residual, self.grid, self.near)
            y = reference.single_intra_channel(*leaves, *options)
        return y.detach(), torch.autograd.grad(y, leaves, dy)


def check_forward(case: Case, precision: str, run: Run, device: str = "cpu") -> None:
    _, x, *weights = [one.to(device) for one in case.tensors(checks.DTYPES[precision])]
    y, _ = case.reference(checks.DTYPES[precision])
    found = case.forward(x, weights, precision, run)
    assert found.dtype == x.dtype
    reads = math.prod(case.near) if case.grid else case.channels
    terms = reads * case.span**2
    assert checks.max_error(found, y) <= checks.output_gate(precision, terms)


def check_backward(case: Case, precision: str, run: Run, device: str = "cpu") -> None:
    dy, x, *weights = [one.to(device) for one in case.tensors(checks.DTYPES[precision])]
    _, gradients = case.reference(checks.DTYPES[precision])
    found = case.backward(dy, x, weights, precision, run)
    for one, right in zip(found, gradients, strict=True):
        assert one is not None and one.shape == right.shape
        assert checks.rms_error(one, right) <= checks.GRADIENT_GATE[precision]


def identifier(plan: Plan) -> str:
    return f"{plan.precision}-{('stencil', 'taps', 'alone')[plan.by]}-{plan.span}-{plan.block}"


@pytest.mark.parametrize("plan", plans()[2::30], ids=identifier)
def test_instance_fits(plan: Plan) -> None:
    checks.within_resources(plan.kernel())


def told_apart(plan: Plan) -> bool:
    """TF32 is FP32 with a third of the products, FP16 is BF16 with other conversions: a few do."""
    return plan.precision in ("fp32", "bf16") or (plan.span == 7 and plan.block >= 64)


@pytest.mark.slow
@pytest.mark.parametrize("plan", list(filter(told_apart, plans())), ids=identifier)
def test_every_instance_fits(plan: Plan) -> None:
    checks.within_resources(plan.kernel())


def test_instances_are_listed() -> None:
    listed = set(plans())
    for precision in checks.PRECISIONS:
        for features in (1, 16, 33, 64, 65, 512):
            for channels in (1, 16, 17, 256):
                for by, spans in ((STENCIL, (3, 5, 7)), (TAPS, (1, 3, 5, 7)), (ALONE, (3, 5, 7))):
                    for span in spans:
                        assert plan_for(precision, by, span, features, channels) in listed


SIC = Case(16, 16, 3)
PROJECTED = Case(40, 24, 5, residual=False)
GRID = Case(64, 64, 3, (8, 8), (2, 4))
BARE = Case(30, 30, 3, (5, 6), (2, 2), bare=True)
WIDE = [
    SIC,
    PROJECTED,
    GRID,
    BARE,
    Case(53, 53, 7),
    Case(136, 136, 1, size=(1, 5, 20)),
    Case(48, 48, 1, (6, 8), (2, 3), bare=True),
    Case(8, 8, 3, (2, 4), (1, 2), bare=True, size=(3, 1, 1)),
]


@checks.emulated
@pytest.mark.parametrize(
    ("case", "precision"), [(SIC, "bf16"), (PROJECTED, "fp32"), (GRID, "tf32")]
)
def test_forward_emulated(case: Case, precision: str) -> None:
    for seed in (1, 2):
        check_forward(case, precision, Emulator(seed))


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("precision", checks.PRECISIONS)
def test_forward_shapes(precision: str) -> None:
    for seed, case in enumerate(WIDE):
        check_forward(case, precision, Emulator(seed))


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "precision"),
    [(SIC, "fp32"), (SIC, "bf16"), (PROJECTED, "tf32"), (GRID, "fp16"), (BARE, "bf16")],
)
def test_backward_emulated(case: Case, precision: str) -> None:
    check_backward(case, precision, Emulator(3))


@checks.emulated
@pytest.mark.parametrize("span", [1, 3, 5, 7])
def test_depthwise_gradients(span: int) -> None:
    """The windows of 3 x 3 cover the taps, each once."""
    case = Case(20, 20, span, size=(1, 9, 18))
    dy, x, spatial, _ = (one.double() for one in case.tensors(torch.float32))
    y = torch.nn.functional.conv2d(x, spatial.requires_grad_(), padding=span // 2, groups=20)
    (right,) = torch.autograd.grad(y, spatial, dy)
    found = depthwise_gradients(dy.float(), x.float(), span, precision="fp32", run=Emulator(span))
    assert checks.rms_error(found, right) <= checks.GRADIENT_GATE["fp32"]


def test_unconnected_blocks_are_not_listed() -> None:
    """Rows of 16 channels read rows a .. a + 3 of 8: half of the blocks."""
    plan = Plan("bf16", TAPS, 1, 64)
    entries, longest = table(plan, Connections(128, 128, (8, 16), (4, 8)), torch.device("cpu"))
    assert longest == 4 and entries[:, 0, 0].tolist() == [4, 4]
    bits = sum(bin(int(mask)).count("1") for mask in entries[:, 1:, 1].flatten())
    assert bits == 8 * 4
    dense, _ = table(plan, Connections(128, 128), torch.device("cpu"))
    assert sum(bin(int(mask)).count("1") for mask in dense[:, 1:, 1].flatten()) == 8 * 8


def test_empty_batch_launches_nothing() -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("launched")

    case = Case(16, 16, 3, size=(0, 5, 5))
    dy, x, *weights = case.tensors(torch.float32)
    assert case.forward(x, weights, "fp32", never).shape == (0, 16, 5, 5)
    dx, *rest = case.backward(dy, x, weights, "fp32", never)
    assert dx is not None and dx.shape == x.shape
    assert all(one is not None and not one.any() for one in rest)


@pytest.mark.parametrize(
    ("x", "span", "words"),
    [
        (torch.zeros(1, 4, 5, 5, 5), 3, "dimensions"),
        (torch.zeros(1, 4, 5, 5, dtype=torch.float64), 3, "float64"),
        (torch.zeros(1, 4, 5, 5), 9, "9 x 9"),
    ],
)
def test_refusals_say_why(x: Tensor, span: int, words: str) -> None:
    assert words in str(cuda.why_not(x, span))


def test_nothing_refused() -> None:
    assert cuda.why_not(torch.zeros(1, 4, 5, 5), 3, torch.zeros(4, 1, 3, 3)) is None
    assert "float16" in str(cuda.why_not(torch.zeros(1, 4, 5, 5), 3, torch.zeros(4).half()))


MUTANTS = {
    "missing wait": ("    copy_wait<1>();  // the copies of this step\n", ""),
    "last stage not awaited": (
        "if (step + 1 < steps) load(step + 1);\n    copy_commit();",
        "if (step + 1 < steps) { load(step + 1); copy_commit(); }",
    ),
    "missing barrier after the wait": ("    __syncthreads();  // everyone's copies\n", ""),
    "missing barrier before a stage is reused": ("    __syncthreads();  // read by everyone", "//"),
    "missing barrier before the product": ("        __syncthreads();  // all of S\n", ""),
    "halo off by one": ("left - HALO, channel", "left - HALO + 1, channel"),
    "missing zero fill": (" && (unsigned)w < (unsigned)map.width && channel", " && channel"),
    "transposed taps": ("((i - r) * SPAN + t) * CHUNK", "(t * SPAN + i - r) * CHUNK"),
    "divergent barrier": (
        "    __syncthreads();  // everyone's copies",
        "    if (warp != 1) __syncthreads();",
    ),
    "residual of another pixel": ("((row + HALO) * X_PITCH + HALO)", "((row + HALO) * X_PITCH)"),
    "mask of another band": ("band * FRAGMENTS + k) & 1", "band * FRAGMENTS + 1 - k) & 1"),
}
HARMLESS = ("if (step + 1 < steps) load", "if (steps > step + 1) load")
PROBED = Case(128, 128, 3, (8, 16), (1, 8), size=(1, 9, 18))


def probe(run: Run) -> None:
    """Four chunks a block of features, partly connected, on a map that ends inside a tile."""
    check_forward(PROBED, "bf16", run)


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    assert checks.catches(probe, [MUTANTS[name]], only="mix")


@checks.emulated
@pytest.mark.slow
def test_harmless_change_is_not_flagged() -> None:
    assert checks.passes(probe, Emulator())
    assert not checks.catches(probe, [HARMLESS], only="mix")


@checks.emulated
@pytest.mark.slow
def test_mutants_by_taps_are_caught() -> None:
    def check(run: Run) -> None:
        check_forward(Case(96, 96, 3, (6, 16), (2, 8), bare=True, size=(1, 5, 7)), "bf16", run)

    assert checks.passes(check, Emulator())
    transposed = (
        "((row + tap / SPAN) * X_PITCH + tap % SPAN)",
        "((row + tap % SPAN) * X_PITCH + tap / SPAN)",
    )
    assert checks.catches(check, [transposed], only="mix")
    assert checks.catches(check, [MUTANTS["missing barrier before a stage is reused"]], only="mix")


@checks.on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("case", WIDE)
    def test_shapes(self, case: Case, precision: str) -> None:
        check_forward(case, precision, launch, "cuda")
        check_backward(case, precision, launch, "cuda")

    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("channels", [16, 32, 64, 128, 256, 512])
    @pytest.mark.parametrize("span", [3, 7])
    def test_layers(self, channels: int, span: int, precision: str) -> None:
        side = 4096 // channels
        case = Case(channels, channels, span, size=(2, side, side))
        check_forward(case, precision, launch, "cuda")
        check_backward(case, precision, launch, "cuda")

    def test_not_contiguous(self) -> None:
        _, _, spatial, projection = (one.cuda() for one in Case(20, 20, 3).tensors(torch.float32))
        x = torch.randn(2, 40, 21, 60, device="cuda")[:, ::2, 1:, 3:50]
        found = cuda.single_intra_channel(x, spatial, projection, precision="fp32")
        same = cuda.single_intra_channel(x.contiguous(), spatial, projection, precision="fp32")
        assert torch.equal(found, same)
