"""Reaction-diffusion steps and block-circulant convolutions against dense matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.diffusion import fourier, operation, reference, stability
from kernels.implementation import KernelError

SIZES = [(5, 7), (8, 8), (6, 1), (3, 2), (1, 1)]
SHAPES = [(channels, k) for channels in (1, 3, 4) for k in (1, 3, 5)]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)
every_shape = pytest.mark.parametrize(("channels", "k"), SHAPES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def matrix(function: object, channels: int, size: tuple[int, int]) -> Tensor:
    """The matrix of a linear function on one image, found from the unit images."""
    n = channels * size[0] * size[1]
    units = torch.eye(n, dtype=torch.float64).reshape(n, channels, *size)
    return function(units).flatten(1).T  # type: ignore[operator]


def tap_by_tap(x: Tensor, kernel: Tensor, *, wraps: bool) -> Tensor:
    """K_dw x by its definition, one product at a time."""
    out = torch.zeros_like(x)
    _, channels, height, width = x.shape
    half = kernel.shape[-1] // 2
    for c in range(channels):
        for y in range(height):
            for z in range(width):
                for dy in range(-half, half + 1):
                    for dz in range(-half, half + 1):
                        row, column = y + dy, z + dz
                        if wraps:
                            row, column = row % height, column % width
                        elif not (0 <= row < height and 0 <= column < width):
                            continue
                        tap = kernel[c, 0, dy + half, dz + half]
                        out[:, c, y, z] += tap * x[:, c, row, column]
    return out


# ---- the definitions -----------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_explicit_step_uses_the_true_adjoint(size: tuple[int, int], k: int) -> None:
    kernel, y, reaction = normal(2, 1, k, k), normal(3, 2, *size, seed=1), normal(3, 2, *size)
    dense = matrix(lambda x: tap_by_tap(x, kernel, wraps=False), 2, size)
    expected = y.flatten(1) + 0.5 * (reaction.flatten(1) - y.flatten(1) @ dense.T @ dense)
    found = reference.explicit(y, reaction, kernel, 0.5)
    assert torch.allclose(found.flatten(1), expected, rtol=0, atol=1e-10)


@every_size
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_implicit_step_solves_the_periodic_system(size: tuple[int, int], k: int) -> None:
    kernel, y, reaction = normal(2, 1, k, k), normal(3, 2, *size, seed=1), normal(3, 2, *size)
    dense = matrix(lambda x: tap_by_tap(x, kernel, wraps=True), 2, size)
    found = reference.implicit(y, reaction, kernel, 0.5).flatten(1)
    system = torch.eye(len(dense), dtype=torch.float64) + 0.5 * dense.T @ dense
    right = (y + 0.5 * reaction).flatten(1)
    assert torch.allclose(found @ system.T, right, rtol=0, atol=1e-10)


@every_size
@every_shape
def test_block_i_j_of_the_circulant_is_stencil_j_minus_i(
    size: tuple[int, int], channels: int, k: int
) -> None:
    kernel, n = normal(channels, k, k), size[0] * size[1]
    found = matrix(lambda x: reference.circulant(x, kernel), channels, size)
    for i in range(channels):
        for j in range(channels):
            stencil = kernel[(j - i) % channels].reshape(1, 1, k, k)
            block = matrix(lambda x, s=stencil: tap_by_tap(x, s, wraps=True), 1, size)
            assert torch.allclose(found[i * n : (i + 1) * n, j * n : (j + 1) * n], block)


@every_size
@every_shape
def test_the_circulant_step_uses_the_true_adjoint(
    size: tuple[int, int], channels: int, k: int
) -> None:
    kernel, y = normal(channels, k, k), normal(2, channels, *size, seed=1)
    dense = matrix(lambda x: reference.circulant(x, kernel), channels, size)
    reaction = normal(2, channels, *size, seed=2)
    expected = y.flatten(1) + 0.25 * (reaction.flatten(1) - y.flatten(1) @ dense.T @ dense)
    found = reference.circulant_explicit(y, reaction, kernel, 0.25)
    assert torch.allclose(found.flatten(1), expected, rtol=0, atol=1e-10)


# ---- the transform against the definition --------------------------------------------------------


@every_size
@every_shape
def test_the_transforms_give_the_direct_result(
    size: tuple[int, int], channels: int, k: int
) -> None:
    y, reaction = normal(2, channels, *size, seed=1), normal(2, channels, *size, seed=2)
    own, circulant = normal(channels, 1, k, k), normal(channels, k, k)
    for step in (1.0, 0.5):
        for fast, direct, kernel in (
            (fourier.implicit, reference.implicit, own),
            (fourier.circulant_explicit, reference.circulant_explicit, circulant),
        ):
            expected = direct(y, reaction, kernel, step)
            assert (fast(y, reaction, kernel, step) - expected).abs().max() < 1e-10
    expected = reference.circulant(y, circulant)
    assert (fourier.circulant(y, circulant) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["implicit", "circulant_explicit"])
def test_the_gradients_of_the_transforms_are_right(name: str) -> None:
    shape = (3, 1, 3, 3) if name == "implicit" else (3, 3, 3)
    inputs = (normal(1, 3, 3, 4), normal(1, 3, 3, 4, seed=1), normal(*shape, seed=2))
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(getattr(fourier, name), inputs)


def test_the_gradient_at_a_zero_of_the_transfer_function_is_finite() -> None:
    kernel = torch.tensor([[0.0, 0, 0], [0, 1, -1], [0, 0, 0]], dtype=torch.float64)
    kernel = kernel.reshape(1, 1, 3, 3).requires_grad_()
    fourier.implicit(normal(1, 1, 4, 4), normal(1, 1, 4, 4), kernel).sum().backward()
    assert kernel.grad is not None and kernel.grad.isfinite().all()


# ---- stability -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("circulant", [False, True])
@pytest.mark.parametrize("step", [1e-3, 1.0, 1e4])
def test_the_radii_are_those_of_the_dense_matrices(seed: int, circulant: bool, step: float) -> None:
    size, channels = (4, 5), 3
    kernel = normal(*((channels, 3, 3) if circulant else (channels, 1, 3, 3)), seed=seed)
    if circulant:
        k = matrix(lambda x: reference.circulant(x, kernel), channels, size)
    else:
        k = matrix(lambda x: reference.periodic(x, kernel, channels), channels, size)
    eigenvalues = torch.linalg.eigvalsh(k.T @ k)
    explicit = float((1 - step * eigenvalues).abs().max())
    implicit = float((1 / (1 + step * eigenvalues)).max())
    assert stability.explicit_radius(kernel, step, size) == pytest.approx(explicit, rel=1e-9)
    assert stability.implicit_radius(kernel, step, size) == pytest.approx(implicit, rel=1e-9)
    assert stability.implicit_radius(kernel, step, size) < 1
    assert stability.is_explicit_stable(kernel, step, size) == (explicit <= 1 + 1e-12)


def test_the_implicit_step_is_stable_where_the_explicit_one_explodes() -> None:
    """Repeated diffusion with K K' far above 2 / h: one norm falls, the other grows."""
    kernel, size = 3 * normal(2, 1, 3, 3), (6, 6)
    explicit = implicit = normal(1, 2, *size, seed=3)
    start, still = explicit.norm(), torch.zeros(1, 2, *size, dtype=torch.float64)
    assert not stability.is_explicit_stable(kernel, 1.0, size)
    for _ in range(20):
        explicit = reference.explicit(explicit, still, kernel)
        after = fourier.implicit(implicit, still, kernel)
        assert after.norm() < implicit.norm()
        implicit = after
    assert explicit.norm() > 1e6 * start


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e6])
def test_the_radius_is_one_exactly_at_a_zero_of_the_transfer_function(step: float) -> None:
    """A difference lets constants pass: its transfer function is 0 at frequency 0."""
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 1, 1], kernel[0, 0, 1, 2] = 1, -1
    assert stability.implicit_radius(kernel, step, (5, 4)) == 1
    kernel[0, 0, 1, 2] = -0.999
    assert stability.implicit_radius(kernel, step, (5, 4)) < 1


def test_the_limit_of_the_explicit_step_is_two() -> None:
    kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    kernel[0, 0, 1, 1] = 1
    for step, stable in ((2.0, True), (2.0 + 1e-9, False)):
        assert stability.is_explicit_stable(kernel, step, (4, 4)) is stable
        assert (stability.explicit_radius(kernel, step, (4, 4)) <= 1) is stable


def test_zero_padding_has_a_smaller_norm_than_the_periodic_map() -> None:
    for seed in range(10):
        kernel = normal(1, 1, 3, 3, seed=seed)
        padded = matrix(lambda x, k=kernel: tap_by_tap(x, k, wraps=False), 1, (5, 4))
        supremum = stability.power(kernel, (128, 128)).max()
        assert torch.linalg.matrix_norm(padded, 2) ** 2 <= supremum * (1 + 1e-3)


@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (6, 3, 3), (6, 1, 7, 7), (16, 5, 5)])
def test_the_bound_holds_on_maps_of_any_size(shape: tuple[int, ...]) -> None:
    for seed in range(5):
        kernel = normal(*shape, seed=seed)
        scaled = kernel / stability.bound(kernel)
        for size in ((1, 1), (2, 3), (7, 5), (32, 32)):
            assert stability.power(scaled, size).max() <= 1 + 1e-12
        assert stability.power(scaled, (64, 64)).max() > 0.1


KINDS = {
    "explicit": ((6, 1, 3, 3), reference.explicit, operation.stable_explicit),
    "circulant": ((6, 3, 3), fourier.circulant_explicit, operation.stable_circulant_explicit),
}
KINDS_OF = {"explicit": operation.EXPLICIT, "circulant": operation.CIRCULANT_EXPLICIT}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("step", [1e-3, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("scale", [0.02, 30.0])
def test_a_stable_step_is_stable_whatever_its_kernel(kind: str, step: float, scale: float) -> None:
    shape = KINDS[kind][0]
    for seed in range(5):
        kernel = scale * normal(*shape, seed=seed)
        scaled = stability.stable(kernel, step)
        for size in ((1, 1), (2, 3), (32, 32)):
            assert step * stability.power(scaled, size).max() <= 2 + 1e-12
        inside = (stability.bound(kernel) ** 2 * step <= 2).expand(shape)
        assert torch.equal(scaled[inside], kernel[inside])
        assert ((scaled - kernel).abs()[~inside] > 0).all()


@every_kind
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_every_implementation_of_a_stable_step(kind: str, last: bool, scale: float) -> None:
    """Result and gradients are those of the definition in float64, and of the step as it is where
    the kernel needs no scaling."""
    shape, plain, function = KINDS[kind]
    y, reaction, dy = (normal(2, 6, 5, 8, seed=seed) for seed in (1, 2, 3))
    given = [y, reaction, scale * normal(*shape)]
    exact = [one.clone().requires_grad_() for one in given]
    expected = function.definition(*exact, 0.5)
    gradients = torch.autograd.grad(expected, exact, dy)
    step = plain(*given, 0.5)
    assert bool((step - expected).abs().max() < 1e-12) == (scale < 1)
    single = [one.float() for one in given]
    if last:
        single[:2] = (one.contiguous(memory_format=torch.channels_last) for one in single[:2])
    ways = KINDS_OF[kind].able((*single, 0.5))
    assert ways[-1].name == "torch"
    for way in ways:
        found = [one.clone().requires_grad_() for one in single]
        out = function(*found, 0.5, backend=way.name)
        assert (out - expected).abs().max() <= 1e-5 * expected.abs().max(), way.name
        for one, gradient in zip(
            torch.autograd.grad(out, found, dy.float()), gradients, strict=True
        ):
            assert (one - gradient).norm() <= 1e-5 * gradient.norm(), way.name


@every_kind
def test_a_step_back_in_time_is_refused(kind: str) -> None:
    shape, _, function = KINDS[kind]
    y = normal(1, 6, 4, 4)
    with pytest.raises(KernelError, match="no kernel is stable below 0"):
        function(y, y, normal(*shape), -1.0)
    with pytest.raises(KernelError, match="valid is"):
        function(y, y, normal(5, 4, 3), 1.0)


@every_kind
def test_gradients_flow_through_the_bound(kind: str) -> None:
    for scale in (0.05, 3.0):
        kernel = (scale * normal(*KINDS[kind][0], seed=4)).requires_grad_()
        assert torch.autograd.gradcheck(lambda k: stability.stable(k, 1.0), kernel)


@every_kind
def test_training_at_a_high_rate_keeps_the_step_stable(kind: str) -> None:
    """Towards -3 y, which asks for h |K^|^2 = 4: only the scaled step stays within its limit."""
    shape, plain, function = KINDS[kind]
    y = normal(4, 6, 8, 8)
    still = torch.zeros_like(y)

    def trained(step: Callable[..., Tensor]) -> Tensor:
        kernel = normal(*shape, seed=1)
        kernel = (kernel / stability.bound(kernel)).requires_grad_()
        optimiser = torch.optim.Adam([kernel], lr=0.3)
        for _ in range(30):
            optimiser.zero_grad()
            (step(y, still, kernel, 1.0) + 3 * y).square().mean().backward()
            optimiser.step()
        return kernel.detach()

    assert not stability.is_explicit_stable(trained(plain), 1.0, (8, 8))
    kernel = trained(function)
    assert kernel.isfinite().all()
    assert stability.explicit_radius(stability.stable(kernel, 1.0), 1.0, (8, 8)) <= 1 + 1e-12
    out = y
    for _ in range(100):
        out = function(out, still, kernel, 1.0)
    assert out.norm() <= y.norm() * (1 + 1e-9)
