"""Lean and its kin on the CPU against the definition in double precision, on odd sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import choice
from kernels.factorized.operation import SINGLE_INTRA_CHANNEL, single_intra_channel
from kernels.jit import machine, maps
from kernels.jit.machine import vectors
from kernels.lean import reference
from kernels.lean.operation import LEAN, lean
from kernels.linear_mix.operation import linear_mix
from kernels.linear_mix.reference import linear_mix as defined_mix
from kernels.operation import KernelError
from spaces.operators.lean import STENCILS

torch.set_num_threads(1)
LAST, FIRST = torch.channels_last, torch.contiguous_format
BACKENDS = ("llvm", "onednn", "convolution")


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    """No choice depends on how busy the machine is."""
    with choice.frozen({}):
        yield


def near(actual: Tensor, expected: Tensor, channels: int) -> None:
    """max|err| / max|ref| <= 1e-6 sqrt(C)."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-20)
    assert error <= 1e-6 * max(channels, 9) ** 0.5


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compare(
    channels: int,
    features: int,
    groups: int,
    size: tuple[int, int],
    stencil: str,
    backend: str,
    layout: Any = LAST,
    batch: int = 2,
    fused: bool = False,
    transposed: bool = False,
    dilation: int = 1,
) -> None:
    """Output and every gradient of one call."""
    taps = tuple((dilation * i, dilation * j) for i, j in STENCILS[stencil])
    result = (batch, features, *(size[::-1] if transposed else size))
    given = {
        "x": drawn((batch, channels, *size), 0).to(memory_format=layout),
        "centre": drawn((features, channels), 1) / channels**0.5,
        "outer": drawn((len(taps), features, channels // groups), 2),
    }
    if fused:
        given |= {
            "bias": drawn((features,), 3),
            "scale": drawn((channels,), 4),
            "shift": drawn((channels,), 5),
            "residual": drawn(result, 6),
        }
    single = {name: t.requires_grad_() for name, t in given.items()}
    double = {name: t.detach().double().requires_grad_() for name, t in given.items()}
    y = lean(**single, taps=taps, groups=groups, transposed=transposed, relu=fused, backend=backend)
    x = double["x"]
    if fused:
        x = (x * double["scale"][:, None, None] + double["shift"][:, None, None]).relu()
    expected = reference.lean(
        x, double["centre"], double["outer"], taps, groups, transposed=transposed
    )
    if fused:
        expected = expected + double["bias"][:, None, None] + double["residual"]
    near(y, expected, channels)
    dy = drawn(result, 7)
    for one, other in zip(
        torch.autograd.grad(y, list(single.values()), dy),
        torch.autograd.grad(expected, list(double.values()), dy.double()),
        strict=True,
    ):
        near(one, other, channels)


SHAPES = [
    (16, 16, (9, 7)),
    (53, 53, (5, 6)),
    (48, 12, (1, 1)),
    (6, 3, (1, 5)),
    (24, 12, (4, 1)),
    (33, 33, (2, 2)),
    (64, 8, (3, 31)),
    (40, 5, (3, 3)),
]
"""(C, groups, (H, W))"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stencil", ["9", "5", "1x3", "3x1"])
@pytest.mark.parametrize(("channels", "groups", "size"), SHAPES)
def test_outputs_and_gradients(
    channels: int, groups: int, size: tuple[int, int], stencil: str, backend: str
) -> None:
    compare(channels, channels, groups, size, stencil, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_everything_fused(backend: str, transposed: bool) -> None:
    for channels, groups, size in SHAPES[:5]:
        compare(channels, channels, groups, size, "9", backend, fused=True, transposed=transposed)


@pytest.mark.parametrize("backend", ["llvm", "convolution"])
def test_channels_first(backend: str) -> None:
    compare(20, 20, 10, (5, 7), "9", backend, FIRST, fused=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dilation", [2, 3])
def test_dilated_taps_on_a_small_map(backend: str, dilation: int) -> None:
    for size in ((4, 5), (7, 2), (1, 1)):
        compare(17, 17, 17, size, "9", backend, dilation=dilation)


@pytest.mark.parametrize("backend", ["onednn", "convolution"])
def test_a_width_that_changes(backend: str) -> None:
    compare(12, 20, 4, (5, 4), "5", backend)
    compare(20, 12, 2, (5, 4), "9", backend, fused=True)


def test_generated_code_serves_groups_that_divide_a_vector() -> None:
    lanes = vectors().lanes
    for size in (1, 2, 4):
        compare(3 * lanes, 3 * lanes, 3 * lanes // size, (4, 6), "5", "llvm")
    with pytest.raises(KernelError, match="groups that divide"):
        compare(30, 30, 10, (4, 6), "5", "llvm")


def test_a_prologue_leaves_the_outside_at_zero() -> None:
    """relu(x scale + shift) is not zero where x is: the border must not see the shift."""
    x, centre = torch.zeros(1, 16, 3, 3).to(memory_format=LAST), torch.zeros(16, 16)
    outer, shift = torch.ones(8, 16, 1), torch.ones(16)
    for backend in BACKENDS:
        y = lean(x, centre, outer, STENCILS["9"], 16, shift=shift, relu=True, backend=backend)
        assert y[0, 0].tolist() == [[3, 5, 3], [5, 8, 5], [3, 5, 3]]


def test_many_pixels_lose_no_accuracy() -> None:
    """The gradients of the weights sum over 2^15 pixels."""
    compare(16, 16, 16, (64, 64), "9", "llvm", batch=8)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_the_output_and_repeat_their_gradients(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "GRAIN", 1)
    if maps.why_not(torch.zeros(1, 1, 1, 1)):
        pytest.skip("no generated code here")
    given = [drawn(s, i) for i, s in enumerate([(3, 24, 19, 11), (24, 24), (8, 24, 1)])]
    given = [t.to(memory_format=LAST) if t.dim() == 4 else t for t in given]
    given = [t.requires_grad_() for t in given]

    def found() -> list[Tensor]:
        y = lean(*given, STENCILS["9"], 24, backend="llvm")
        return [y, *torch.autograd.grad(y.square().sum(), given)]

    once = found()
    torch.set_num_threads(threads)
    try:
        several = [found() for _ in range(4)]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(several[0][0], once[0])
    for one, other in itertools.product(several, several):
        assert all(map(torch.equal, one, other))
    for one, other in zip(several[0], once, strict=True):
        near(one, other.double(), 24)


@pytest.mark.parametrize("threads", [1, 2])
def test_small_work_is_for_one_thread(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread for each GRAIN of products, and no more than there are shares of the map."""
    if maps.why_not(torch.zeros(1, 1, 1, 1)):
        pytest.skip("no generated code here")
    teams: list[int] = []
    monkeypatch.setattr(
        machine.Compiled, "__call__", lambda _, threads, **__: teams.append(threads)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    stencil, x = torch.zeros(8, 64, 1), torch.zeros(1, 64, 32, 32)
    maps.mixed(x, None, stencil, STENCILS["9"])
    maps.mixed(x, torch.zeros(64, 64), None)
    maps.weight_gradients(x, x, STENCILS["9"])
    maps.weight_gradients(x[:, :, :8, :8], x[:, :, :8, :8])
    wide = torch.zeros(1, 512, 4, 4)
    maps.weight_gradients(wide, wide)
    assert teams == [1, threads, threads, 1, 1]


def test_what_lies_beside_the_result_is_not_touched() -> None:
    """Partial vectors at the end of rows: canaries around memory that is given."""
    for channels in (5, 16, 53):
        x = drawn((2, channels, 3, 5), 0).to(memory_format=LAST)
        count = x.numel()
        room = torch.full((count + 64,), 7.0)
        out = room[32 : 32 + count].view(2, 3, 5, channels).permute(0, 3, 1, 2)
        lean(
            x,
            drawn((channels, channels), 1),
            drawn((8, channels, 1), 2),
            STENCILS["9"],
            channels,
            backend="llvm",
            out=out,
        )
        assert (room[:32] == 7).all() and (room[32 + count :] == 7).all()
        assert (room[32 : 32 + count] != 7).all()


def test_an_infinite_pixel_stays_within_its_stencil() -> None:
    """Nothing outside the map is read and multiplied by zero."""
    x = drawn((1, 16, 5, 5), 0).to(memory_format=LAST)
    x[0, :, 4, 0] = float("inf")
    centre = torch.zeros(16, 16)
    y = lean(x, centre, torch.ones(4, 16, 1), STENCILS["5"], 16, backend="llvm")
    around = torch.isfinite(y[0, 0]).logical_not()
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[3, 0] = expected[4, 1] = expected[4, 0] = True  # at its own pixel by 0 times infinity
    assert torch.equal(around, expected)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("backend", ["auto", "llvm", "torch"])
def test_linear_mix(kernel: int, backend: str) -> None:
    for channels, size in ((20, (5, 3)), (16, (1, 1)), (53, (4, 7))):
        given = [
            drawn((2, channels, *size), 0).to(memory_format=LAST),
            drawn((channels, 1, kernel, kernel), 1),
            drawn((channels, channels, 1, 1), 2) / channels**0.5,
        ]
        single = [t.requires_grad_() for t in given]
        double = [t.detach().double().requires_grad_() for t in given]
        y, expected = linear_mix(*single, backend=backend), defined_mix(*double)
        near(y, expected, channels)
        for one, other in zip(
            torch.autograd.grad(y.sum(), single),
            torch.autograd.grad(expected.sum(), double),
            strict=True,
        ):
            near(one, other, channels)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_single_intra_channel_convolution_that_changes_the_width(kernel: int) -> None:
    for channels, features, size in ((20, 7, (5, 3)), (7, 40, (1, 1)), (16, 16, (2, 9))):
        single = [
            drawn((2, channels, *size), 0).to(memory_format=LAST).requires_grad_(),
            drawn((channels, 1, kernel, kernel), 1).requires_grad_(),
            (drawn((features, channels, 1, 1), 2) / channels**0.5).requires_grad_(),
        ]
        double = [t.detach().double().requires_grad_() for t in single]
        y = single_intra_channel(*single, residual=channels == features, backend="llvm")
        expected = SINGLE_INTRA_CHANNEL.composed(*double, channels == features, (), ())
        near(y, expected, channels)
        dy = drawn(tuple(y.shape), 3)
        for one, other in zip(
            torch.autograd.grad(y, single, dy),
            torch.autograd.grad(expected, double, dy.double()),
            strict=True,
        ):
            near(one, other, channels)


def test_lean_and_its_definition_have_one_name() -> None:
    assert lean.definition is reference.lean
    assert list(LEAN.implementations) == ["cuda", "llvm", "onednn", "convolution", "torch"]
