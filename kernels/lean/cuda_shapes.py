"""Which instance of lean_forward serves which widths, and what it takes of the machine.

All have a tile 16 pixels wide; none has a warp hold more than 32 channels of 32 pixels, beyond
which registers spill.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.cuda.source import Kernel
from kernels.lean.cuda_pack import DIAGONAL, GROUPED, STENCIL, packing

PRECISIONS = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 3}
HALVES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
WIDTH = 16  # pixels of a tile's row


@dataclass(frozen=True)
class Shape:
    """How a block divides the work; the names of the macros of forward.cu. channels: that it is
    meant for, of input and output. depthwise: how it computes the taps of depthwise stencils."""

    channels: int
    chunk: int
    slice: int
    across: int
    down: int
    stages: int
    blocks: int
    depthwise: int = STENCIL

    @property
    def outputs(self) -> int:
        return self.slice * self.across

    @property
    def rows(self) -> int:
        return 2 * self.down


SHAPES = {
    2: (
        Shape(16, chunk=16, slice=16, across=1, down=8, stages=3, blocks=2, depthwise=DIAGONAL),
        Shape(32, chunk=32, slice=16, across=2, down=4, stages=3, blocks=2, depthwise=DIAGONAL),
        Shape(64, chunk=64, slice=16, across=4, down=4, stages=4, blocks=1, depthwise=DIAGONAL),
        Shape(128, chunk=64, slice=32, across=4, down=4, stages=3, blocks=1),
    ),
    4: (
        Shape(16, chunk=16, slice=16, across=1, down=8, stages=2, blocks=3),
        Shape(32, chunk=32, slice=32, across=1, down=8, stages=2, blocks=2),
        Shape(64, chunk=32, slice=32, across=2, down=4, stages=3, blocks=2),
        Shape(128, chunk=32, slice=32, across=4, down=4, stages=3, blocks=1),
    ),
}  # fmt: skip


def kernels() -> list[Kernel]:
    """Every instance that can be launched, with the shared memory of its own width."""
    return [packing(one) for one in PRECISIONS.values()] + [
        instance(shape, precision, taps, shape.channels, limit=160 * 1024)[0]
        for precision in PRECISIONS
        for shape in SHAPES[_size(precision)]
        for taps in (GROUPED, shape.depthwise)
    ]


def precision_of(dtype: torch.dtype, of_float32: str = "fp32") -> str:
    return HALVES.get(dtype, of_float32)


def shape_of(precision: str, channels: int) -> Shape:
    shapes = SHAPES[_size(precision)]
    return next((shape for shape in shapes if channels <= shape.channels), shapes[-1])


def instance(
    shape: Shape, precision: str, taps: int, channels: int, limit: int
) -> tuple[Kernel, bool]:
    """The instance, and whether the weights of all chunks stay in shared memory."""
    size = _size(precision)
    tile = (shape.rows + 2) * (WIDTH + 4) * shape.chunk * size
    weights = shape.outputs * shape.chunk * size
    fixed = shape.stages * tile + (36 * shape.outputs if taps == STENCIL else 0)
    chunks = -(-channels // shape.chunk)
    resident = fixed + chunks * weights <= limit
    macros = {
        "PRECISION": PRECISIONS[precision], "TAPS": taps, "CHUNK": shape.chunk,
        "SLICE": shape.slice, "ACROSS": shape.across, "DOWN": shape.down, "STAGES": shape.stages,
        "BLOCKS": shape.blocks,
    }  # fmt: skip
    shared = fixed + (chunks if resident else shape.stages) * weights
    threads = 32 * shape.down * shape.across
    name = "lean_forward"
    return Kernel(
        "lean/forward.cu", name, tuple(macros.items()), threads, shared, shape.blocks
    ), resident


def _size(precision: str) -> int:
    """Bytes of an element."""
    return 4 if precision in ("fp32", "tf32") else 2


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block may have (CUDA programming guide, table of technical
    specifications); of an H200 where there is no GPU."""
    if device.type != "cuda":
        return 227 * 1024
    found = torch.cuda.get_device_properties(device)
    return {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227}.get(
        (found.major, found.minor), 99
    ) * 1024


def blocks_at_once(device: torch.device, kernel: Kernel) -> int:
    """How many blocks run at the same time; where there is no GPU, few enough to walk on."""
    if device.type != "cuda":
        return 3
    return int(torch.cuda.get_device_properties(device).multi_processor_count) * kernel.blocks
