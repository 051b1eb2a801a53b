"""Gradient of a depthwise k x k convolution's weights by the kernel of the lean weights."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from kernels.cuda.launch import launch
from kernels.cuda.source import Run
from kernels.lean.weights_jobs import Bound, Jobs, jobs_of, totals_of
from kernels.lean.weights_plan import DEPTHWISE, Plan, precision_of


def depthwise_gradients(
    dy: Tensor,
    x: Tensor,
    span: int,
    *,
    precision: str = "fp32",
    run: Run = launch,
    processors: int | None = None,
) -> Tensor:
    """(N, C, H, W) twice -> the gradient (C, 1, k, k), fp32, of a depthwise convolution.

    The k x k taps are covered by windows of 3 x 3, each a job with an offset: 1, 4 or 9 of them for
    k = 3, 5, 7, side by side on one reading of the maps from memory.
    """
    channels = x.shape[1]
    block = next((one for one in (16, 32) if channels <= one), 64)
    plan = Plan(precision_of(x.dtype, precision), block, 9, DEPTHWISE)
    jobs, places = _windows(block, channels, span, x.device)
    totals = totals_of(plan, jobs, dy, x, Bound(), run=run, processors=processors)
    squares = -(-channels // block)
    words = totals.reshape(-1, squares, plan.words)
    centre = words[..., : block * block].reshape(-1, squares, block, block)
    outer = words[..., block * block + block :].reshape(-1, squares, 8, block)
    own = centre.diagonal(dim1=2, dim2=3)[:, :, None]
    nine = torch.cat((outer[:, :, :4], own, outer[:, :, 4:]), 2)
    nine = nine.transpose(1, 2).reshape(-1, squares * block)
    return nine[places, :channels].T.reshape(channels, 1, span, span)


@cache
def _windows(block: int, channels: int, span: int, device: torch.device) -> tuple[Jobs, Tensor]:
    """The jobs, and where each of the k x k taps is found: 9 window + tap."""
    first = 1 - span // 2
    centres = [first + 3 * i for i in range(-(-span // 3))] if span > 1 else [0]
    windows = [(h, w) for h in centres for w in centres]
    squares = [(s, s, w) for w in windows for s in range(0, channels, block)]
    places = []
    for h in range(-(span // 2), span // 2 + 1):
        for w in range(-(span // 2), span // 2 + 1):
            number, (mid_h, mid_w) = next(
                (i, c) for i, c in enumerate(windows) if abs(h - c[0]) <= 1 and abs(w - c[1]) <= 1
            )
            places.append(9 * number + 3 * (h - mid_h + 1) + w - mid_w + 1)
    return jobs_of(squares, False, device), torch.tensor(places, device=device)
