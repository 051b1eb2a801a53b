"""Weight gradients of the lean convolution on a GPU, in one pass over X and dY.

One block works on a square of features x channels (a job) and on every S-th tile of pixels; its
fp32 sums go to a workspace that a second small kernel adds up in a fixed order: deterministic.
X and dY are read once from memory (2 passes; with the input gradient 4, where separate calls need
11). Above 128 channels the jobs of a tile run side by side, so that their repeated reads,
C / 128 + F / 128 of each element, come from the second-level cache.

Outer taps: one channel a group on the CUDA cores; groups of 2, 4, 8 or 16 channels on the tensor
cores, 16 x 16 tiles of the diagonal only; any other grouping as further jobs, each the dense
gradient of one tap on the squares that its groups touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.weights_jobs import (
    NONE,
    SLOPE_IN_SCALE,
    SLOPE_IN_SHIFT,
    VALUE,
    Bound,
    Jobs,
    jobs_of,
    totals_of,
)
from kernels.lean.weights_plan import BAND_TILE, Plan, plan_for, precision_of


def weight_gradients(
    dy: Tensor,
    x: Tensor,
    taps: Sequence[Sequence[int]],
    groups: int,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    transposed: bool = False,
    bias: bool = True,
    precision: str = "fp32",
    run: Run = launch,
    processors: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, F, H, W), (N, C, H, W) -> dcentre (F, C), douter (r-1, F, C/g), dbias (F), all fp32.

    Of y = lean(relu(scale x + shift)) + bias. transposed: dy is (N, F, W, H). bias=False leaves
    dbias zero at no cost. precision: of float32, "fp32" (three TF32 products) or "tf32".
    processors: SMs to count on, by default those of the device.
    """
    prologue = NONE if scale is None and shift is None and not relu else VALUE
    precision = precision_of(x.dtype, precision)
    call = _Call(dy, x, _tuples(taps), groups, relu, transposed, precision, run, processors)
    return call.gradients(scale, shift, prologue, bias)


def prologue_gradients(
    dy: Tensor,
    x: Tensor,
    centre: Tensor,
    outer: Tensor,
    taps: Sequence[Sequence[int]],
    groups: int,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    relu: bool = False,
    transposed: bool = False,
    precision: str = "fp32",
    run: Run = launch,
    processors: int | None = None,
) -> tuple[Tensor, Tensor]:
    """dscale (C), dshift (C) of the prologue u = relu(scale x + shift), fp32.

    The loss is linear in u, so dshift[c] = sum over f, t of W[t, f, c] dW'[t, f, c], where dW' is
    the weight gradient with du/dshift (0 or 1) in the place of u; dscale has du/dscale there.
    Two runs of the weight kernel (4 passes), without a division by scale.
    """
    precision = precision_of(x.dtype, precision)
    call = _Call(dy, x, _tuples(taps), groups, relu, transposed, precision, run, processors)
    result = []
    for prologue in (SLOPE_IN_SCALE, SLOPE_IN_SHIFT):
        dcentre, douter, _ = call.gradients(scale, shift, prologue, False)
        total = (dcentre * centre.float()).sum(0)
        total += _by_group((douter * outer.float()).sum(0), groups)
        result.append(total)
    return result[0], result[1]


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """(F, C/g), one row a feature -> (C): summed over the features of each group."""
    return rows.reshape(groups, -1, rows.shape[1]).sum(1).flatten()


def _tuples(taps: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(tap[0]), int(tap[1])) for tap in taps)


@dataclass(frozen=True)
class _Call:
    dy: Tensor
    x: Tensor
    taps: tuple[tuple[int, int], ...]
    groups: int
    relu: bool
    transposed: bool
    precision: str
    run: Run
    processors: int | None

    def gradients(
        self, scale: Tensor | None, shift: Tensor | None, prologue: int, bias: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        features, channels = self.dy.shape[1], self.x.shape[1]
        plan = plan_for(features, channels, self.taps, self.groups, self.precision)
        work = _work(plan, features, channels, self.taps, self.groups, self.x.device)
        totals = totals_of(
            plan,
            work.jobs,
            self.dy,
            self.x,
            Bound(scale, shift, self.relu, prologue),
            bias=bias,
            transposed=self.transposed,
            run=self.run,
            processors=self.processors,
        )
        return totals.take(work.centre), totals.take(work.outer), totals.take(work.bias)


@dataclass(frozen=True, eq=False)
class _Work:
    """The jobs of a call, and where in their totals each gradient stands."""

    jobs: Jobs
    centre: Tensor  # (F, C)
    outer: Tensor  # (r-1, F, C/g)
    bias: Tensor  # (F)


@cache
def _work(
    plan: Plan,
    features: int,
    channels: int,
    taps: tuple[tuple[int, int], ...],
    groups: int,
    device: torch.device,
) -> _Work:
    """A job a square of the centre; without taps in the same pass, also one a tap and a square that
    a group touches."""
    block = plan.block
    down, across = range(-(-features // block)), range(-(-channels // block))
    apart = () if plan.taps_by else taps
    places = [(0, i, j) for i in down for j in across]
    places += [
        (1 + t, i, j)
        for t in range(len(apart))
        for i in down
        for j in across
        if _touches(i * block, j * block, block, features, channels, groups)
    ]
    offsets = ((0, 0), *apart)
    squares = [(i * block, j * block, offsets[t]) for t, i, j in places]
    jobs = jobs_of(squares, plan.taps_by > 0, device)
    number = torch.full((1 + len(apart), len(down), len(across)), -1)
    number[tuple(torch.tensor(places).T)] = torch.arange(len(places))

    f, c = torch.arange(features)[:, None], torch.arange(channels)
    size = channels // groups
    read = f // (features // groups) * size + torch.arange(
        size
    )  # (F, C/g): the channels of a group
    inside = f % block * block
    start = number * plan.words
    centre = start[0, f // block, c // block] + inside + c % block
    bias = start[0, f[:, 0] // block, 0] + block * block + f[:, 0] % block
    if plan.taps_by:
        own = start[0, f // block, f // block] + block * block + block
        each = (plan.words - block * block - block) // len(plan.taps)
        own = own + (f % block if size == 1 else f % block * BAND_TILE + read % BAND_TILE)
        held = torch.tensor([plan.taps.index(tap) for tap in taps])
        outer = own + held[:, None, None] * each
    else:
        outer = start[1:, f // block, read // block] + inside + read % block
    return _Work(jobs, *(one.to(device) for one in (centre, outer, bias)))


def _touches(
    feature: int, channel: int, block: int, features: int, channels: int, groups: int
) -> bool:
    """Whether a square of the matrix (F, C) holds weights of a group."""
    rows, size = features // groups, channels // groups
    last = min(feature + block, features) - 1
    return (feature // rows) * size < channel + block and (last // rows + 1) * size > channel
