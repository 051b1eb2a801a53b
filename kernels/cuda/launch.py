"""Run a kernel on a GPU through CuPy: torch's current stream, torch's memory, no copies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.backends import require
from kernels.cuda.source import Argument, Kernel

OPTIONS = ("--std=c++17",)


def launch(kernel: Kernel, *, grid: tuple[int, int, int], arguments: Sequence[Argument]) -> None:
    """Queue the kernel on the current stream of the device that its tensors share.

    Raises MissingComponentError where CuPy does not serve, ValueError for a tensor that is not on
    one CUDA device or a grid without blocks.
    """
    tensors = [one for one in arguments if isinstance(one, Tensor)]
    places = {one.device for one in tensors}
    if len(places) != 1 or next(iter(places)).type != "cuda":
        found = ", ".join(sorted(map(str, places))) or "no tensor"
        raise ValueError(f"{kernel.name}: tensors on {found}; valid is one CUDA device")
    if min(grid) < 1:
        raise ValueError(f"{kernel.name}: grid {grid}; each of its sizes must be at least 1")
    device = next(iter(places)).index
    require("cupy")
    import cupy

    stream = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
        function = _compiled(kernel, device)
        values = tuple(_value(one) for one in arguments)
        function(grid, (kernel.threads, 1, 1), values, shared_mem=kernel.shared)


@cache
def _compiled(kernel: Kernel, device: int) -> Any:
    """The compiled function; CuPy keeps the binary on disk between processes."""
    import cupy

    module = cupy.RawModule(code=kernel.source(), options=OPTIONS, backend="nvrtc")
    function = module.get_function(kernel.name)
    if kernel.shared > 48 * 1024:
        function.max_dynamic_shared_size_bytes = kernel.shared
    return function


def _value(argument: Argument) -> np.generic:
    if isinstance(argument, Tensor):
        return np.uint64(argument.data_ptr())
    if argument is None:
        return np.uint64(0)
    return np.int32(argument) if isinstance(argument, int) else np.float32(argument)
