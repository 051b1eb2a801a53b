"""From an operation of torch through its "cuda" implementation to the kernels, in the emulator.

The kernels have tests of their own; here the way to them is held to the definition in float64:
order of arguments, which gradient belongs to which tensor, types, layouts, refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from emulator import checks
from emulator.emulator import Emulator
from torch import Tensor

from kernels import choice
from kernels.backends import MissingComponentError, backend
from kernels.cuda.adapt import precision, why_not_device
from kernels.cuda.source import Run
from kernels.diffusion import gpu as diffusion
from kernels.diffusion.operation import CIRCULANT, EXPLICIT, IMPLICIT, explicit, implicit
from kernels.factorized import gpu as factorized
from kernels.factorized.operation import (
    SINGLE_INTRA_CHANNEL,
    TOPOLOGICAL,
    single_intra_channel,
    topological,
)
from kernels.implementation import Implementation, KernelError
from kernels.lean import gpu as lean_gpu
from kernels.lean.operation import LEAN, lean
from kernels.linear_mix.operation import linear_mix
from kernels.operation import Operation
from kernels.structured import gpu as structured_gpu
from kernels.structured.operation import STRUCTURED, structured

torch.set_num_threads(1)
MAKERS: dict[str, tuple[Operation, Callable[[Run], Implementation]]] = {
    "lean": (LEAN, lean_gpu.implementation),
    "structured": (STRUCTURED, structured_gpu.implementation),
    "single_intra_channel": (SINGLE_INTRA_CHANNEL, factorized.single_intra_channel),
    "topological": (TOPOLOGICAL, factorized.topological),
    "explicit": (EXPLICIT, diffusion.explicit),
    "implicit": (IMPLICIT, diffusion.implicit),
}
NINE = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
FIVE = ((-1, 0), (0, -1), (0, 1), (1, 0))


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ "cuda" serves tensors of the CPU, by the emulator, and needs no CuPy."""
    for operation, make in MAKERS.values():
        way = replace(make(Emulator()), devices=("cpu",), component="")
        monkeypatch.setitem(operation.implementations, "cuda", way)
    with choice.frozen({}):
        yield


class Case(NamedTuple):
    """A call by name: the function, tensors by shape, numbers."""

    function: Callable[..., Tensor]
    shapes: dict[str, tuple[int, ...]]
    numbers: dict[str, Any]

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(0)
        made = {
            name: torch.randn(shape, generator=draw, dtype=torch.float64) / 2
            for name, shape in self.shapes.items()
        }
        return {
            name: (one.to(dtype, memory_format=torch.channels_last) if one.dim() == 4 else one)
            .to(dtype)
            .requires_grad_()
            for name, one in made.items()
        }

    def __call__(self, tensors: dict[str, Tensor], **more: Any) -> Tensor:
        return self.function(**tensors, **self.numbers, **more)


X = (2, 12, 5, 7)
LATE = ("structured with stride", "linear_mix")  # kernels that no other case compiles
CASES = {
    "lean": Case(
        lean,
        {
            "x": X,
            "centre": (12, 12),
            "outer": (8, 12, 3),
            "bias": (12,),
            "scale": (12,),
            "shift": (12,),
            "residual": (2, 12, 7, 5),
        },
        {"taps": NINE, "groups": 4, "transposed": True, "relu": True},
    ),
    "lean to another width": Case(
        lean,
        {"x": X, "centre": (8, 12), "outer": (4, 8, 3), "bias": (8,)},
        {"taps": FIVE, "groups": 4},
    ),
    "linear_mix": Case(
        linear_mix, {"x": X, "spatial": (12, 1, 3, 3), "mixing": (12, 12, 1, 1)}, {}
    ),
    "structured": Case(structured, {"x": X, "weight": (8, 4, 2, 2)}, {"kernel": 3, "groups": 2}),
    "structured with stride": Case(
        structured, {"x": X, "weight": (8, 6, 2, 2)}, {"kernel": 3, "stride": 2, "padding": 0}
    ),
    "single_intra_channel": Case(
        single_intra_channel,
        {"x": X, "spatial": (12, 1, 3, 3), "projection": (12, 12, 1, 1)},
        {},
    ),
    "single_intra_channel on a grid": Case(
        single_intra_channel,
        {"x": X, "spatial": (12, 1, 3, 3), "projection": (12, 4, 1, 1)},
        {"residual": False, "grid": (3, 4), "near": (2, 2)},
    ),
    "topological": Case(
        topological, {"x": X, "weight": (12, 4, 3, 3)}, {"grid": (3, 4), "near": (2, 2)}
    ),
    "explicit": Case(explicit, {"y": X, "reaction": X, "kernel": (12, 1, 3, 3)}, {"step": 0.4}),
    "implicit": Case(implicit, {"y": X, "reaction": X, "kernel": (12, 1, 3, 3)}, {"step": 0.4}),
}


@checks.emulated
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LATE else ()) for name in CASES],
)
@pytest.mark.usefixtures("on_cpu")
def test_output_and_every_gradient(name: str) -> None:
    case = CASES[name]
    given = case.tensors(torch.float32)
    double = {key: one.detach().double().requires_grad_() for key, one in given.items()}
    expected = case(double, backend="torch")
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    choice.record(clear=True)
    y = case(given, backend="cuda")
    assert checks.max_error(y.detach(), expected.detach()) <= checks.output_gate("fp32", 12)
    found = torch.autograd.grad(y, list(given.values()), dy)
    gradients = torch.autograd.grad(expected, list(double.values()), dy.double())
    for key, one, other in zip(given, found, gradients, strict=True):
        assert checks.rms_error(one, other) <= checks.GRADIENT_GATE["fp32"], key
    operation = "lean" if name == "linear_mix" else name.split()[0]
    assert choice.record() == {operation: ["cuda"], f"{operation} backward": ["cuda"]}


@pytest.mark.slow
@checks.emulated
@pytest.mark.usefixtures("on_cpu")
def test_half_precision_gives_gradients_in_the_type_of_the_weights() -> None:
    case = CASES["linear_mix"]
    given = case.tensors(torch.bfloat16)
    double = {key: one.detach().double().requires_grad_() for key, one in given.items()}
    y, expected = case(given, backend="cuda"), case(double, backend="torch")
    assert checks.max_error(y.detach(), expected.detach()) <= checks.output_gate("bf16", 12)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = torch.autograd.grad(y, list(given.values()), dy)
    gradients = torch.autograd.grad(expected, list(double.values()), dy.double())
    for one, other in zip(found, gradients, strict=True):
        assert one.dtype == torch.bfloat16
        assert checks.rms_error(one, other) <= checks.GRADIENT_GATE["bf16"]


@checks.emulated
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", ["lean to another width", "explicit", "structured"])
def test_as_an_operator_of_torch(name: str) -> None:
    """The way of torch.compile: fake, autograd and kernel agree on layouts, types and gradients."""
    case = CASES[name]
    given = {
        key: one.detach().contiguous().requires_grad_()
        for key, one in case.tensors(torch.float32).items()
    }

    def call(*tensors: Tensor) -> Tensor:
        return case(dict(zip(given, tensors, strict=True)), backend="cuda")

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for one, other in zip(compiled(*given.values()), call(*given.values()), strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
    found, expected = (
        torch.autograd.grad(run(*given.values()).square().sum(), list(given.values()))
        for run in (compiled, call)
    )
    for one, other in zip(found, expected, strict=True):
        assert checks.rms_error(one, other.double()) <= 1e-6


@checks.emulated
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", CASES)
def test_only_what_is_asked_for_and_the_layout_of_x(name: str) -> None:
    case = CASES[name]
    given = {key: one.detach().contiguous() for key, one in case.tensors(torch.float32).items()}
    last = list(given)[-1]
    given[last].requires_grad_()
    y = case(given, backend="cuda")
    assert y.is_contiguous()
    (found,) = torch.autograd.grad(y.sum(), [given[last]])
    double = {key: one.detach().double() for key, one in given.items()}
    double[last].requires_grad_()
    (expected,) = torch.autograd.grad(case(double, backend="torch").sum(), [double[last]])
    assert checks.rms_error(found, expected) <= checks.GRADIENT_GATE["fp32"]


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_nothing_needs_no_launch(name: str) -> None:
    case = CASES[name]
    given = {
        key: one.detach()[:0].requires_grad_() if key in ("x", "y", "reaction", "residual") else one
        for key, one in case.tensors(torch.float32).items()
    }
    y = case(given, backend="cuda")
    assert y.shape[0] == 0
    for one, tensor in zip(
        torch.autograd.grad(y.sum(), list(given.values())), given.values(), strict=True
    ):
        assert one.shape == tensor.shape and not one.abs().sum()


X64 = torch.zeros(1, 4, 3, 65)
REFUSED: dict[str, tuple[str, Callable[[str], Tensor]]] = {
    "lean, float64": (
        "lean convolution of torch.float64",
        lambda backend: lean(
            torch.zeros(1, 4, 3, 3, dtype=torch.float64),
            *(torch.zeros(s, dtype=torch.float64) for s in ((4, 4), (8, 4, 1))),
            NINE,
            4,
            backend=backend,
        ),
    ),
    "lean, stride": (
        "stride 2; valid is 1",
        lambda backend: lean(
            X64, torch.zeros(4, 4), torch.zeros(8, 4, 1), NINE, 4, 2, backend=backend
        ),
    ),
    "structured, dilation": (
        "dilation 2; valid is 1",
        lambda backend: structured(X64, torch.zeros(4, 2, 2, 2), 3, dilation=2, backend=backend),
    ),
    "sic, stencil": (
        "9 x 9 stencil",
        lambda backend: single_intra_channel(
            X64, torch.zeros(4, 1, 9, 9), torch.zeros(4, 4, 1, 1), backend=backend
        ),
    ),
    "implicit, large map": (
        "valid are maps of up to 64 x 64",
        lambda backend: implicit(X64, X64, torch.zeros(4, 1, 3, 3), backend=backend),
    ),
}


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_an_error_by_name_and_another_serves_otherwise(name: str) -> None:
    message, call = REFUSED[name]
    with pytest.raises(KernelError, match=message + r".*valid here: .*torch"):
        call("cuda")
    choice.forget_reasons()
    call("auto")
    assert any(message.split(";")[0] in reason for reason in choice.reasons().values())


def test_nothing_takes_the_place_of_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    if backend("cupy").serves:
        pytest.skip("CuPy serves here")
    case = CASES["explicit"]
    given = {key: one.detach() for key, one in case.tensors(torch.float32).items()}
    way = replace(EXPLICIT.implementations["cuda"], devices=("cpu",))  # as if x lay on a GPU
    monkeypatch.setitem(EXPLICIT.implementations, "cuda", way)
    with choice.frozen({}):
        for asked in ("auto", "cuda"):
            with pytest.raises(MissingComponentError, match=r"cupy .*pip install"):
                case(given, backend=asked)
        assert case(given, backend="torch").shape == X


def test_it_serves_no_tensor_of_the_cpu() -> None:
    case = CASES["explicit"]
    given = {key: one.detach() for key, one in case.tensors(torch.float32).items()}
    with pytest.raises(KernelError, match="cuda serves cuda, not cpu"):
        case(given, backend="cuda")
    assert "cuda" not in CIRCULANT.implementations


@pytest.mark.parametrize(
    ("major", "shared", "reason"),
    [
        (9, 227 * 1024, None),
        (8, 163 * 1024, None),
        (8, 99 * 1024, "gives a block 101376 bytes of shared memory; the tiles need 163840"),
        (7, 96 * 1024, "has compute capability 7.5; valid are 8.0 on"),
    ],
)
def test_which_gpus_it_serves(
    major: int, shared: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(name="GPU", major=major, minor=5, shared_memory_per_block_optin=shared)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    x: Any = SimpleNamespace(device=torch.device("cuda"))
    said = why_not_device(x)
    assert said is None if reason is None else said is not None and reason in said
    assert why_not_device(torch.zeros(1)) is None


def test_it_comes_first() -> None:
    assert all(next(iter(operation.implementations)) == "cuda" for operation, _ in MAKERS.values())


def test_float32_is_computed_as_torch_may(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    try:
        for value, expected in (("ieee", "fp32"), ("tf32", "tf32")):
            setattr(matmul, name, value if name == "fp32_precision" else value == "tf32")
            assert precision() == expected
    finally:
        setattr(matmul, name, before)
