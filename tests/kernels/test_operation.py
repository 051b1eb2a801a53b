"""What every operation of torch here has in common: gradients, compilation, autocast, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kernels import choice
from kernels.backends import MissingComponentError
from kernels.diffusion.operation import (
    CIRCULANT,
    CIRCULANT_EXPLICIT,
    EXPLICIT,
    IMPLICIT,
    circulant,
    circulant_explicit,
    explicit,
    implicit,
)
from kernels.factorized.operation import (
    SINGLE_INTRA_CHANNEL,
    TOPOLOGICAL,
    single_intra_channel,
    topological,
)
from kernels.lean.operation import LEAN, lean
from kernels.lean.reference import lean as defined_lean
from kernels.linear_mix.operation import linear_mix
from kernels.operation import Implementation, KernelError, Operation
from kernels.structured.operation import STRUCTURED, structured
from nas.candidates import Candidate, Task
from spaces.design import parse
from spaces.operators.lean import STENCILS

torch.set_num_threads(1)
CROSS = STENCILS["5"]
LAST, FIRST = torch.channels_last, torch.contiguous_format


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    """No choice depends on how busy the machine is."""
    with choice.frozen({}):
        yield


class Case(NamedTuple):
    """A call of an operation: its tensors by shape, its numbers, the raw operator's arguments."""

    operation: Operation
    function: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    numbers: dict[str, Any]
    raw: tuple[Any, ...]
    missing: int = 0

    def tensors(self, dtype: torch.dtype = torch.float32, layout: Any = LAST) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        made = [torch.randn(shape, generator=draw, dtype=dtype) / 3 for shape in self.shapes]
        made[0] = made[0].to(memory_format=layout)
        return [t.requires_grad_() for t in made]

    def __call__(self, *tensors: Tensor, **more: Any) -> Tensor:
        return self.function(*tensors, **self.numbers, **more)

    def operator(self, tensors: list[Tensor], backend: str) -> tuple[Any, ...]:
        """The arguments of leanfield::<name>."""
        return (*tensors, *[None] * self.missing, *self.raw, backend)


def cases() -> dict[str, Case]:
    flat = [step for tap in CROSS for step in tap]
    x = (2, 6, 5, 4)
    return {
        "lean depthwise": Case(
            LEAN,
            lean,
            (x, (6, 6), (4, 6, 1)),
            {"taps": CROSS, "groups": 6},
            (flat, 6, 1, False, False),
            4,
        ),
        "lean in groups": Case(
            LEAN,
            lean,
            (x, (4, 6), (4, 4, 3)),
            {"taps": CROSS, "groups": 2, "stride": 2},
            (flat, 2, 2, False, False),
            4,
        ),
        "structured": Case(
            STRUCTURED, structured, (x, (4, 3, 2, 2)), {"kernel": 3}, (3, 1, 1, 1, 1)
        ),
        "sic": Case(
            SINGLE_INTRA_CHANNEL,
            single_intra_channel,
            (x, (6, 1, 3, 3), (6, 6, 1, 1)),
            {},
            (True, [], []),
        ),
        "topological": Case(
            TOPOLOGICAL,
            topological,
            (x, (6, 2, 3, 3)),
            {"grid": (2, 3), "near": (1, 2)},
            ([2, 3], [1, 2]),
        ),
        "explicit": Case(EXPLICIT, explicit, (x, x, (6, 1, 3, 3)), {"step": 0.5}, (0.5,)),
        "implicit": Case(IMPLICIT, implicit, (x, x, (6, 1, 3, 3)), {"step": 0.5}, (0.5,)),
        "circulant": Case(CIRCULANT, circulant, (x, (6, 3, 3)), {}, ()),
        "circulant explicit": Case(
            CIRCULANT_EXPLICIT, circulant_explicit, (x, x, (6, 3, 3)), {"step": 0.5}, (0.5,)
        ),
    }


CASES = cases()
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def near(actual: Tensor, expected: Tensor, bound: float = 3e-6) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= bound * expected.abs().max().clamp_min(1e-30)


# ---- as an operator of torch ---------------------------------------------------------------------


@pytest.mark.slow
@each
@pytest.mark.parametrize("layout", [LAST, FIRST], ids=["last", "first"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_opcheck(case: Case, layout: Any, backend: str) -> None:
    torch.library.opcheck(
        case.operation.operator, case.operator(case.tensors(layout=layout), backend)
    )


@pytest.mark.slow
def test_opcheck_with_all_that_lean_can_fuse() -> None:
    draw = torch.Generator().manual_seed(1)
    sizes = ((2, 6, 5, 4), (6, 6), (4, 6, 1), (6,), (6,), (6,), (2, 6, 4, 5))
    given = [torch.randn(size, generator=draw).requires_grad_() for size in sizes]
    flat = [step for tap in CROSS for step in tap]
    torch.library.opcheck(LEAN.operator, (*given, flat, 6, 1, True, True, "auto"))


@each
def test_both_ways_give_the_same(case: Case) -> None:
    """Eagerly and through the dispatcher, outputs and gradients."""
    given = case.tensors()
    eager = case(*given)
    dispatched = case.operation.operator(*case.operator(given, "auto"))
    assert torch.equal(eager, dispatched)
    dy = torch.randn_like(eager)
    for one, other in zip(
        torch.autograd.grad(eager, given, dy),
        torch.autograd.grad(dispatched, given, dy),
        strict=True,
    ):
        near(one, other)


@each
def test_gradcheck(case: Case) -> None:
    assert torch.autograd.gradcheck(case, case.tensors(torch.float64))


@each
def test_gradients_of_the_operator_in_double_precision(case: Case) -> None:
    given = case.tensors(torch.float64)

    def call(*tensors: Tensor) -> Tensor:
        y: Tensor = case.operation.operator(*case.operator(list(tensors), "auto"))
        return y

    assert torch.autograd.gradcheck(call, given)


@each
@pytest.mark.parametrize("layout", [LAST, FIRST], ids=["last", "first"])
def test_the_result_lies_as_the_input_does(case: Case, layout: Any) -> None:
    y = case.operation.operator(*case.operator(case.tensors(layout=layout), "auto"))
    assert y.is_contiguous(memory_format=layout)


@each
@pytest.mark.parametrize(
    "compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_compiled(case: Case, compiler: str) -> None:
    given = case.tensors()
    torch.compiler.reset()
    compiled = torch.compile(case.__call__, backend=compiler, fullgraph=True)
    y, expected = compiled(*given), case(*given)
    near(y, expected)
    dy = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(y, given, dy), torch.autograd.grad(expected, given, dy), strict=True
    ):
        near(one, other)


def of_operators(design: str) -> nn.Module:
    """A small network of blocks of this design."""
    return Candidate(parse(design), (1, 1)).sized(Task((3, 8, 8), 4), 16).module(seed=0)


@pytest.mark.parametrize(
    "design", ["LEAN(q=1,s=5)+STRUCT(c=1/2,n=2)+SIC", "RD+LEAN(q=1)", "IRD+LEAN(q=1)"]
)
def test_a_compiled_network_gives_the_same(design: str) -> None:
    network = of_operators(design)
    x = torch.randn(4, 3, 8, 8).to(memory_format=LAST)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    expected = network.train()(x)
    near(compiled(x), expected, 1e-5)


@each
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16])
def test_autocast(case: Case, lower: torch.dtype) -> None:
    """In the lower precision, but where that makes no sense; gradients in that of the weights."""
    given = case.tensors()
    expected = case(*given)
    with torch.autocast("cpu", lower):
        y = case(*given)
        dispatched = case.operation.operator(*case.operator(given, "auto"))
    assert y.dtype == dispatched.dtype == (torch.float32 if case.operation.exact else lower)
    near(y.float(), expected, 3e-2)
    near(dispatched.float(), expected, 3e-2)
    gradients = torch.autograd.grad(y.float().sum(), given)
    assert all(g.dtype == torch.float32 for g in gradients)


def test_a_network_trains_under_autocast() -> None:
    torch.manual_seed(0)
    network = of_operators("LEAN(q=1)+STRUCT(c=1/2,n=2)")
    x, target = torch.randn(8, 3, 8, 8).to(memory_format=LAST), torch.randn(8, 4)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (network(x).float() - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@each
def test_flops_are_those_of_the_definition(case: Case) -> None:
    given = case.tensors()
    counts = []
    for function in (lambda: case(*given), lambda: case(*given, backend="torch")):
        with FlopCounterMode(display=False) as counter:
            function()
        counts.append(counter.get_total_flops())
    with FlopCounterMode(display=False) as counter:
        case.operation.composed(*case.operator(given, "")[:-1]) if case.operation is not LEAN else (
            defined_lean(*given, **case.numbers)
        )
    assert counts == [counter.get_total_flops()] * 2


# ---- implementations -----------------------------------------------------------------------------


def able() -> Iterator[tuple[str, str, Any]]:
    for name, case in CASES.items():
        for layout in (LAST, FIRST):
            given = [t.detach() for t in case.tensors(layout=layout)]
            raw = [tuple(v) if isinstance(v, list) else v for v in case.operator(given, "")[:-1]]
            for way in case.operation.able(tuple(raw)):
                yield name, way.name, layout


@pytest.mark.parametrize(("name", "backend", "layout"), list(able()))
def test_every_implementation_agrees_with_the_definition(
    name: str, backend: str, layout: Any
) -> None:
    case = CASES[name]
    given = case.tensors(layout=layout)
    double = [t.detach().double().requires_grad_() for t in given]
    expected = case(*double, backend="torch")
    dy = torch.randn(expected.shape)
    y = case(*given, backend=backend)
    near(y, expected)
    gradients = torch.autograd.grad(expected, double, dy.double())
    for one, other in zip(torch.autograd.grad(y, given, dy), gradients, strict=True):
        near(one, other)
        assert one.dtype == torch.float32


@each
def test_only_the_gradients_that_are_asked_for(case: Case) -> None:
    given = case.tensors()
    expected = torch.autograd.grad(case(*given).sum(), given)
    for i, wanted in enumerate(expected):
        alone = [t.detach().requires_grad_(i == j) for j, t in enumerate(given)]
        (found,) = torch.autograd.grad(case(*alone).sum(), [alone[i]])
        near(found, wanted)


@each
def test_inputs_that_are_no_dense_maps(case: Case) -> None:
    """A slice of channels, a turned map, a gradient that is one number everywhere."""
    given = [t.detach() for t in case.tensors()]
    x = given[0]
    wide = torch.randn(x.shape[0], 2 * x.shape[1], *x.shape[2:]).to(memory_format=LAST)
    turned = torch.randn(*x.shape[:2], x.shape[3], x.shape[2]).mT
    for odd in (wide[:, ::2], wide[:, : x.shape[1]], turned, x.flip(0)[::1]):
        own, dense = odd.requires_grad_(), odd.detach().contiguous().requires_grad_()
        y, expected = case(own, *given[1:]), case(dense, *given[1:])
        near(y, expected)
        (one,), (other,) = (
            torch.autograd.grad(result.sum(), [start])
            for result, start in ((y, own), (expected, dense))
        )
        near(one, other)


def test_plain_torch_is_differentiable_twice() -> None:
    case = CASES["lean depthwise"]

    def call(*tensors: Tensor) -> Tensor:
        return case(*tensors, backend="torch")

    assert torch.autograd.gradgradcheck(call, case.tensors(torch.float64))


def test_which_one_served_is_on_record() -> None:
    case = CASES["lean in groups"]
    choice.record(clear=True)
    case(*case.tensors())
    case(*case.tensors(), backend="torch")
    assert choice.record() == {"lean": ["convolution", "torch"]}
    assert "stride 2" in choice.reasons()["lean by llvm"]


def test_a_call_can_be_sent_to_one_back_end() -> None:
    case = CASES["sic"]
    choice.record(clear=True)
    with choice.using("torch"):
        y = case(*case.tensors())
    assert choice.record() == {"single_intra_channel": ["torch"]}
    assert torch.equal(y, case(*case.tensors(), backend="torch"))


# ---- out= ----------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("layout", [LAST, FIRST], ids=["last", "first"])
def test_the_result_goes_where_it_is_wanted(case: Case, layout: Any) -> None:
    given = [t.detach() for t in case.tensors()]
    expected = case(*given)
    out = torch.full(expected.shape, float("nan")).to(memory_format=layout)
    assert case(*given, out=out) is out
    assert torch.equal(out, expected)


def test_what_out_cannot_be() -> None:
    case = CASES["lean depthwise"]
    given = [t.detach() for t in case.tensors()]
    with pytest.raises(KernelError, match=r"out is .*\(1, 6, 5, 4\).*valid is \(2, 6, 5, 4\)"):
        case(*given, out=torch.empty(1, 6, 5, 4))
    with pytest.raises(KernelError, match="shares memory with an input"):
        case(*given, out=given[0])
    with pytest.raises(KernelError, match="takes no part in gradients"):
        case(*case.tensors(), out=torch.empty(2, 6, 5, 4))


# ---- refusals ------------------------------------------------------------------------------------


@each
def test_a_batch_of_nothing(case: Case) -> None:
    given = case.tensors()
    size = given[0].shape[1:]
    empty = [
        t.detach().new_empty((0, *size)).requires_grad_() if t.shape[1:] == size and i < 2 else t
        for i, t in enumerate(given)
    ]
    y = case(*empty)
    assert y.shape[0] == 0 and y.shape[1:] == case(*given).shape[1:]
    gradients = torch.autograd.grad(y.sum(), empty)
    assert all(not g.abs().sum() for g in gradients)
    assert [g.shape for g in gradients] == [t.shape for t in empty]


@each
def test_types_and_devices_that_cannot_be(case: Case) -> None:
    given = [t.detach() for t in case.tensors()]
    with pytest.raises(TypeError, match=r"int64.*valid are floating-point"):
        case(*(t.long() for t in given))
    with pytest.raises(TypeError, match=r"float64.*float32.*one type for all"):
        case(given[0], *(t.double() for t in given[1:]))
    with pytest.raises(KernelError, match=r"meta.*cpu.*one device for all"):
        case(given[0], *(t.to("meta") for t in given[1:]))
    with pytest.raises(KernelError, match=r"unknown back end 'fast'.*valid are auto"):
        case(*given, backend="fast")
    with pytest.raises((KernelError, TypeError)):
        case(given[0][0], *given[1:])


LEAN_ERRORS = {
    r"centre is \(6, 5\); valid is \(F, 6\)": {"centre": (6, 5)},
    r"outer is \(3, 6, 1\); valid is \(4, 6, 1\)": {"outer": (3, 6, 1)},
    r"4 groups do not divide 6 channels": {"groups": 4},
    r"0 groups do not divide": {"groups": 0},
    r"-2 groups do not divide": {"groups": -2},
    r"stride 0; valid are 1 and more": {"stride": 0},
    r"there are no taps": {"taps": (), "outer": (0, 6, 1)},
    r"tap \(0, 0, 1\) on 2 axes": {"taps": ((0, 0, 1),)},
    r"bias is \(5,\); valid is \(6,\)": {"bias": (5,)},
    r"scale is \(1, 6\); valid is \(6,\)": {"scale": (1, 6)},
    r"residual is \(2, 6, 4, 4\); valid is \(2, 6, 5, 4\)": {"residual": (2, 6, 4, 4)},
    r"serves cpu|keeps the map, stride 2 does not": {"stride": 2, "backend": "llvm"},
    r"generated code keeps the width": {"centre": (12, 6), "outer": (4, 12, 1), "backend": "llvm"},
}


@pytest.mark.parametrize(("message", "changes"), LEAN_ERRORS.items())
def test_lean_says_what_is_wrong(message: str, changes: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "x": (2, 6, 5, 4),
        "centre": (6, 6),
        "outer": (4, 6, 1),
        "taps": CROSS,
        "groups": 6,
    }
    asked |= changes
    tensors = ("x", "centre", "outer", "bias", "scale", "shift", "residual")
    made = {n: torch.zeros(v) if n in tensors else v for n, v in asked.items()}
    with pytest.raises(KernelError, match=message):
        lean(**made)


OTHER_ERRORS = {
    "weight is .* for a kernel of 1": lambda x: structured(x, torch.zeros(4, 3, 2, 2), 1),
    "c = 7 of 6 channels": lambda x: structured(x, torch.zeros(4, 7, 2, 2), 3),
    "stride -1": lambda x: structured(x, torch.zeros(4, 3, 2, 2), 3, 1, -1),
    "padding -1": lambda x: structured(x, torch.zeros(4, 3, 2, 2), 3, padding=-1),
    "is smaller than the kernel": lambda x: structured(x, torch.zeros(4, 3, 2, 2), 9, padding=0),
    "spatial is": lambda x: single_intra_channel(
        x, torch.zeros(6, 1, 2, 2), torch.zeros(6, 6, 1, 1)
    ),
    "6 channels cannot be added to 4": lambda x: single_intra_channel(
        x, torch.zeros(6, 1, 3, 3), torch.zeros(4, 6, 1, 1)
    ),
    r"grid \(2, 2\)": lambda x: topological(x, torch.zeros(6, 2, 3, 3), (2, 2), (1, 2)),
    r"neighbours \(1, 4\)": lambda x: topological(x, torch.zeros(6, 4, 3, 3), (2, 3), (1, 4)),
    "mixing is": lambda x: linear_mix(x, torch.zeros(6, 1, 3, 3), torch.zeros(6, 5, 1, 1)),
    "reaction is": lambda x: explicit(x, x[:1], torch.zeros(6, 1, 3, 3)),
    "kernel is": lambda x: circulant(x, torch.zeros(5, 3, 3)),
    "step -1": lambda x: implicit(x, x, torch.zeros(6, 1, 3, 3), -1.0),
}


@pytest.mark.parametrize(("message", "call"), OTHER_ERRORS.items())
def test_the_others_say_what_is_wrong(message: str, call: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(KernelError, match=message):
        call(torch.zeros(2, 6, 5, 4))


def test_a_component_that_is_missing_is_named_with_its_remedy() -> None:
    way = Implementation("needy", lambda x: x + 1, devices=("cpu",), component="cupy")
    operation = Operation(
        "needy", lambda x: x + 1, ("x",), (), lambda x: None, lambda x: x.shape, (way,)
    )
    with pytest.raises(MissingComponentError, match=r"cupy does not serve here.*pip install"):
        operation(torch.zeros(1))
    assert operation(torch.zeros(1), backend="torch").item() == 1


def test_the_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    choice.forget_reasons()
    case = CASES["lean in groups"]
    with caplog.at_level(logging.INFO, "leanfield.kernels"):
        for size in (2, 3):
            given = case.tensors()
            case(given[0][:, :, :, :size], *given[1:])
    assert len([r for r in caplog.records if "not served by llvm" in r.getMessage()]) == 1
