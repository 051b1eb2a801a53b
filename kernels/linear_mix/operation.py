"""A depthwise and a 1 x 1 convolution, added: a lean convolution whose stencil has a centre."""

from __future__ import annotations

from torch import Tensor

from kernels import choice
from kernels.factorized.cpu import rows, square
from kernels.factorized.operation import check_map, check_stencil
from kernels.lean.operation import lean
from kernels.linear_mix import reference
from kernels.operation import KernelError, defined_by


@defined_by(reference.linear_mix)
def linear_mix(
    x: Tensor,
    spatial: Tensor,
    mixing: Tensor,
    *,
    backend: str = "auto",
    out: Tensor | None = None,
) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W), zero padding, by `kernels.lean.operation`.

    spatial: (C, 1, k, k). mixing: (C, C, 1, 1). out: memory for the result.
    Raises KernelError, TypeError.
    """
    check_map("linear_mix", x)
    channels = x.shape[1]
    check_stencil("linear_mix", "spatial", spatial, channels)
    if tuple(mixing.shape) != (channels, channels, 1, 1):
        raise KernelError(
            f"linear_mix: mixing is {tuple(mixing.shape)}; valid is ({channels}, {channels}, 1, 1)"
        )
    asked = choice.backend() if backend == "auto" else backend
    if asked == "torch" and out is None:
        return reference.linear_mix(x, spatial, mixing)
    taps = square(spatial.shape[-1])
    return lean(x, mixing[..., 0, 0], rows(spatial), taps, channels, backend=backend, out=out)
