"""Lean convolution against the dense convolution whose kernel is zero outside the stencil."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernels.lean.reference import lean, lean_depthwise
from spaces.operators.lean import STENCILS

SEVEN = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
"""The outer taps of the 7-point stencil."""
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))
    )


def dense(centre: Tensor, outer: Tensor, taps: tuple[tuple[int, ...], ...], groups: int) -> Tensor:
    """The kernel (F, C, k, ..., k) with k = 2 max|t| + 1 that does the same."""
    features, channels = centre.shape
    reach = max(abs(step) for tap in taps for step in tap)
    space = len(taps[0])
    kernel = torch.zeros(features, channels, *(2 * reach + 1,) * space, dtype=centre.dtype)
    kernel[(slice(None), slice(None), *(reach,) * space)] = centre
    per_output, per_input = features // groups, channels // groups
    for tap, weight in zip(taps, outer, strict=True):
        at = tuple(reach + step for step in tap)
        for f in range(features):
            first = f // per_output * per_input
            kernel[(f, slice(first, first + per_input), *at)] = weight[f]
    return kernel


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_it_is_the_dense_convolution_without_the_other_taps(
    stencil: str, groups: int, stride: int, dilation: int
) -> None:
    taps = tuple((dilation * row, dilation * column) for row, column in STENCILS[stencil])
    x, centre, outer = draw(2, 4, 7, 5), draw(8, 4), draw(len(taps), 8, 4 // groups)
    kernel = dense(centre, outer, taps, groups)
    expected = functional.conv2d(x, kernel, stride=stride, padding=dilation)
    torch.testing.assert_close(
        lean(x, centre, outer, taps, groups, stride), expected, rtol=0, atol=1e-12
    )


def test_seven_points_in_three_dimensions() -> None:
    x, centre, outer = draw(2, 4, 3, 5, 4), draw(6, 4), draw(6, 6, 2)
    for stride in (1, 2):
        expected = functional.conv3d(
            x, dense(centre, outer, SEVEN, 2), stride=stride, padding=1
        )  # fmt: skip
        torch.testing.assert_close(
            lean(x, centre, outer, SEVEN, 2, stride), expected, rtol=0, atol=1e-12
        )


def test_a_transposed_write_swaps_the_axes_of_the_map() -> None:
    x, centre, outer = draw(2, 4, 7, 5), draw(6, 4), draw(2, 6, 2)
    plain = lean(x, centre, outer, STENCILS["1x3"], 2)
    written = lean(x, centre, outer, STENCILS["1x3"], 2, transposed=True)
    assert written.shape == (2, 6, 5, 7)
    assert written.is_contiguous()
    assert torch.equal(written, plain.mT)


def test_two_transposed_writes_are_1x3_then_3x1() -> None:
    x = draw(2, 4, 7, 5)
    first, second = (draw(6, 4), draw(2, 6, 2)), (draw(4, 6), draw(2, 4, 3))
    row, column = STENCILS["1x3"], STENCILS["3x1"]
    pair = lean(lean(x, *first, row, 2), *second, column, 2)
    once = lean(x, *first, row, 2, transposed=True)
    torch.testing.assert_close(
        lean(once, *second, row, 2, transposed=True), pair, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("channels", "features"), [(8, 12), (12, 8), (7, 3), (3, 7), (4, 8), (8, 4)]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_between_different_widths(channels: int, features: int, stride: int) -> None:
    taps = STENCILS["5"]
    wide = max(channels, features)
    x, centre, outer = draw(2, channels, 5, 4), draw(features, channels), draw(len(taps), wide)
    kernel = torch.zeros(features, channels, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, 1] = centre
    for lane in range(wide):
        source, target = lane * channels // wide, lane * features // wide
        for tap, weight in zip(taps, outer, strict=True):
            kernel[target, source, 1 + tap[0], 1 + tap[1]] = weight[lane]
    expected = functional.conv2d(x, kernel, stride=stride, padding=1)
    actual = lean_depthwise(x, centre, outer, taps, stride)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_where_one_width_divides_the_other_depthwise_is_the_grouped_form() -> None:
    taps = STENCILS["9"]
    x, centre, outer = draw(1, 4, 5, 4), draw(8, 4), draw(8, 8)
    torch.testing.assert_close(
        lean_depthwise(x, centre, outer, taps), lean(x, centre, outer[..., None], taps, 4)
    )


def test_gradients() -> None:
    taps = STENCILS["5"]
    x, centre, outer = draw(1, 4, 3, 4), draw(2, 4), draw(4, 2, 2)
    inputs = tuple(t.requires_grad_() for t in (x, centre, outer))
    assert torch.autograd.gradcheck(lambda *a: lean(*a, taps, 2, 2, True), inputs)
    lanes = draw(4, 4).requires_grad_()
    uneven = (draw(1, 4, 3, 4).requires_grad_(), draw(3, 4).requires_grad_(), lanes)
    assert torch.autograd.gradcheck(lambda *a: lean_depthwise(*a, taps), uneven)
