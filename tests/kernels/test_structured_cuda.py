"""Structured convolution on CUDA: resources, the emulator against float64, seeded bugs, a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Kernel, Run
from kernels.structured import cuda, cuda_launches, instances
from kernels.structured.cuda import Numbers
from kernels.structured.reference import structured


@dataclass(frozen=True)
class Layer:
    """{C, N, c, n} with F outputs on a batch of maps."""

    C: int
    F: int
    c: int
    n: int = 2
    N: int = 3
    groups: int = 1
    stride: int = 1
    padding: int | None = None
    batch: int = 2
    height: int = 19
    width: int = 21
    channels_last: bool = True

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.N, self.groups, self.stride, padding=self.padding)

    def inputs(self, precision: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, alpha, dY, and Y in float64, from the rounded inputs."""
        chance = torch.Generator().manual_seed(0)
        dtype = checks.DTYPES[precision]
        x = torch.randn(self.batch, self.C, self.height, self.width, generator=chance)
        shape = (self.F, self.c, self.n, self.n)
        weight = torch.randn(shape, generator=chance) / (self.c * self.n**2) ** 0.5
        x, weight = x.to(dtype), weight.to(dtype)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        y = structured(
            x.double(), weight.double(), self.N, self.groups, self.stride, padding=self.padding
        )
        return x, weight, torch.randn(y.shape, generator=chance).to(dtype), y


def outputs_hold(layer: Layer, precision: str, run: Run, device: str = "cpu") -> None:
    x, weight, _, reference = layer.inputs(precision)
    y = cuda.forward(
        x.to(device), weight.to(device), layer.numbers, precision=checks.single(precision), run=run
    )
    assert y.dtype == x.dtype and y.shape == reference.shape
    assert checks.max_error(y, reference) <= checks.output_gate(precision, layer.C)


def gradients_hold(layer: Layer, precision: str, run: Run, device: str = "cpu") -> None:
    x, weight, dy, _ = layer.inputs(precision)
    exact = x.double().requires_grad_(), weight.double().requires_grad_()
    reference = structured(*exact, layer.N, layer.groups, layer.stride, padding=layer.padding)
    dx, dweight = torch.autograd.grad(reference, exact, dy.double())
    x, weight, dy = x.to(device), weight.to(device), dy.to(device)
    found_x, found_weight = cuda.backward(
        dy, (True, True), x, weight, layer.numbers, precision=checks.single(precision), run=run
    )
    assert found_x is not None and found_weight is not None
    assert found_x.shape == x.shape and found_weight.shape == weight.shape
    assert found_x.dtype == found_weight.dtype == x.dtype
    assert checks.rms_error(found_x, dx) <= checks.GRADIENT_GATE[precision]
    assert checks.rms_error(found_weight, dweight) <= checks.GRADIENT_GATE[precision]


HALF = Layer(32, 48, 16)
LAYERS = {
    "half": HALF,
    "odd channels": Layer(53, 41, 26, height=9, width=7),
    "one pixel": Layer(53, 53, 53, n=3, height=1, width=1),
    "sums in chunks": Layer(192, 72, 144, batch=1, height=5, width=18),
    "sums kept for two blocks": Layer(40, 130, 20, n=1, N=1, height=5, width=9),
    "sums apart": Layer(256, 256, 160, batch=1, height=3, width=17),
    "few weights": Layer(24, 16, 6, height=17, width=16),
    "depthwise": Layer(24, 24, 1, groups=24),
    "prime groups": Layer(53, 53, 1, groups=53, height=4, width=5),
    "groups": Layer(32, 32, 4, groups=4),
    "channels only": Layer(32, 24, 12, n=3, height=8, width=17),
    "pixels only": Layer(16, 24, 16, n=1, height=17, width=8),
    "5 x 5": Layer(16, 16, 8, n=4, N=5, height=20, width=9),
    "5 x 5, all taps": Layer(16, 20, 8, n=5, N=5, stride=2, height=7, width=9),
    "stride": Layer(32, 32, 16, stride=2, height=19, width=33),
    "no padding": Layer(16, 16, 8, padding=0, height=12, width=9),
    "much padding": Layer(16, 16, 8, padding=2, height=6, width=9),
    "channels first": Layer(16, 16, 8, height=6, width=9, channels_last=False),
}


# ---- resources -----------------------------------------------------------------------------------


def named(kernel: Kernel) -> str:
    values = dict(kernel.macros)
    return kernel.name + "-" + "-".join(f"{name}{values[name]}" for name in values)


@pytest.mark.parametrize("kernel", instances.kernels(quick=True)[::6], ids=named)
def test_resources_of_a_few(kernel: Kernel) -> None:
    checks.within_resources(kernel)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", instances.kernels(), ids=named)
def test_resources(kernel: Kernel) -> None:
    checks.within_resources(kernel)


def test_every_plan_fits_its_block() -> None:
    """Shared memory of all layers that `why_not` admits, from 1 to 1024 channels."""
    shapes = [(kernel - n + 1, n) for kernel in range(1, 6) for n in range(1, kernel + 1)]
    sizes = (1, 3, 16, 53, 64, 100, 128, 256, 512, 1024)
    for (side, taps), stride, size, channels in product(shapes, (1, 2), (2, 4), sizes):
        for kept in {1, channels, -(-channels // 2), -(-channels // 4)}:
            depth = channels - kept + 1
            chosen = instances.plan(channels, kept, depth, side, taps, stride, size, 264)
            assert chosen.blocks * chosen.splits * chosen.width >= channels
            if not chosen.separate:
                one = instances.instance(0, size, chosen, kept, depth, side, taps, stride, 16, True)
                assert one.shared <= instances.SHARED_LIMIT, (
                    channels,
                    kept,
                    side,
                    taps,
                    stride,
                    size,
                )
        for bm, bj in ((32, 16),) if stride == 2 and size == 4 else ((64, 32),):
            one = instances.gradient_kernel(0 if size == 4 else 2, bm, bj, 16, taps, stride)
            assert one.shared <= instances.SHARED_LIMIT


# ---- what they compute ---------------------------------------------------------------------------


@checks.emulated
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_forward(precision: str) -> None:
    outputs_hold(HALF, precision, Emulator())


# each layer in 32 or in 16 bits, those whose kernels take different ways in both
CASES = [(name, ("fp32", "bf16")[index % 2]) for index, name in enumerate(LAYERS)] + [
    ("half", "tf32"), ("half", "bf16"), ("half", "fp16"), ("odd channels", "fp32"),
    ("one pixel", "bf16"), ("sums in chunks", "tf32"), ("groups", "fp16"),
]  # fmt: skip


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_layers(name: str, precision: str) -> None:
    outputs_hold(LAYERS[name], precision, Emulator(seed=len(name)))
    gradients_hold(LAYERS[name], precision, Emulator(seed=len(name) + 1))


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("c", [16, 48, 8])
def test_blocks_walk_over_tiles(precision: str, c: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few blocks for many tiles: weights that stay (c = 16), that alternate (48), chunks (8)."""
    monkeypatch.setattr(instances, "WIDE_ENOUGH", 3)
    layer = replace(HALF, C=96 if c != 16 else 32, c=c, batch=3, height=17)
    for seed in (1, 2):
        outputs_hold(layer, precision, Emulator(seed))
        gradients_hold(layer, precision, Emulator(seed))


@checks.emulated
def test_gradient_of_alpha_is_deterministic() -> None:
    x, weight, dy, _ = HALF.inputs("bf16")
    first, second = (
        cuda.weight_gradient(dy, x, weight.shape, Numbers(3), run=Emulator(seed)) for seed in (1, 2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(("offset", "channels", "copy"), [(0, 32, 16), (1, 32, 2), (0, 12, 8)])
def test_copies_are_aligned(offset: int, channels: int, copy: int) -> None:
    memory = torch.empty(channels * 4 + offset, dtype=torch.bfloat16)[offset:]
    assert cuda_launches.bytes_of_copy(memory.view(1, channels, 2, 2), 1, 0) == copy


@pytest.mark.parametrize("shape", [(0, 8, 5, 5), (0, 8, 1, 1)])
def test_an_empty_batch_launches_nothing(shape: tuple[int, ...]) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("launched")

    x, weight = torch.ones(shape), torch.ones(4, 4, 2, 2)
    y = cuda.forward(x, weight, Numbers(3), run=never)
    assert y.shape == (0, 4, *shape[2:])
    assert cuda.input_gradient(y, weight, shape, Numbers(3), run=never).shape == shape
    assert not cuda.weight_gradient(y, x, weight.shape, Numbers(3), run=never).any()


def test_why_not() -> None:
    x, weight, three = torch.ones(1, 8, 5, 5), torch.ones(4, 4, 2, 2), Numbers(3)
    assert cuda.why_not(x, weight, three) is None
    for call, words in (
        ((x, weight, Numbers(3, stride=3)), "valid are 1 and 2"),
        ((x, weight, Numbers(3, dilation=2)), "dilation 2"),
        ((x[..., None], weight, three), "5 axes"),
        ((x.double(), weight.double(), three), "float64"),
        ((x, weight.half(), three), "equal types"),
        ((x, torch.ones(4, 4, 6, 6), Numbers(7)), "side 7"),
    ):
        assert words in (cuda.why_not(*call) or "")
    with pytest.raises(ValueError, match="valid are 1 and 2"):
        cuda.forward(x, weight, Numbers(3, stride=4))
    with pytest.raises(ValueError, match="valid are fp32, tf32"):
        cuda.forward(x, weight, Numbers(3), precision="half")


# ---- seeded bugs ---------------------------------------------------------------------------------

WAIT = "copy_wait<0>();\n        __syncthreads();  // raw chunk"
ARRIVED = (
    "__syncthreads();  // raw chunk and weights are here; products of the stage before are done"
)
SUMMED = "__syncthreads();  // the sums are here; the raw chunk is free"
DEEP = Layer(96, 16, 56, batch=1, height=9, width=17)  # fills, then four chunks of sums in fp32
MUTANTS = {
    "missing wait": (WAIT, WAIT.replace("copy_wait<0>();", "")),
    "weights not awaited": (WAIT, WAIT.replace("<0>", "<1>")),
    "missing barrier after the wait": (ARRIVED, ""),
    "missing barrier before the products": (SUMMED, ""),
    "halo off by one": ("left * STRIDE - padding}", "left * STRIDE - padding + 1}"),
    "missing zero fill": (
        "bool inside = (unsigned)h < (unsigned)source.height &&",
        "bool inside = (unsigned)h <= (unsigned)source.height &&",
    ),
    "transposed taps": ("ty = tap / TAPS, tx = tap % TAPS", "tx = tap / TAPS, ty = tap % TAPS"),
    "divergent barrier": (SUMMED, "if (threadIdx.x < 128) __syncthreads();\nelse __syncthreads();"),
    "channels leave late": ("source, k * CHUNK, kept)", "source, k * CHUNK - 4, kept)"),
    "window not filled": ("if (k < 0) fill_windows", "if (k < -1) fill_windows"),
}  # fmt: skip
GRADIENT_MUTANTS = {
    "gradient: wait": ("copy_wait<1>(); }\n    else", "copy_wait<2>(); }\n    else"),
    "gradient: last stage not awaited": ("else copy_wait<0>();", ""),
    "gradient: stage not here": ("__syncthreads();  // this stage is here", ""),
    "gradient: stage not free": ("__syncthreads();  // this stage is free", ""),
    "gradient: transposed taps": (
        "(y * STRIDE + tap / TAPS) * SUM_W + x * STRIDE + tap % TAPS",
        "(y * STRIDE + tap % TAPS) * SUM_W + x * STRIDE + tap / TAPS",
    ),
    "gradient: missing zero fill": ("h < height && w < width &&", "h <= height && w < width &&"),
}
HARMLESS = {
    "structured": ("row / rows % SEGMENTS", "row / rows * 3 % SEGMENTS"),
    "gradient": ("ELEMENT_BYTES == 2 ? 16 : 32", "ELEMENT_BYTES == 2 ? 16 : 16"),
}


def bugs_show(run: Run) -> None:
    outputs_hold(DEEP, "fp32", run)


def gradient_bugs_show(run: Run) -> None:
    gradients_hold(Layer(16, 16, 16, batch=4, height=18, width=9), "fp32", run)


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name: str) -> None:
    assert checks.catches(bugs_show, [MUTANTS[name]], only="structured")


@checks.emulated
@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENT_MUTANTS)
def test_a_seeded_bug_of_the_gradient_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "WIDE_ENOUGH", 2)
    assert checks.catches(gradient_bugs_show, [GRADIENT_MUTANTS[name]], only="gradient")


@checks.emulated
@pytest.mark.slow
def test_a_harmless_change_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "WIDE_ENOUGH", 2)
    for seed in (1, 2, 3):
        assert checks.passes(bugs_show, Emulator(seed, (HARMLESS["structured"],), "structured"))
        assert checks.passes(
            gradient_bugs_show, Emulator(seed, (HARMLESS["gradient"],), "gradient")
        )


# ---- on a GPU ------------------------------------------------------------------------------------

WIDE = {
    f"{C} at {size}, c = C/{share}": Layer(C, C, C // share, batch=2, height=size, width=size)
    for C, size in ((16, 128), (32, 64), (64, 64), (128, 32), (256, 32), (512, 16))
    for share in (2, 4)
}


@checks.on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("precision", checks.PRECISIONS)
    @pytest.mark.parametrize("name", [*LAYERS, *WIDE])
    def test_layers(self, name: str, precision: str) -> None:
        layer = (LAYERS | WIDE)[name]
        outputs_hold(layer, precision, launch, "cuda")
        gradients_hold(layer, precision, launch, "cuda")

    def test_slices(self) -> None:
        x, weight, _, _ = Layer(64, 32, 16).inputs("fp32")
        part = x.cuda()[:, ::2, 1:, :-2]
        y = cuda.forward(part, weight.cuda(), Numbers(3))
        assert checks.max_error(y, structured(part.double().cpu(), weight.double(), 3)) <= 1e-5

    def test_an_odd_address(self) -> None:
        x, weight, _, reference = HALF.inputs("bf16")
        memory = torch.empty(x.numel() + 1, dtype=x.dtype, device="cuda")[1:]
        moved = memory.view(2, 19, 21, 32).permute(0, 3, 1, 2).copy_(x)
        y = cuda.forward(moved, weight.cuda(), Numbers(3))
        assert checks.max_error(y, reference) <= checks.output_gate("bf16", 32)

    def test_any_stream(self) -> None:
        x, weight, _, reference = HALF.inputs("bf16")
        x, weight = x.cuda(), weight.cuda()
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            y = cuda.forward(x, weight, Numbers(3))
        torch.cuda.synchronize()
        assert checks.max_error(y, reference) <= checks.output_gate("bf16", 32)
