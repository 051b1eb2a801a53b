"""Run jobs of `weights.cu` and add up what its blocks found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.weights_plan import SUM, Plan

NONE, VALUE, SLOPE_IN_SHIFT, SLOPE_IN_SCALE = range(4)
PROCESSORS_OF_TESTS = 2


@dataclass(frozen=True)
class Bound:
    """What stands in the place of x: itself, relu(scale x + shift), or how that moves with one of
    the two. None is a scale of 1, a shift of 0."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    relu: bool = False
    prologue: int = NONE


Offset = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Jobs:
    """rows: (feature, channel, row offset, column offset, share, shares) of each block of a split.
    twins: of each job the row of its second share, or -1; rows beyond them are second shares."""

    rows: Tensor
    twins: Tensor


def jobs_of(squares: Sequence[tuple[int, int, Offset]], shared: bool, device: torch.device) -> Jobs:
    """squares: first feature, first channel, offset. shared: two blocks on a square with taps, of
    which there are fewer than squares."""
    heavy = [i for i, (f, c, _) in enumerate(squares) if shared and f == c]
    heavy = heavy if len(heavy) < len(squares) else []
    twins = [-1] * len(squares)
    rows = [(f, c, *offset, 0, 2 if i in heavy else 1) for i, (f, c, offset) in enumerate(squares)]
    for i in heavy:
        twins[i] = len(rows)
        rows.append((*rows[i][:4], 1, 2))
    tables = (torch.tensor(one, dtype=torch.int32, device=device) for one in (rows, twins))
    return Jobs(*tables)


def totals_of(
    plan: Plan,
    jobs: Jobs,
    dy: Tensor,
    x: Tensor,
    bound: Bound,
    *,
    bias: bool = False,
    transposed: bool = False,
    run: Run = launch,
    processors: int | None = None,
) -> Tensor:
    """(jobs, words) in fp32. processors: SMs to count on, by default those of the device.

    Raises ValueError where dy and x do not belong together.
    """
    _check(dy, x, transposed)
    count, channels, height, width = x.shape
    features = dy.shape[1]
    totals = torch.zeros(len(jobs.twins), plan.words, device=x.device)
    if not (x.numel() and dy.numel()):
        return totals
    dy = dy.contiguous(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    kernel = plan.kernel()
    rows, columns = plan.tile
    tiles = count * -(-height // rows) * -(-width // columns)
    held = kernel.blocks * (processors or _processors(x.device))
    splits = min(tiles, max(1, held // len(jobs.rows)))
    parts = totals.new_empty(splits, len(jobs.rows), plan.words)
    affine: list[Tensor | None] = [None, None]
    if bound.prologue != NONE:
        affine = [_affine(bound.scale, 1.0, x), _affine(bound.shift, 0.0, x)]
    steps = (features, height * features) if transposed else (width * features, features)
    arguments = (
        *(dy, x, *affine, jobs.rows, parts, bound.prologue, int(bound.relu), int(bias)),
        *(_whole(dy), _whole(x), count, height, width, features, channels, *steps),
    )
    run(kernel, grid=(splits, len(jobs.rows), 1), arguments=arguments)
    size = (splits, len(jobs.rows), plan.words)
    grid = (-(-plan.words // 32), len(jobs.twins), 1)
    run(SUM, grid=grid, arguments=(parts, jobs.twins, totals, *size))
    return totals


def _check(dy: Tensor, x: Tensor, transposed: bool) -> None:
    """Before any launch: the kernel trusts these."""
    sides = x.shape[:1] + (x.shape[:1:-1] if transposed else x.shape[2:])
    if dy.shape[:1] + dy.shape[2:] != sides or x.dim() != 4:
        raise ValueError(
            f"weight gradients of dy {tuple(dy.shape)} and x {tuple(x.shape)}: valid are (N, F, H, "
            "W) and (N, C, H, W), or (N, F, W, H) where transposed"
        )
    if dy.dtype != x.dtype or dy.device != x.device:
        raise ValueError(
            f"weight gradients of dy {dy.dtype} on {dy.device} and x {x.dtype} on {x.device}: "
            "valid is one of each"
        )


def _affine(values: Tensor | None, default: float, x: Tensor) -> Tensor:
    if values is None:
        return torch.full((x.shape[1],), default, device=x.device)
    return values.detach().float().contiguous()


def _whole(tensor: Tensor) -> int:
    """Whether every segment of 16 bytes of a pixel is aligned."""
    row = tensor.shape[1] * tensor.element_size()
    return int(row % 16 == 0 and tensor.data_ptr() % 16 == 0)


def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return PROCESSORS_OF_TESTS
    return torch.cuda.get_device_properties(device).multi_processor_count
