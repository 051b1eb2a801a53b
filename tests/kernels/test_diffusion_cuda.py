"""Reaction-diffusion on CUDA: resources, the emulator against float64, seeded mutants, a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Argument, Kernel, Run
from kernels.diffusion import cuda, fourier, instances, reference

ALL = (True, True, True)
PRECISIONS = ("fp32", "bf16", "fp16")
STEP = 0.5
Shape = tuple[int, int, int, int]

# name -> the step, its backward pass, its definition in float64
Step = Callable[..., Tensor]
Backward = Callable[..., Sequence[Tensor | None]]
OPERATIONS: dict[str, tuple[Step, Backward, Step]] = {
    "explicit": (cuda.explicit, cuda.explicit_backward, reference.explicit),
    "implicit": (cuda.implicit, cuda.implicit_backward, fourier.implicit),
}


def drawn(shape: Shape, k: int, precision: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, reaction, kernel and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, shape, (shape[1], 1, k, k), shape)
    drawn = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    drawn[2] /= k
    y, reaction, kernel, dy = (one.to(checks.DTYPES[precision]) for one in drawn)
    return y, reaction, kernel, dy


def holds(name: str, shape: Shape, k: int, precision: str, run: Run, device: str = "cpu") -> None:
    """The step and its gradients are those of the definition."""
    forward, backward, definition = OPERATIONS[name]
    y, reaction, kernel, dy = (one.to(device) for one in drawn(shape, k, precision))
    exact = [one.double().cpu().requires_grad_() for one in (y, reaction, kernel)]
    expected = definition(*exact, STEP)
    gradients = torch.autograd.grad(expected, exact, dy.double().cpu())

    out = forward(y, reaction, kernel, STEP, run=run)
    assert out.dtype == y.dtype and out.shape == y.shape
    assert checks.max_error(out, expected.detach()) <= checks.output_gate(precision, shape[1])
    found = backward(dy, ALL, y, reaction, kernel, STEP, run=run)
    for one, gradient in zip(found, gradients, strict=True):
        assert one is not None and one.shape == gradient.shape
        assert checks.rms_error(one, gradient) <= checks.GRADIENT_GATE[precision]


# ---- resources -----------------------------------------------------------------------------------

SIZES = ((64, 64), (32, 32), (16, 16), (8, 8), (56, 56), (28, 28), (14, 14), (7, 7), (1, 1))
ODD_SIZES = ((60, 63), (50, 9), (34, 31), (61, 15))


def kernels(*, quick: bool) -> list[Kernel]:
    """All stencils, and the transform at the usual map sizes and at some of every other kind."""
    if quick:
        return [
            instances.diffuse(torch.float32, 3, True),
            instances.diffuse(torch.bfloat16, 5, False),
            instances.tap_gradients(torch.bfloat16, 3, True),
            instances.symbol(),
            instances.solve(torch.float32, (64, 64), 64, True),
            instances.solve(torch.bfloat16, (28, 28), 64, True),
        ]
    stencils = [
        make(dtype, side, aligned)
        for make in (instances.diffuse, instances.tap_gradients)
        for dtype in instances.PRECISIONS
        for side in instances.SIDES
        for aligned in (True, False)
    ]
    usual = [instances.solve(torch.float32, size, 64, True) for size in SIZES]
    usual += [instances.solve(torch.bfloat16, size, 64, True) for size in SIZES[:1]]
    odd = [instances.solve(torch.float16, size, 53, False) for size in ODD_SIZES]
    return [*stencils, *usual, *odd]


def described(kernel: Kernel) -> str:
    return "-".join([kernel.name, *(str(value) for _, value in kernel.macros)])


@pytest.mark.parametrize("kernel", kernels(quick=True), ids=described)
def test_a_kernel_keeps_to_its_resources(kernel: Kernel) -> None:
    checks.within_resources(kernel)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", kernels(quick=False), ids=described)
def test_every_kernel_keeps_to_its_resources(kernel: Kernel) -> None:
    checks.within_resources(kernel)


def test_channels_of_a_block_fill_a_sector_where_there_are_enough() -> None:
    for size in SIZES:
        pairs = dict(instances.solve(torch.float32, size, 64, True).macros)["PAIRS"]
        assert pairs in (4, 8, 16)
    few = dict(instances.solve(torch.float32, (8, 8), 3, False).macros)["PAIRS"]
    assert few == 2  # three channels are two pairs


# ---- the emulator --------------------------------------------------------------------------------

QUICK = [
    ("explicit", (2, 20, 19, 35), 3, "fp32"),
    ("explicit", (1, 5, 3, 18), 5, "bf16"),
    ("implicit", (2, 8, 20, 18), 3, "fp32"),
    ("implicit", (1, 5, 7, 3), 3, "fp16"),
]
SLOW = [
    ("explicit", (1, 53, 17, 5), 3, "fp16"),
    ("explicit", (1, 24, 33, 18), 5, "fp32"),
    ("explicit", (1, 16, 20, 21), 7, "bf16"),
    ("explicit", (2, 3, 1, 1), 3, "fp32"),
    ("explicit", (1, 8, 9, 7), 1, "fp32"),
    ("explicit", (3, 24, 2, 40), 7, "fp16"),
    ("implicit", (1, 20, 16, 8), 3, "bf16"),
    ("implicit", (1, 8, 64, 64), 3, "fp32"),
    ("implicit", (1, 4, 33, 34), 5, "fp32"),
    ("implicit", (2, 3, 1, 1), 1, "fp32"),
    ("implicit", (1, 2, 2, 9), 7, "fp32"),
    ("implicit", (1, 2, 61, 15), 3, "fp32"),
]


@checks.emulated
@pytest.mark.parametrize(("name", "shape", "k", "precision"), QUICK)
def test_steps_and_gradients(name: str, shape: Shape, k: int, precision: str) -> None:
    for seed in (1, 2):
        holds(name, shape, k, precision, Emulator(seed))


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape", "k", "precision"), SLOW)
def test_more_steps_and_gradients(name: str, shape: Shape, k: int, precision: str) -> None:
    for seed in (1, 2):
        holds(name, shape, k, precision, Emulator(seed))


@checks.emulated
@pytest.mark.slow
def test_maps_of_every_side_transform() -> None:
    """Rows and columns of each length, in pairs: all radices, large primes too."""
    for n in (17, 45, 49, 62):
        y, reaction, kernel, _ = drawn((1, 2, n, 2), 3, "fp32")
        found = cuda.implicit(y, reaction, kernel, STEP, run=Emulator(n))
        expected = fourier.implicit(y.double(), reaction.double(), kernel.double(), STEP)
        assert checks.max_error(found, expected) <= checks.output_gate("fp32", 2)
        across = cuda.implicit(y.mT, reaction.mT, kernel.mT, STEP, run=Emulator(n))
        assert checks.max_error(across, expected.mT) <= checks.output_gate("fp32", 2)


@checks.emulated
@pytest.mark.parametrize("name", OPERATIONS)
def test_only_what_is_needed_is_computed(name: str) -> None:
    _, backward, _ = OPERATIONS[name]
    y, reaction, kernel, dy = drawn((1, 8, 5, 6), 3, "fp32")
    launched: list[str] = []

    def run(kernel: Kernel, *, grid: tuple[int, int, int], arguments: Sequence[Argument]) -> None:
        launched.append(kernel.name)

    found = backward(dy, (False, True, False), y, reaction, kernel, STEP, run=run)
    assert [one is None for one in found] == [True, False, True]
    assert "tap_gradients" not in launched
    if name == "explicit":
        launched.clear()
        found = backward(dy, (False, False, True), y, reaction, kernel, STEP, run=run)
        assert [one is None for one in found] == [True, True, False]
        assert launched == ["tap_gradients"]


@checks.emulated
def test_an_output_at_hand_saves_a_solve() -> None:
    y, reaction, kernel, dy = drawn((1, 8, 5, 6), 3, "fp32")
    run = Emulator()
    out = cuda.implicit(y, reaction, kernel, STEP, run=run)
    given = cuda.implicit_backward(dy, ALL, y, reaction, kernel, STEP, out=out, run=run)
    solved = cuda.implicit_backward(dy, ALL, y, reaction, kernel, STEP, run=run)
    for one, other in zip(given, solved, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


@checks.emulated
def test_the_taps_of_large_periodic_maps_have_their_gradient() -> None:
    y, reaction, kernel, dy = drawn((1, 2, 3, 70), 3, "fp32")
    exact = [one.double().requires_grad_() for one in (y, reaction, kernel)]
    out = fourier.implicit(exact[0], exact[1], exact[2], STEP)
    to_y, expected = torch.autograd.grad(out, (exact[0], exact[2]), dy.double())
    found = cuda.periodic_tap_gradients(
        out.detach().float(), to_y.float(), kernel, STEP, run=Emulator()
    )
    assert checks.rms_error(found, expected) <= checks.GRADIENT_GATE["fp32"]


def test_layouts_give_the_same() -> None:
    """A slice of a larger tensor and a transposed one are copied, the rest is taken as it is."""
    wide = torch.randn(2, 16, 6, 10).contiguous(memory_format=torch.channels_last)
    assert cuda._pixels(wide).data_ptr() == wide.data_ptr()
    for odd in (wide[:, :8], wide[..., 1:], wide.contiguous()):
        assert torch.equal(cuda._pixels(odd), odd)
        assert cuda._pixels(odd).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(0, 8, 5, 6), (2, 8, 0, 6)])
def test_an_empty_batch_launches_nothing(name: str, shape: Shape) -> None:
    forward, backward, _ = OPERATIONS[name]
    y, kernel = torch.empty(shape), torch.randn(8, 1, 3, 3)
    assert forward(y, y, kernel).shape == shape
    to_y, to_reaction, to_kernel = backward(y, ALL, y, y, kernel)
    assert to_y is not None and to_reaction is not None and to_kernel is not None
    assert to_y.shape == to_reaction.shape == shape
    assert torch.equal(to_kernel, torch.zeros_like(kernel))


# ---- what is refused -----------------------------------------------------------------------------


def refused(**changed: object) -> str | None:
    given: dict[str, object] = {"size": (1, 4, 8, 8), "dtype": torch.float32, "k": (4, 1, 3, 3)}
    given.update(changed)
    y = torch.empty(given["size"], dtype=given["dtype"], device="meta")  # type: ignore[call-overload]
    kernel = torch.empty(given["k"], device="meta")  # type: ignore[call-overload]
    reaction = given.get("reaction", y)
    assert isinstance(reaction, Tensor)
    return cuda.why_not_implicit(y, reaction, kernel)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"dtype": torch.float64}, "y is torch.float64; valid are float32, bfloat16 and float16"),
        ({"size": (4, 8, 8)}, "y has 3 dimensions; valid are 4: images, channels, height, width"),
        ({"k": (4, 4, 3, 3)}, "the kernel has shape (4, 4, 3, 3); valid is (4, 1, k, k)"),
        ({"k": (4, 1, 9, 9)}, "the kernel has a side of 9; valid are 1, 3, 5 and 7"),
        ({"size": (1, 4, 65, 8)}, "the map is 65 x 8; valid are maps of up to 64 x 64 pixels"),
        ({"reaction": torch.empty(1, 4, 8, 7)}, "found (1, 4, 8, 7) of torch.float32 beside"),
        ({"reaction": torch.empty(1, 4, 8, 8)}, "tensors lie on cpu and meta; valid is one device"),
        (
            {"size": (1, 4, 2**15, 2**15)},
            "y has shape (1, 4, 32768, 32768); valid are images of at most 2^30 elements",
        ),
    ],
)
def test_a_refusal_is_a_sentence(changed: dict[str, object], sentence: str) -> None:
    reason = refused(**changed)
    assert reason is not None and reason.startswith(sentence)


def test_a_valid_call_has_no_reason_against_it() -> None:
    assert refused() is None
    y = torch.empty(1, 4, 65, 8)
    assert cuda.why_not_explicit(y, y, torch.empty(4, 1, 3, 3)) is None


def test_misuse_raises_before_a_launch() -> None:
    y = torch.empty(1, 4, 8, 8, dtype=torch.float64)
    for forward, backward, _ in OPERATIONS.values():
        with pytest.raises(ValueError, match="float64"):
            forward(y, y, torch.empty(4, 1, 3, 3))
        with pytest.raises(ValueError, match="float64"):
            backward(y, ALL, y, y, torch.empty(4, 1, 3, 3))


# ---- seeded bugs: each must fail the check that the true kernel passes ---------------------------


def explicit_step(run: Run) -> None:
    y, reaction, kernel, _ = drawn((1, 20, 19, 35), 3, "fp32")
    expected = reference.explicit(y.double(), reaction.double(), kernel.double(), STEP)
    found = cuda.explicit(y, reaction, kernel, STEP, run=run)
    assert checks.max_error(found, expected) <= checks.output_gate("fp32", 20)


def explicit_taps(run: Run) -> None:
    """Two blocks share twelve tiles: each stage is filled three times."""
    y, reaction, kernel, dy = drawn((2, 8, 19, 35), 3, "fp32")
    taps = kernel.double().requires_grad_()
    out = reference.explicit(y.double(), reaction.double(), taps, STEP)
    (expected,) = torch.autograd.grad(out, taps, dy.double())
    whole, cuda.PROCESSORS = cuda.PROCESSORS, 1
    try:
        found = cuda._tap_gradients(y, dy, kernel, STEP, False, run)
    finally:
        cuda.PROCESSORS = whole
    assert checks.rms_error(found, expected) <= checks.GRADIENT_GATE["fp32"]


def periodic_taps(run: Run) -> None:
    y, _, kernel, dy = drawn((1, 8, 5, 18), 3, "fp32")
    taps = kernel.double().requires_grad_()
    images = [reference.periodic(one.double(), taps, groups=8) for one in (y, dy)]
    (expected,) = torch.autograd.grad(-STEP * (images[0] * images[1]).sum(), taps)
    found = cuda.periodic_tap_gradients(y, dy, kernel, STEP, run=run)
    assert checks.rms_error(found, expected) <= checks.GRADIENT_GATE["fp32"]


def implicit_step(run: Run) -> None:
    """Both axes take two passes; two pairs of channels, the second only half."""
    y, reaction, kernel, _ = drawn((2, 3, 20, 18), 3, "fp32")
    expected = fourier.implicit(y.double(), reaction.double(), kernel.double(), STEP)
    found = cuda.implicit(y, reaction, kernel, STEP, run=run)
    assert checks.max_error(found, expected) <= checks.output_gate("fp32", 3)


Check = Callable[[Run], None]
NOTHING = ""

MUTANTS: dict[str, tuple[Check, str, str, str]] = {
    "explicit: copies not awaited": (explicit_step, "diffuse", "copy_wait<0>();", NOTHING),
    "explicit: no barrier after the wait": (
        explicit_step, "diffuse", "__syncthreads();  // y and the taps", "// y and the taps",
    ),
    "explicit: no barrier after K y": (
        explicit_step, "diffuse", "__syncthreads();  // K y", "// K y",
    ),
    "explicit: divergent barrier": (
        explicit_step, "diffuse", "__syncthreads();  // K y", "if (row < 8) __syncthreads();  //",
    ),
    "explicit: halo off by one": (
        explicit_step, "diffuse", "left - 2 * HALF, first", "left - 2 * HALF + 1, first",
    ),
    "explicit: no zeros around y": (
        explicit_step, "diffuse", "copy_async_16(to, from, inside);",
        "if (inside) copy_async_16(to, from, true);",
    ),
    "explicit: K y goes on outside the map": (
        explicit_step, "diffuse", "inside ? make_float2(z[i]", "true ? make_float2(z[i]",
    ),
    "explicit: transposed taps": (
        explicit_step, "diffuse", "(i - row) * SIDE + t;", "t * SIDE + i - row;",
    ),
    "explicit: K twice instead of K'": (
        explicit_step, "diffuse", "mirrored ? TAPS - 1 - tap : tap", "tap",
    ),
    "taps: copies not awaited": (explicit_taps, "tap_gradients", "copy_wait<1>();", NOTHING),
    "taps: last stage not awaited": (
        explicit_taps, "tap_gradients", "copy_wait<1>();", "copy_wait<2>();",
    ),
    "taps: no barrier after the wait": (
        explicit_taps, "tap_gradients", "__syncthreads();  // this stage is here", NOTHING,
    ),
    "taps: no barrier before a stage is filled again": (
        explicit_taps, "tap_gradients", "__syncthreads();  // before this stage", "//",
    ),
    "taps: no barrier before the last sum": (
        explicit_taps, "tap_gradients", "__syncthreads();  // the sums of all", "//",
    ),
    "taps: divergent barrier": (
        explicit_taps, "tap_gradients", "__syncthreads();  // this stage",
        "if (tile % 2 || row) __syncthreads();  //",
    ),
    "taps: halo off by one": (
        explicit_taps, "tap_gradients", "* TILE - HALF, top", "* TILE - HALF + 1, top",
    ),
    "taps: pixels beyond the border count": (
        explicit_taps, "tap_gradients", "if (!holds(", "if (false && !holds(",
    ),
    "taps: transposed": (
        explicit_taps, "tap_gradients", "gradient[(i - row) * SIDE + t][c] +=",
        "gradient[t * SIDE + i - row][c] +=",
    ),
    "taps: a periodic map ends at its border": (
        periodic_taps, "tap_gradients", "column = wrapped(column, map.width);", NOTHING,
    ),
    "implicit: no barrier after loading": (
        implicit_step, "solve", "__syncthreads();  // columns, first pass", "//",
    ),
    "implicit: no barrier after the columns": (
        implicit_step, "solve", "__syncthreads();  // columns, second pass\n", "//\n",
    ),
    "implicit: no barrier before the product": (
        implicit_step, "solve", "__syncthreads();  // rows, first pass\n", "//\n",
    ),
    "implicit: no barrier after the product": (
        implicit_step, "solve", "__syncthreads();  // rows, second pass and back", "//",
    ),
    "implicit: no barrier after the rows": (
        implicit_step, "solve", "__syncthreads();  // rows, first pass back", "//",
    ),
    "implicit: no barrier before storing": (
        implicit_step, "solve", "__syncthreads();  // columns, second pass back", "//",
    ),
    "implicit: divergent barrier": (
        implicit_step, "solve", "__syncthreads();  // rows, first pass back",
        "if (threadIdx.x < 64) __syncthreads();",
    ),
    "implicit: the opposite frequency off by one": (
        implicit_step, "solve", "(HEIGHT - row) % HEIGHT", "HEIGHT - 1 - row",
    ),
    "implicit: one symbol for both channels": (
        implicit_step, "solve", "0.5f * (symbols[m].x - symbols[m].y)", "0.f",
    ),
    "implicit: no turn between the passes": (
        implicit_step, "solve", "if (back && m > 0)", "if (false)",
    ),
    "implicit: not swapped for the way back": (
        implicit_step, "solve", "here[m] = swapped(", "here[m] = (",
    ),
    "implicit: transposed taps": (
        implicit_step, "symbol", "tap[y * side + x]", "tap[x * side + y]",
    ),
}  # fmt: skip

HARMLESS: dict[str, tuple[Check, str, str, str]] = {
    "explicit: another place of pixels": (
        explicit_step, "diffuse", "return column + column / COLUMNS;", "return column;",
    ),
    "taps: one more stage between wait and use": (
        explicit_taps, "tap_gradients", "copy_wait<1>();", "copy_wait<0>();",
    ),
    "implicit: rows further apart": (
        implicit_step, "solve", "(WIDTH | 1) * PAIRS", "(WIDTH + 0) * PAIRS",
    ),
}  # fmt: skip
QUICK_MUTANTS = (
    "explicit: no barrier after K y",
    "taps: no barrier before a stage is filled again",
    "implicit: the opposite frequency off by one",
)


def caught(mutant: tuple[Check, str, str, str]) -> bool:
    check, only, old, new = mutant
    return checks.catches(check, ((old, new),), only=only)


@checks.emulated
@pytest.mark.parametrize("check", [explicit_step, explicit_taps, periodic_taps, implicit_step])
def test_the_true_kernels_pass(check: Check) -> None:
    assert all(checks.passes(check, Emulator(seed)) for seed in range(1, 4))


@checks.emulated
@pytest.mark.parametrize("name", QUICK_MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    assert caught(MUTANTS[name])


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in QUICK_MUTANTS])
def test_every_mutant_is_caught(name: str) -> None:
    assert caught(MUTANTS[name])


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_is_not_flagged(name: str) -> None:
    assert not caught(HARMLESS[name])


# ---- with a GPU ----------------------------------------------------------------------------------


@checks.on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("name", OPERATIONS)
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("k", [1, 3, 5, 7])
    @pytest.mark.parametrize("shape", [(2, 64, 64, 64), (3, 53, 17, 31), (2, 16, 1, 1)])
    def test_steps_and_gradients(self, name: str, precision: str, k: int, shape: Shape) -> None:
        holds(name, shape, k, precision, launch, device="cuda")

    @pytest.mark.parametrize("size", [*SIZES, *ODD_SIZES], ids=str)
    @pytest.mark.parametrize("channels", [1, 24, 64])
    def test_maps_of_many_sizes(self, size: tuple[int, int], channels: int) -> None:
        holds("implicit", (2, channels, *size), 3, "fp32", launch, device="cuda")

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_inputs_that_are_not_contiguous(self, name: str) -> None:
        forward, _, definition = OPERATIONS[name]
        y, reaction, kernel, _ = (one.cuda() for one in drawn((2, 24, 20, 26), 3, "fp32"))
        for some in (
            (y[..., 1:], reaction[..., 1:]),
            (y.mT, reaction.mT),
            (y[:, :, ::2], reaction[:, :, ::2]),
        ):
            expected = definition(some[0].double(), some[1].double(), kernel.double(), STEP)
            found = forward(*some, kernel, STEP)
            assert checks.max_error(found, expected) <= checks.output_gate("fp32", 24)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_gradients_repeat_to_the_bit(self, name: str) -> None:
        _, backward, _ = OPERATIONS[name]
        y, reaction, kernel, dy = (one.cuda() for one in drawn((8, 64, 32, 32), 3, "bf16"))
        first = backward(dy, ALL, y, reaction, kernel, STEP)
        second = backward(dy, ALL, y, reaction, kernel, STEP)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # type: ignore[arg-type]
