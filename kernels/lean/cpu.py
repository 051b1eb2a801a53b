"""Lean convolution on the CPU: generated vector code, oneDNN with a post-op, two convolutions.

             forward                                   gradients
llvm         stencil and 1 x 1 in one pass             generated code too
onednn       grouped into y, then a 1 x 1 that adds    forward again, weights by oneDNN
             to y: a temporary less than eager
convolution  two calls and their sum                   torch's own

The gradient with respect to x is a lean convolution again, with the transposed 1 x 1, the groups'
matrices transposed and the taps mirrored:

    dX[c](p) = sum_f A[f, c] dY[f](p) + sum_t sum_f B[t, f, c] dY[f](p - t).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels.jit import maps
from kernels.layout import is_last
from kernels.lean.parts import Call, activated_backward, gathered, spread, window
from kernels.operation import Gradients, Implementation

CPU = ("cpu",)


# ---- generated vector code -----------------------------------------------------------------------


def _why_not_llvm(*arguments: Any) -> str | None:
    call = Call(*arguments)
    channels, features = call.x.shape[1], call.centre.shape[0]
    if reason := maps.why_not(call.x):
        return reason
    if call.stride != 1:
        return f"generated code keeps the map, stride {call.stride} does not"
    if features != channels:
        return f"generated code keeps the width, {channels} to {features} does not"
    size = channels // call.groups
    return maps.why_not_groups(size) or maps.why_not_products(size * len(call.offsets))


def _llvm(*arguments: Any, into: Tensor | None = None) -> Tensor:
    call = Call(*arguments)
    residual, turned = call.residual, call.transposed
    own = into if into is not None and is_last(into) and not turned else None
    y = maps.mixed(
        call.ready,
        call.centre,
        call.outer,
        call.offsets,
        bias=call.bias,
        residual=residual.mT if turned and residual is not None else residual,
        into=own,
    )
    if own is not None:
        return own
    y = maps.dense(y.mT if turned else y, is_last(call.x))
    return y if into is None else into.copy_(y)


def _llvm_backward(dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
    call = Call(*arguments)
    dy = maps.last(dy.mT if call.transposed else dy)
    d_ready = d_centre = d_outer = None
    if needs[0] or needs[4] or needs[5]:
        outer = turned_groups(call.outer, call.groups)
        d_ready = maps.mixed(dy, call.centre.t(), outer, maps.mirrored(call.offsets))
    if needs[1] or needs[2]:
        offsets, size = call.offsets if needs[2] else (), call.outer.shape[2]
        d_centre, d_outer = maps.weight_gradients(dy, call.ready, offsets, size, needs[1])
    return _completed(call, needs, dy, d_ready, d_centre, d_outer)


def _completed(
    call: Call,
    needs: Sequence[bool],
    dy: Tensor,
    d_ready: Tensor | None,
    d_centre: Tensor | None,
    d_outer: Tensor | None,
) -> Gradients:
    """With those of bias, scale and shift."""
    d_bias = dy.sum((0, 2, 3)) if needs[3] else None
    d_x = d_scale = d_shift = None
    if d_ready is not None:
        asked = (needs[0], needs[4], needs[5])
        d_x, d_scale, d_shift = activated_backward(
            d_ready, asked, call.x, call.scale, call.shift, call.relu
        )
    if d_x is not None:
        d_x = maps.dense(d_x, is_last(call.x))
    return d_x, d_centre, d_outer, d_bias, d_scale, d_shift, None


def turned_groups(outer: Tensor, groups: int) -> Tensor:
    """(r-1, F, C/g) -> (r-1, C, F/g): each group's matrix transposed."""
    taps, features, channels = outer.shape
    if channels == 1 and features == groups:
        return outer
    matrices = outer.reshape(taps, groups, features // groups, channels)
    return matrices.mT.reshape(taps, groups * channels, features // groups)


# ---- oneDNN --------------------------------------------------------------------------------------


@cache
def _adding() -> Any | None:
    """The convolution of oneDNN that adds to its output: private, torch's compiler uses it."""
    try:
        return torch.ops.mkldnn._convolution_pointwise_.binary
    except (AttributeError, RuntimeError):
        return None


def why_not_adding(x: Tensor) -> str | None:
    """Why `added` cannot serve on maps like x."""
    if not torch._C._has_mkldnn or _adding() is None:
        return "this torch has no oneDNN convolution that adds to its output"
    if x.dtype != torch.float32:
        return f"oneDNN's sum serves float32, not {x.dtype}"
    if x.dim() != 4 or not is_last(x):
        return "oneDNN's sum takes maps (N, C, H, W) with channels last"
    return None if x.numel() else "there is nothing to compute"


def added(y: Tensor, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """y + matrix x + bias, in y."""
    if (add := _adding()) is None:
        raise RuntimeError("this torch has no oneDNN convolution that adds to its output")
    weight = matrix.reshape(*matrix.shape, 1, 1)
    once = [1, 1]
    result: Tensor = add(y, x, weight, bias, [0, 0], once, once, 1, "add", None, None, [], None)
    return result


def _why_not_onednn(*arguments: Any) -> str | None:
    call = Call(*arguments)
    if call.stride != 1:
        return f"oneDNN's sum keeps the map, stride {call.stride} does not"
    return why_not_adding(call.x)


def _onednn(*arguments: Any) -> Tensor:
    call = Call(*arguments)
    ready = maps.last(call.ready)
    y = added(around(ready, call.outer, call.offsets, call.groups), ready, call.centre, call.bias)
    if call.transposed:
        y = maps.last(y.mT)
    return y if call.residual is None else y.add_(call.residual)


def around(x: Tensor, outer: Tensor, offsets: tuple[tuple[int, ...], ...], groups: int) -> Tensor:
    """The outer taps as one grouped convolution, by a kernel with zeros between them."""
    reach, dilation, _ = window(offsets)
    convolve = functional.conv3d if x.dim() == 5 else functional.conv2d
    return convolve(x, spread(outer, offsets), None, 1, dilation * reach, dilation, groups)


def _onednn_backward(dy: Tensor, needs: Sequence[bool], *arguments: Any) -> Gradients:
    call = Call(*arguments)
    dy = maps.last(dy.mT if call.transposed else dy)
    d_ready = d_centre = d_outer = None
    if needs[0] or needs[4] or needs[5]:
        outer = turned_groups(call.outer, call.groups)
        sums = around(dy, outer, maps.mirrored(call.offsets), call.groups)
        d_ready = added(sums, dy, call.centre.t())
    ready = maps.last(call.ready)
    if needs[1]:
        matrix = call.centre.reshape(*call.centre.shape, 1, 1)
        d_centre = weight_gradient(dy, ready, matrix).reshape(call.centre.shape)
    if needs[2]:
        reach, dilation, _ = window(call.offsets)
        side = 2 * reach + 1
        kernel = call.outer.new_empty((*call.outer.shape[1:], side, side))
        found = weight_gradient(dy, ready, kernel, dilation * reach, dilation, call.groups)
        d_outer = gathered(found, call.offsets)
    return _completed(call, needs, dy, d_ready, d_centre, d_outer)


def weight_gradient(
    dy: Tensor, x: Tensor, weight: Tensor, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Of a convolution with stride 1. weight: only its shape is read."""
    steps, only = ([1, 1], [padding] * 2, [dilation] * 2, False, [0, 0]), [False, True, False]
    gradient: Tensor = torch.ops.aten.convolution_backward(
        dy, x, weight, None, *steps, groups, only
    )[1]
    return gradient


# ---- two convolutions ----------------------------------------------------------------------------


def _why_not_convolution(x: Tensor, *rest: Any) -> str | None:
    return None if x.numel() else "there is nothing to compute"


def _convolution(*arguments: Any) -> Tensor:
    call = Call(*arguments)
    ready, outer, stride = call.ready, call.outer, call.stride
    reach, dilation, _ = window(call.offsets)
    convolve = functional.conv3d if ready.dim() == 5 else functional.conv2d
    matrix = call.centre.reshape(*call.centre.shape, *(1,) * (ready.dim() - 2))
    kernel = spread(outer, call.offsets)
    sums = convolve(ready, kernel, None, stride, dilation * reach, dilation, call.groups)
    y = convolve(ready, matrix, call.bias, stride) + sums
    if call.transposed:
        y = maps.dense(y.mT, is_last(call.x))
    return y if call.residual is None else y + call.residual


LLVM = Implementation("llvm", _llvm, _llvm_backward, _why_not_llvm, CPU, writes=True)
ONEDNN = Implementation("onednn", _onednn, _onednn_backward, _why_not_onednn, CPU)
CONVOLUTION = Implementation("convolution", _convolution, None, _why_not_convolution)
