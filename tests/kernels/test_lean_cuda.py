"""The CUDA kernel of lean convolution: resources by NVRTC, results in the emulator and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Kernel, Run
from kernels.lean import cuda, cuda_shapes
from kernels.lean.reference import lean

NINE = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column)
FIVE = ((-1, 0), (0, -1), (0, 1), (1, 0))
ROW, COLUMN = ((0, -1), (0, 1)), ((-1, 0), (1, 0))


@dataclass(frozen=True)
class Case:
    """One call and its gradient. full: prologue, bias and residual too."""

    precision: str
    channels: int
    features: int
    groups: int
    height: int = 19
    width: int = 37
    images: int = 2
    taps: tuple[tuple[int, int], ...] = NINE
    transposed: bool = False
    full: bool = True
    strided: bool = False
    seed: int = 1

    def check(self, run: Run, device: str = "cpu") -> None:
        """Output and input gradient lie within the gates around the float64 reference."""
        inputs = _Inputs(self, device)
        y, dx = inputs.found(run)
        reference, gradient = inputs.reference()
        assert y.shape == reference.shape and y.dtype == checks.DTYPES[self.precision]
        assert checks.max_error(y, reference) <= checks.output_gate(self.precision, self.channels)
        assert checks.rms_error(dx, gradient) <= checks.GRADIENT_GATE[self.precision]


class _Inputs:
    def __init__(self, case: Case, device: str) -> None:
        chance = torch.Generator().manual_seed(case.seed)
        dtype = checks.DTYPES[case.precision]

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=chance).to(device, dtype)

        self.case = case
        size = (case.width, case.height) if case.transposed else (case.height, case.width)
        group, step = case.channels // case.groups, 1 + case.strided
        self.x = normal(case.images, case.channels, case.height * step, case.width)[:, :, ::step]
        self.centre = normal(case.features, case.channels) / case.channels**0.5
        count = len(case.taps)
        self.outer = normal(count, case.features, group) / (count * group) ** 0.5
        self.dy = normal(case.images, case.features, *size)
        self.prologue = {"scale": None, "shift": None, "relu": False}
        self.epilogue = {"bias": None, "residual": None}
        if case.full:
            scale, shift = normal(case.channels).float(), normal(case.channels).float()
            self.prologue = {"scale": scale, "shift": shift, "relu": True}
            residual = normal(case.images, case.features, *size)
            self.epilogue = {"bias": normal(case.features), "residual": residual}

    def found(self, run: Run) -> tuple[Tensor, Tensor]:
        case, weights = self.case, (self.centre, self.outer, self.case.taps, self.case.groups)
        settings = {"transposed": case.transposed, "precision": case.precision, "run": run}
        y = cuda.forward(self.x, *weights, **self.prologue, **self.epilogue, **settings)
        x = self.x if case.full else None
        return y, cuda.input_gradient(self.dy, x, *weights, **self.prologue, **settings)

    def reference(self) -> tuple[Tensor, Tensor]:
        """In float64 from the same numbers."""
        case = self.case
        x = self.x.double().requires_grad_()
        inside = x
        if case.full:
            scale, shift = self.prologue["scale"].double(), self.prologue["shift"].double()
            inside = (scale[:, None, None] * x + shift[:, None, None]).relu()
        weights = (self.centre.double(), self.outer.double())
        y = lean(inside, *weights, case.taps, case.groups, transposed=case.transposed)
        (gradient,) = torch.autograd.grad(y, x, self.dy.double())
        y = y.detach()
        if case.full:
            y = (
                y
                + self.epilogue["bias"].double()[:, None, None]
                + self.epilogue["residual"].double()
            )
        return y, gradient


def _name(kernel: Kernel) -> str:
    macros = dict(kernel.macros)
    if kernel.name == "lean_pack":
        return f"{checks.PRECISIONS[macros['PRECISION']]}-pack"
    way = ("grouped", "stencil", "diagonal")[macros["TAPS"]]
    return f"{checks.PRECISIONS[macros['PRECISION']]}-{macros['SLICE'] * macros['ACROSS']}-{way}"


QUICK = ("fp32-64-grouped", "bf16-32-diagonal", "tf32-128-stencil", "fp16-pack")


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(one, id=_name(one), marks=() if _name(one) in QUICK else pytest.mark.slow)
        for one in cuda_shapes.kernels()
    ],
)
def test_the_kernel_compiles_within_its_resources(kernel: Kernel) -> None:
    checks.within_resources(kernel)


@checks.emulated
@pytest.mark.parametrize(
    "case",
    [
        Case("bf16", 16, 16, 16),
        Case("bf16", 16, 16, 16, taps=ROW, transposed=True),
        Case("bf16", 13, 13, 13, taps=FIVE, height=1, width=1),
        Case("fp32", 64, 48, 16, height=9, taps=NINE),
        Case("fp32", 53, 53, 1, height=9, taps=ROW, transposed=True),
    ],
    ids=lambda case: (
        f"{case.precision}-{case.channels}-{case.features}-{case.groups}-{len(case.taps)}"
    ),
)
def test_quick_cases_in_the_emulator(case: Case) -> None:
    case.check(Emulator(seed=case.seed))


WIDTHS = (
    (5, 5, 5), (13, 13, 13), (16, 16, 16), (16, 16, 4), (8, 16, 1), (27, 27, 27),
    (32, 32, 32), (32, 24, 8),
    (53, 53, 53), (64, 64, 64), (48, 64, 16), (72, 72, 72), (72, 72, 9), (136, 136, 136),
)  # fmt: skip


@pytest.mark.slow
@checks.emulated
@pytest.mark.parametrize(
    "precision, widths",
    [
        (one, widths)
        for one in checks.PRECISIONS
        for widths in WIDTHS[:: 1 if one in ("fp32", "bf16") else 3]
    ],
)
def test_widths_and_groups_in_the_emulator(precision: str, widths: tuple[int, int, int]) -> None:
    shapes = ((NINE, 19, 21, True), (FIVE, 9, 33, False), (ROW, 8, 17, True), (COLUMN, 3, 2, False))
    for seed, (taps, height, width, full) in enumerate(shapes, 1):
        case = Case(
            precision, *widths, height, width, images=1, taps=taps, full=full,
            transposed=seed % 2 == 1, seed=seed,
        )  # fmt: skip
        case.check(Emulator(seed))


@checks.emulated
def test_weights_that_do_not_stay_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = cuda_shapes.SHAPES[4][-1]
    assert cuda_shapes.instance(shape, "tf32", cuda_shapes.STENCIL, 136, 227 * 1024)[1]
    monkeypatch.setattr(cuda, "shared_limit", lambda device: 140 * 1024)
    assert not cuda_shapes.instance(shape, "tf32", cuda_shapes.STENCIL, 136, 140 * 1024)[1]
    Case("tf32", 136, 136, 136, height=9, width=17).check(Emulator(2))


WAIT, BARRIER = "copy_wait<STAGES - 2>();", "__syncthreads();  // the stage is filled"
NEXT = "if (item + STAGES - 1 < total) start(item + STAGES - 1);"
BEYOND = "(unsigned)w >= (unsigned)map.width) continue;"
MUTANTS = {
    "missing wait": [(WAIT, "")],
    "last stage not awaited": [(WAIT, "if (item + 1 < total) " + WAIT)],
    "missing barrier after the wait": [(BARRIER, "//")],
    "stage reused before the barrier": [
        (NEXT, ""),
        (WAIT, "if (item + STAGES <= total) start(item + STAGES - 1); copy_wait<0>();"),
    ],
    "halo off by one": [("w = left + x - T::HALO, c", "w = left + x - T::HALO + 1, c")],
    "missing zero fill": [("copy_async_16(to, from, count > 0)", "copy_async_16(to, from, true)")],
    "prologue of the outside": [
        (BEYOND, BEYOND.replace("(unsigned)w >= (unsigned)map.width", "0"))
    ],
    "divergent barrier": [(BARRIER, "if (warp) " + BARRIER)],
    "rows and pixels exchanged": [("h * row + w * pixel", "h * pixel + w * row")],
}
TRANSPOSED_TAPS = {
    "diagonal": [("diagonal.b[3 * dy + dx]", "diagonal.b[3 * dx + dy]")],
    "stencil": [
        ("weights + 3 * dy * OUTPUTS", "weights + dy * OUTPUTS"),
        ("weights + d * OUTPUTS", "weights + 3 * d * OUTPUTS"),
    ],
    "grouped": [("position / 3 - 1, position % 3 - 1", "position % 3 - 1, position / 3 - 1")],
}
HARMLESS = [(BARRIER, "__syncthreads(); " + BARRIER), (WAIT, "copy_wait<0>();")]
VICTIMS = {
    "diagonal": Case("bf16", 16, 16, 16, images=3, height=33, width=20),
    "stencil": Case("tf32", 64, 64, 64, images=1, height=19, width=33),
    "grouped": Case("fp16", 72, 72, 9, images=1, height=19, width=33),
}


@checks.emulated
def test_a_harmless_change_is_not_flagged() -> None:
    assert checks.passes(VICTIMS["diagonal"].check, Emulator(3, tuple(HARMLESS), "lean_forward"))


@checks.emulated
@pytest.mark.parametrize("mutant", ["missing wait", "divergent barrier"])
def test_some_mutants_are_caught(mutant: str) -> None:
    assert checks.catches(VICTIMS["diagonal"].check, MUTANTS[mutant], only="lean_forward")


@pytest.mark.slow
@checks.emulated
@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_mutant_is_caught(mutant: str) -> None:
    assert checks.passes(VICTIMS["diagonal"].check, Emulator(1))
    assert checks.catches(VICTIMS["diagonal"].check, MUTANTS[mutant], only="lean_forward")


@pytest.mark.slow
@checks.emulated
@pytest.mark.parametrize("victim", VICTIMS)
def test_mutants_of_each_way_of_taps_are_caught(victim: str) -> None:
    check = VICTIMS[victim].check
    assert checks.passes(check, Emulator(1))
    assert checks.catches(check, TRANSPOSED_TAPS[victim], only="lean_forward")
    assert checks.catches(check, MUTANTS["stage reused before the barrier"], only="lean_forward")


def test_refusals_say_what_is_valid() -> None:
    x, centre, outer = torch.zeros(1, 4, 3, 3), torch.zeros(4, 4), torch.zeros(2, 4, 1)
    assert cuda.why_not(x, centre, outer, ROW, 4) is None
    refused = {
        "valid are float32": cuda.why_not(x.double(), centre, outer, ROW, 4),
        "valid is (N, C, H, W)": cuda.why_not(x[0], centre, outer, ROW, 4),
        "stride 2": cuda.why_not(x, centre, outer, ROW, 4, stride=2),
        "offsets from -1 to 1": cuda.why_not(x, centre, outer, ((0, -2), (0, 2)), 4),
        "common divisors": cuda.why_not(x, centre, outer, ROW, 3),
        "outer weights": cuda.why_not(x, centre, outer, ROW, 2),
        "3 channels": cuda.why_not(x[:, :3], centre, outer, ROW, 4),
    }
    for words, reason in refused.items():
        assert reason is not None and words in reason
    with pytest.raises(ValueError, match="stride 2; valid is 1"):
        cuda.forward(x, centre, outer, ROW, 4, stride=2)
    with pytest.raises(ValueError, match="bias"):
        cuda.forward(x, centre, outer, ROW, 4, bias=torch.zeros(3), run=Emulator())
    with pytest.raises(ValueError, match="scale"):
        cuda.forward(x, centre, outer, ROW, 4, scale=torch.zeros(3), run=Emulator())
    with pytest.raises(ValueError, match="without x"):
        cuda.input_gradient(x, None, centre, outer, ROW, 4, relu=True, run=Emulator())


def test_an_empty_batch_launches_nothing() -> None:
    x, centre, outer = torch.zeros(0, 4, 3, 5), torch.zeros(6, 4), torch.zeros(2, 6, 2)
    assert cuda.forward(x, centre, outer, ROW, 2, transposed=True).shape == (0, 6, 5, 3)


@checks.on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("taps", [NINE, FIVE, ROW, COLUMN], ids=["9", "5", "row", "column"])
    def test_the_whole_grid(self, precision: str, taps: tuple[tuple[int, int], ...]) -> None:
        for widths in (*WIDTHS, (256, 256, 256), (512, 512, 512), (512, 512, 64)):
            case = Case(precision, *widths, 33, 65, images=3, taps=taps)
            for one in (
                case,
                replace(case, transposed=True, full=False),
                replace(case, strided=True),
            ):
                one.check(launch, "cuda")
