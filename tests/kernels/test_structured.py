"""Structured and composite convolution against the dense convolution with the summed basis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kernels.structured.composite import composite
from kernels.structured.decompose import band, compose, decompose, project, structural_penalty
from kernels.structured.reference import structured, structured_linear, sum_pool
from spaces.bases import registered

EXACT = {"rtol": 0.0, "atol": 1e-12}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def summed_basis(weight: Tensor, full: Sequence[int]) -> Tensor:
    """sum over m of alpha_m beta_m, each beta_m a cuboid of ones put in its place by a loop.

    weight: (F, c, n, ...). full: (C, N, ...).
    """
    kept = weight.shape[1:]
    kernel = torch.zeros(len(weight), *full, dtype=weight.dtype)
    for corner in np.ndindex(*kept):
        cuboid = tuple(
            slice(at, at + size - less + 1)
            for at, size, less in zip(corner, full, kept, strict=True)
        )
        for f in range(len(weight)):
            kernel[(f, *cuboid)] += weight[(f, *corner)]
    return kernel


@st.composite
def configurations(draw_: st.DrawFn) -> dict[str, int]:
    per_group, kernel = draw_(st.integers(1, 6)), draw_(st.integers(1, 5))
    dilation = draw_(st.integers(1, 3))
    padding = draw_(st.integers(0, 4))
    span = dilation * (kernel - 1) + 1
    smallest = max(1, span - 2 * padding)
    return {
        "groups": draw_(st.integers(1, 3)),
        "per_group": per_group,
        "out_per_group": draw_(st.integers(1, 3)),
        "kernel": kernel,
        "c": draw_(st.integers(1, per_group)),
        "n": draw_(st.integers(1, kernel)),
        "height": draw_(st.integers(smallest, smallest + 4)),
        "width": draw_(st.integers(smallest, smallest + 5)),
        "stride": draw_(st.integers(1, 3)),
        "dilation": dilation,
        "padding": padding,
        "seed": draw_(st.integers(0, 1000)),
    }


@settings(max_examples=150, deadline=None)
@given(configurations())
def test_the_decomposition_is_exact(a: dict[str, int]) -> None:
    groups, seed = a["groups"], a["seed"]
    x = draw(2, groups * a["per_group"], a["height"], a["width"], seed=seed)
    weight = draw(groups * a["out_per_group"], a["c"], a["n"], a["n"], seed=seed + 1)
    kernel = summed_basis(weight, (a["per_group"], a["kernel"], a["kernel"]))
    moves = {key: a[key] for key in ("stride", "padding", "dilation")}
    expected = functional.conv2d(x, kernel, groups=groups, **moves)
    actual = structured(x, weight, a["kernel"], groups, **moves)
    torch.testing.assert_close(actual, expected, **EXACT)


@pytest.mark.parametrize(("c", "n"), [(1, 1), (2, 2), (4, 2), (3, 3)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_kernels_in_three_dimensions(c: int, n: int, stride: int, dilation: int) -> None:
    x, weight = draw(2, 4, 5, 6, 7), draw(3, c, n, n, n, seed=1)
    kernel = summed_basis(weight, (4, 3, 3, 3))
    expected = functional.conv3d(x, kernel, stride=stride, padding=dilation, dilation=dilation)
    actual = structured(x, weight, 3, stride=stride, dilation=dilation)
    torch.testing.assert_close(actual, expected, **EXACT)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_linear_layers(rank: int) -> None:
    x, weight = draw(5, 7), draw(4, rank, seed=1)
    expected = x @ summed_basis(weight, (7,)).T
    torch.testing.assert_close(structured_linear(x, weight), expected, **EXACT)


def test_the_sums_stand_on_h_plus_2p_minus_d_times_n_minus_n() -> None:
    padded = draw(1, 6, 9 + 2 * 4, 8 + 2 * 4)
    assert sum_pool(padded, 3, 2, groups=1, dilation=3).shape == (1, 4, 14, 13)
    assert sum_pool(padded, 2, 2, groups=2, dilation=3).shape == (1, 4, 14, 13)


def test_gradients() -> None:
    x, weight = draw(1, 4, 3, 4).requires_grad_(), draw(2, 1, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: structured(*a, 3, 2, 2, 2), (x, weight))
    masks = registered("fig1c").entries
    alpha = draw(2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: composite(*a, masks, 1, 3, 2), (x, alpha))


# ---- composite kernels -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fig1a", "fig1b", "fig1c"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_composite_kernel_is_the_sum_of_its_masks(name: str, stride: int, dilation: int) -> None:
    basis = registered(name)
    x, weight = draw(2, 5, 6, 7), draw(4, 5, len(basis.masks), seed=1)
    masks = torch.tensor(basis.masks[:, 0], dtype=torch.float64)
    kernel = torch.einsum("fcm,myx->fcyx", weight, masks)
    expected = functional.conv2d(x, kernel, stride=stride, padding=dilation, dilation=dilation)
    actual = composite(x, weight, basis.entries, 1, 3, stride, dilation)
    torch.testing.assert_close(actual, expected, **EXACT)


def test_masks_over_several_channels_repeat_over_consecutive_ones() -> None:
    masks = np.random.default_rng(0).random((5, 3, 3, 3)) < 0.5
    entries = [[tuple(at) for at in np.argwhere(mask).tolist()] for mask in masks]
    x, weight = draw(2, 6, 4, 5), draw(4, 2, 5, seed=1)
    kernel = torch.einsum("fbm,mcyx->fbcyx", weight, torch.tensor(masks).double()).flatten(1, 2)
    expected = functional.conv2d(x, kernel, padding=1)
    torch.testing.assert_close(composite(x, weight, entries, 3, 3), expected, **EXACT)


def test_figure_1_b_is_structured() -> None:
    x, weight = draw(2, 4, 5, 6), draw(3, 4, 2, 2, seed=1)
    masks = registered("fig1b").entries
    torch.testing.assert_close(
        composite(x, weight.reshape(3, 4, 4), masks, 1, 3), structured(x, weight, 3), **EXACT
    )


# ---- from dense kernels and back ---------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.data())
def test_decompose_undoes_compose(channels: int, kernel: int, data: st.DataObject) -> None:
    c, n = data.draw(st.integers(1, channels)), data.draw(st.integers(1, kernel))
    weight = draw(3, c, n, n, seed=c + n)
    dense = compose(weight, channels, kernel)
    torch.testing.assert_close(dense, summed_basis(weight, (channels, kernel, kernel)), **EXACT)
    torch.testing.assert_close(decompose(dense, c, n), weight, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shape", "c", "n"), [
    ((3, 4, 3, 3), 2, 2), ((5, 4, 1, 1), 3, 1), ((2, 1, 5, 5), 1, 3), ((2, 3, 3, 3, 3), 2, 2),
    ((6, 9), 4, 1),
])  # fmt: skip
def test_decomposition_is_the_least_squares_one(shape: tuple[int, ...], c: int, n: int) -> None:
    dense = draw(*shape)
    kept = (c, *(n,) * (len(shape) - 2))
    columns = torch.eye(int(np.prod(kept)), dtype=torch.float64).reshape(-1, *kept)
    matrix = summed_basis(columns, shape[1:]).flatten(1).T
    best = torch.linalg.lstsq(matrix, dense.flatten(1).T).solution.T.reshape(shape[0], *kept)
    torch.testing.assert_close(decompose(dense, c, n), best, rtol=0, atol=1e-10)
    nearest = project(dense, c, n)
    torch.testing.assert_close(nearest, summed_basis(best, shape[1:]), rtol=0, atol=1e-10)
    torch.testing.assert_close(project(nearest, c, n), nearest, rtol=0, atol=1e-10)


def test_the_penalty_is_the_share_that_is_not_structured() -> None:
    dense, other = draw(4, 6, 3, 3), draw(5, 8, 1, 1, seed=1)
    expected = sum(
        (kernel - project(kernel, c, n)).norm() / kernel.norm()
        for kernel, c, n in ((dense, 3, 2), (other, 4, 1))
    )
    penalty = structural_penalty([(dense, 3, 2), (other, 4, 1)])
    torch.testing.assert_close(penalty, torch.as_tensor(expected))
    inside = project(dense, 3, 2)
    assert structural_penalty([(inside, 3, 2)]) < 1e-14
    assert structural_penalty([(torch.zeros(2, 3, 3, 3), 2, 2)]) == 0
    with pytest.raises(ValueError, match="no layer"):
        structural_penalty([])


def test_descent_on_the_penalty_structures_a_kernel() -> None:
    dense = draw(4, 6, 3, 3).requires_grad_()
    optimizer = torch.optim.SGD([dense], lr=10)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    before = float(structural_penalty([(dense, 3, 2)]).detach())
    for _ in range(150):
        optimizer.zero_grad()
        structural_penalty([(dense, 3, 2)]).backward()
        optimizer.step()
        schedule.step()
    after = float(structural_penalty([(dense, 3, 2)]).detach())
    assert before > 0.5
    assert after < 0.1 * before
    assert dense.detach().norm() > 1


def test_a_range_that_cannot_be_kept_is_named() -> None:
    with pytest.raises(ValueError, match="5 of 4 cannot be kept; valid are 1 to 4"):
        band(4, 5)
