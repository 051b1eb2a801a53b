"""Topological subdivisioning and single intra-channel convolutions against loops."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
from torch.nn import functional

from kernels.factorized.reference import neighbours, single_intra_channel, topological
from kernels.linear_mix.reference import linear_mix

GRIDS = [
    ((6,), (4,)),
    ((2, 3), (1, 2)),
    ((3, 4), (2, 3)),
    ((2, 3), (2, 3)),
    ((2, 2, 3), (1, 2, 2)),
    ((2, 2, 2, 2), (1, 2, 1, 2)),
]
every_grid = pytest.mark.parametrize(("grid", "near"), GRIDS)


def flat(cell: tuple[int, ...], grid: tuple[int, ...]) -> int:
    """The channel at a cell, row by row."""
    index = 0
    for at, size in zip(cell, grid, strict=True):
        index = index * size + at % size
    return index


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def dense(weight: torch.Tensor, grid: tuple[int, ...], near: tuple[int, ...]) -> torch.Tensor:
    """Equation 8: K(u, v, i_1 .. i_s, j_1 .. j_s) at its place in the full (F, C, k, k)."""
    channels = prod(grid)
    full = torch.zeros(channels, channels, *weight.shape[-2:], dtype=weight.dtype)
    for cell in product(*map(range, grid)):
        for number, offset in enumerate(product(*map(range, near))):
            source = tuple(j + i for j, i in zip(cell, offset, strict=True))
            full[flat(cell, grid), flat(source, grid)] = weight[flat(cell, grid), number]
    return full


@every_grid
def test_an_output_reads_the_neighbours_that_follow_it(
    grid: tuple[int, ...], near: tuple[int, ...]
) -> None:
    reads = neighbours(grid, near)
    assert reads.shape == (prod(grid), prod(near))
    for cell in product(*map(range, grid)):
        offsets = product(*map(range, near))
        expected = [flat(tuple(j + i for j, i in zip(cell, o, strict=True)), grid) for o in offsets]
        assert reads[flat(cell, grid)].tolist() == expected
        assert len(set(expected)) == prod(near)


@every_grid
@pytest.mark.parametrize("k", [1, 3, 5])
def test_it_is_the_dense_convolution_without_the_other_weights(
    grid: tuple[int, ...], near: tuple[int, ...], k: int
) -> None:
    weight, x = normal(prod(grid), prod(near), k, k), normal(2, prod(grid), 4, 3, seed=1)
    expected = functional.conv2d(x, dense(weight, grid, near), padding=k // 2)
    assert torch.allclose(topological(x, weight, grid, near), expected, rtol=0, atol=1e-12)


@every_grid
def test_the_projection_of_sic_may_be_subdivided(
    grid: tuple[int, ...], near: tuple[int, ...]
) -> None:
    channels = prod(grid)
    x, spatial = normal(2, channels, 4, 3, seed=1), normal(channels, 1, 3, 3, seed=2)
    projection = normal(channels, prod(near), 1, 1)
    found = single_intra_channel(x, spatial, projection, True, grid, near)
    full = dense(projection, grid, near)
    expected = single_intra_channel(x, spatial, full)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_sic_is_filter_projection_and_input() -> None:
    x, spatial, projection = normal(2, 4, 5, 3), normal(4, 1, 5, 5, seed=1), normal(4, 4, 1, 1)
    kernel = projection * spatial.transpose(0, 1)
    plain = functional.conv2d(x, kernel, padding=2)
    assert torch.allclose(single_intra_channel(x, spatial, projection), plain + x)
    assert torch.allclose(single_intra_channel(x, spatial, projection, residual=False), plain)
    narrow = single_intra_channel(x, spatial, projection[:2], residual=False)
    assert torch.allclose(narrow, plain[:, :2])


def test_linear_mix_is_the_masked_dense_convolution() -> None:
    """Equation 7: stencils on the diagonal, whose centre the diagonal of M adds to."""
    x, spatial, mixing = normal(2, 4, 5, 3), normal(4, 1, 3, 3, seed=1), normal(4, 4, 1, 1)
    kernel = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    kernel[range(4), range(4)] = spatial[:, 0]
    kernel[..., 1, 1] += mixing[..., 0, 0]
    expected = functional.conv2d(x, kernel, padding=1)
    assert torch.allclose(linear_mix(x, spatial, mixing), expected, rtol=0, atol=1e-12)
