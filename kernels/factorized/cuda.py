"""Single intra-channel convolutions and topological subdivision on a GPU.

Forward, one launch, 2 passes over memory (X read, Y written): the depthwise result stays in shared
memory as the operand of the projection, and the residual comes from the tile of X. Of a projection
on a grid only the connected blocks of 16 features x 16 channels (8 of 32-bit numbers) are computed.
From F > 128 on the tile of X is read once per 128 features, from the second-level cache.

Backward, with G = P^T dY and S = D * X recomputed:

    G = P^T dY                    2 passes        dP = dY S^T          2 passes
    dX = flipped D * G (+ dY)     2 (3)           dD[t] = G(p) X(p+t)  2 passes
    S = D * X                     2 passes
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.factorized.mix_plan import (
    ALONE,
    SPANS,
    STENCIL,
    TAPS,
    Connections,
    packed,
    packed_stencil,
    plan_for,
    reads,
    table,
)
from kernels.lean.cuda_depthwise import depthwise_gradients
from kernels.lean.cuda_weights import weight_gradients
from kernels.lean.weights_plan import precision_of

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Grid = tuple[int, ...]


def why_not(x: Tensor, span: int, *weights: Tensor) -> str | None:
    """The reason why these kernels cannot serve a call with k x k taps, or None."""
    if x.dim() != 4:
        return f"asked for {x.dim() - 2} dimensions of space; the CUDA kernels have 2"
    if x.dtype not in DTYPES:
        return f"asked for {x.dtype}; the CUDA kernels take float32, bfloat16 and float16"
    if span not in (1, *SPANS):
        return f"asked for a {span} x {span} stencil; the CUDA kernels have 1, 3, 5 and 7"
    other = next((one.dtype for one in weights if one.dtype != x.dtype), None)
    if other is not None:
        return f"the input is {x.dtype}, a weight {other}; valid is one dtype for both"
    return None


def single_intra_channel(
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool = True,
    grid: Grid = (),
    near: Grid = (),
    *,
    precision: str = "fp32",
    run: Run = launch,
) -> Tensor:
    """(N, C, H, W) -> (N, F, H, W) as `kernels.factorized.reference.single_intra_channel`."""
    matrix, connections = _projection(projection, x.shape[1], grid, near)
    return _mix(STENCIL, x, spatial, matrix[None], connections, residual, None, precision, run)


def topological(
    x: Tensor, weight: Tensor, grid: Grid, near: Grid, *, precision: str = "fp32", run: Run = launch
) -> Tensor:
    """(N, C, H, W) -> (N, C, H, W) as `kernels.factorized.reference.topological`."""
    connections = Connections(len(weight), len(weight), tuple(grid), tuple(near))
    return _mix(
        TAPS, x, None, _dense(weight, connections), connections, False, None, precision, run
    )


def single_intra_channel_backward(
    dy: Tensor,
    x: Tensor,
    spatial: Tensor,
    projection: Tensor,
    residual: bool = True,
    grid: Grid = (),
    near: Grid = (),
    *,
    needs: Sequence[bool] = (True, True, True),
    precision: str = "fp32",
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """dx in x's dtype; dspatial and dprojection, in fp32, of their weights' shapes.

    needs: which of the three are wanted; the others are None and cost nothing.
    """
    channels = x.shape[1]
    matrix, connections = _projection(projection, channels, grid, near)
    back = Connections(channels, len(matrix), connections.grid, connections.near, backward=True)
    dx = dspatial = dprojection = None
    if needs[0] or needs[1]:
        between = _mix(TAPS, dy, None, matrix.T[None], back, False, None, precision, run)
    if needs[0]:
        flipped = spatial.flip(-1, -2)
        dx = _alone(between, flipped, dy if residual else None, precision, run)
    if needs[1]:
        span = spatial.shape[-1]
        dspatial = depthwise_gradients(between, x, span, precision=precision, run=run)
    if needs[2]:
        own = _alone(x, spatial, None, precision, run)
        dense, _, _ = weight_gradients(dy, own, (), 1, bias=False, precision=precision, run=run)
        dprojection = _connected(dense[None], connections).view(projection.shape)
    return dx, dspatial, dprojection


def topological_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    grid: Grid,
    near: Grid,
    *,
    needs: Sequence[bool] = (True, True),
    precision: str = "fp32",
    run: Run = launch,
) -> tuple[Tensor | None, Tensor | None]:
    """dx in x's dtype and dweight in fp32. dweight is the dense gradient, of which the connected
    entries are kept: k^2 times the work of a 1 x 1, on one reading of the maps from memory."""
    channels, span = len(weight), weight.shape[-1]
    connections = Connections(channels, channels, tuple(grid), tuple(near))
    dx = dweight = None
    if needs[0]:
        back = Connections(channels, channels, tuple(grid), tuple(near), backward=True)
        flipped = _dense(weight, connections).flip(0).transpose(1, 2)
        dx = _mix(TAPS, dy, None, flipped, back, False, None, precision, run)
    if needs[1]:
        half = span // 2
        offsets = range(-half, half + 1)
        taps = [(h, w) for h in offsets for w in offsets if (h, w) != (0, 0)]
        centre, outer, _ = weight_gradients(
            dy, x, taps, 1, bias=False, precision=precision, run=run
        )
        middle = len(taps) // 2
        dense = torch.cat((outer[:middle], centre[None], outer[middle:]))
        dweight = _connected(dense, connections).view(weight.shape)
    return dx, dweight


def _projection(
    projection: Tensor, channels: int, grid: Grid, near: Grid
) -> tuple[Tensor, Connections]:
    """The matrix (F, C), zero where nothing is connected."""
    connections = Connections(len(projection), channels, tuple(grid), tuple(near))
    return _dense(projection, connections)[0], connections


def _dense(weight: Tensor, connections: Connections) -> Tensor:
    """(F, connected or C, k, k) -> (k^2, F, C) with zeros between the connected."""
    rows = weight.flatten(2).permute(2, 0, 1)
    if not connections.grid:
        return rows
    whole = rows.new_zeros(len(rows), connections.features, connections.channels)
    index = reads(connections.grid, connections.near, weight.device)
    return whole.scatter(2, index.expand(len(rows), -1, -1), rows)


def _connected(dense: Tensor, connections: Connections) -> Tensor:
    """(k^2, F, C) -> (F, connected or C, k^2)."""
    if connections.grid:
        index = reads(connections.grid, connections.near, dense.device)
        dense = dense.gather(2, index.expand(len(dense), -1, -1))
    return dense.permute(1, 2, 0).contiguous()


def _alone(x: Tensor, spatial: Tensor, add: Tensor | None, precision: str, run: Run) -> Tensor:
    """The depthwise convolution, plus `add`."""
    channels = x.shape[1]
    connections = Connections(channels, channels)
    return _mix(ALONE, x, spatial, None, connections, False, add, precision, run)


def _mix(
    by: int,
    x: Tensor,
    spatial: Tensor | None,
    matrices: Tensor | None,
    connections: Connections,
    residual: bool,
    add: Tensor | None,
    precision: str,
    run: Run,
) -> Tensor:
    count, channels, height, width = x.shape
    features = connections.features
    y = torch.empty(
        (count, features, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    if not y.numel():
        return y
    span = spatial.shape[-1] if spatial is not None else 1
    if by == TAPS and matrices is not None:
        span = math.isqrt(len(matrices))
    plan = plan_for(
        precision_of(x.dtype, precision),
        by,
        span if by == TAPS else max(3, span),
        features,
        channels,
    )
    entries, longest = table(plan, connections, x.device)
    x = x.contiguous(memory_format=torch.channels_last)
    add = add if add is None else add.contiguous(memory_format=torch.channels_last)
    stencils = None if spatial is None else packed_stencil(plan, spatial)
    weights = None if matrices is None else packed(plan, matrices, x.dtype)
    tiles = count * -(-height // plan.rows) * -(-width // 16)
    whole = _whole(y) and (add is None or _whole(add))
    padded = len(entries) * plan.block
    arguments = (
        *(x, stencils, weights, add, y, entries, longest, len(entries), int(residual)),
        *(int(_whole(x)), int(whole), height, width, channels, features),
        *(-(-channels // plan.chunk) * plan.chunk, padded),
    )
    run(plan.kernel(), grid=(tiles * len(entries), 1, 1), arguments=arguments)
    return y


def _whole(tensor: Tensor) -> bool:
    """Whether every segment of 16 bytes of a pixel is aligned."""
    row = tensor.shape[1] * tensor.element_size()
    return row % 16 == 0 and tensor.data_ptr() % 16 == 0
