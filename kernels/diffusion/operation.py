"""Steps of diffusion and block-circulant convolutions as operators of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kernels.diffusion import fourier, gpu, reference, stability
from kernels.diffusion.cpu import CIRCULANT_DENSE, EXPLICIT_LLVM
from kernels.factorized.operation import check_map, check_stencil
from kernels.operation import KernelError, Operation, defined_by


@defined_by(reference.explicit)
def explicit(
    y: Tensor,
    reaction: Tensor,
    kernel: Tensor,
    step: float = 1.0,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """y + h (reaction - K'K y), zero padding. y, reaction: (N, C, H, W). kernel: (C, 1, k, k)."""
    return EXPLICIT(y, reaction, kernel, step, backend=backend, out=out)


@defined_by(fourier.implicit)
def implicit(
    y: Tensor,
    reaction: Tensor,
    kernel: Tensor,
    step: float = 1.0,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(I + h K'K)^-1 (y + h reaction), periodic; shapes as `explicit`."""
    return IMPLICIT(y, reaction, kernel, step, backend=backend, out=out)


@defined_by(fourier.circulant)
def circulant(
    x: Tensor, kernel: Tensor, *, backend: str = "auto", out: Tensor | None = None
) -> Tensor:
    """K_circ x: block (i, j) is kernel[(j - i) mod C]. x: (N, C, H, W). kernel: (C, k, k)."""
    return CIRCULANT(x, kernel, backend=backend, out=out)


@defined_by(fourier.circulant_explicit)
def circulant_explicit(
    y: Tensor,
    reaction: Tensor,
    kernel: Tensor,
    step: float = 1.0,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """y + h (reaction - K_circ' K_circ y), periodic. kernel: (C, k, k)."""
    return CIRCULANT_EXPLICIT(y, reaction, kernel, step, backend=backend, out=out)


@defined_by(stability.stable_explicit)
def stable_explicit(
    y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0, *, backend: str = "auto"
) -> Tensor:
    """`explicit` by a kernel that is scaled back to h max |K^|^2 <= 2; as it is within a bound."""
    return _stable(EXPLICIT, y, reaction, kernel, step, backend)


@defined_by(stability.stable_circulant_explicit)
def stable_circulant_explicit(
    y: Tensor, reaction: Tensor, kernel: Tensor, step: float = 1.0, *, backend: str = "auto"
) -> Tensor:
    """`circulant_explicit` by a kernel that is scaled back, as that of `stable_explicit`."""
    return _stable(CIRCULANT_EXPLICIT, y, reaction, kernel, step, backend)


def _stable(
    operation: Operation, y: Tensor, reaction: Tensor, kernel: Tensor, step: float, backend: str
) -> Tensor:
    """Scaled in plain torch, whatever serves the step: k^2 C numbers."""
    operation.check(y, reaction, kernel, step)
    if step < 0:
        raise KernelError(
            f"{operation.name}: step {step}; no kernel is stable below 0; valid are 0 and more"
        )
    return operation(y, reaction, stability.stable(kernel, step), step, backend=backend)


def _check_maps(name: str, y: Tensor, reaction: Tensor) -> None:
    check_map(name, y)
    if reaction.shape != y.shape:
        raise KernelError(
            f"{name}: reaction is {tuple(reaction.shape)} and y {tuple(y.shape)}; valid is one size"
        )


def _check_blocks(name: str, kernel: Tensor, channels: int) -> None:
    size = tuple(kernel.shape)
    if len(size) != 3 or size[0] != channels or size[1] != size[2] or not size[1] % 2:
        raise KernelError(
            f"{name}: kernel is {size}; valid is ({channels}, k, k) with an odd k for {channels} "
            "channels"
        )


def _check_map_not_empty(name: str, y: Tensor) -> None:
    if not min(y.shape[1:]):
        raise KernelError(f"{name}: y is {tuple(y.shape)}; valid are maps with some pixels")


def _check_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> None:
    _check_maps("explicit", y, reaction)
    check_stencil("explicit", "kernel", kernel, y.shape[1])


def _check_implicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> None:
    _check_maps("implicit", y, reaction)
    check_stencil("implicit", "kernel", kernel, y.shape[1])
    _check_map_not_empty("implicit", y)
    if step < 0:
        raise KernelError(f"implicit: step {step}; valid are 0 and more, which always invert")


def _check_circulant(x: Tensor, kernel: Tensor) -> None:
    check_map("circulant", x)
    _check_blocks("circulant", kernel, x.shape[1])
    _check_map_not_empty("circulant", x)


def _check_circulant_explicit(y: Tensor, reaction: Tensor, kernel: Tensor, step: float) -> None:
    _check_maps("circulant_explicit", y, reaction)
    _check_blocks("circulant_explicit", kernel, y.shape[1])
    _check_map_not_empty("circulant_explicit", y)


def _transformed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, and nothing of a batch of nothing, which no transform takes."""

    def composed(y: Tensor, *rest: Any) -> Tensor:
        if y.shape[0]:
            return function(y, *rest)
        parts = [0 * part.sum() for part in rest if isinstance(part, Tensor)]
        return sum(parts, start=y)

    return composed


def _same(x: Tensor, *_: object) -> tuple[int, ...]:
    return tuple(x.shape)


STEP = ("y", "reaction", "kernel"), ("float step",)
EXPLICIT = Operation(
    "explicit",
    reference.explicit,
    *STEP,
    _check_explicit,
    _same,
    (gpu.explicit(), EXPLICIT_LLVM),
)
IMPLICIT = Operation(
    "implicit",
    _transformed(fourier.implicit),
    *STEP,
    _check_implicit,
    _same,
    (gpu.implicit(),),
    exact=True,
)
CIRCULANT = Operation(
    "circulant",
    _transformed(fourier.circulant),
    ("x", "kernel"),
    (),
    _check_circulant,
    _same,
    (CIRCULANT_DENSE,),
    exact=True,
)
CIRCULANT_EXPLICIT = Operation(
    "circulant_explicit",
    _transformed(fourier.circulant_explicit),
    *STEP,
    _check_circulant_explicit,
    _same,
    exact=True,
)
