"""What tests of CUDA kernels share: the gates, where they can run, and how a mutant is caught."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

import pytest
import torch
from emulator.emulator import COMPILER, Emulator, EmulatorError
from torch import Tensor

from kernels.backends import MissingComponentError, backend
from kernels.cuda.compile import compile_kernel
from kernels.cuda.source import Kernel, Run

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
PRECISIONS = tuple(DTYPES)
OUTPUT_GATE = {"tf32": 1e-3, "bf16": 8e-3, "fp16": 2e-3}
GRADIENT_GATE = {"fp32": 1e-5, "tf32": 1e-3, "bf16": 5e-3, "fp16": 2e-3}

emulated = pytest.mark.skipif(
    COMPILER is None or platform.machine() != "x86_64",
    reason="the emulator needs a C++ compiler on x86-64",
)
on_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and backend("cupy").serves),
    reason="needs an NVIDIA GPU and CuPy",
)


def single(precision: str) -> str:
    """How products of float32 are made where a test is of this precision."""
    return "tf32" if precision == "tf32" else "fp32"


def output_gate(precision: str, channels: int) -> float:
    """Bound of max|error| / max|reference|; of fp32 it grows with the sum over channels."""
    return 1e-6 * channels**0.5 if precision == "fp32" else OUTPUT_GATE[precision]


def max_error(found: Tensor, reference: Tensor) -> float:
    """max|error| / max|reference|; infinite where a NaN is found."""
    error = (found.double().cpu() - reference.double().cpu()).abs().max()
    return float((error / reference.double().abs().max()).nan_to_num(nan=torch.inf))


def rms_error(found: Tensor, reference: Tensor) -> float:
    """Root mean square of the error relative to that of the reference."""
    error = (found.double().cpu() - reference.double().cpu()).square().mean().sqrt()
    return float((error / reference.double().square().mean().sqrt()).nan_to_num(nan=torch.inf))


def within_resources(kernel: Kernel) -> None:
    """The kernel compiles for both architectures, spills nothing, and fits as its design says."""
    for architecture, blocks in (("sm_80", 1), ("sm_90", kernel.blocks)):
        try:
            compiled = compile_kernel(kernel, architecture)
        except MissingComponentError as missing:
            pytest.skip(str(missing))
        assert compiled.spills == 0, compiled.log
        assert compiled.blocks(kernel, architecture) >= blocks, (architecture, compiled.log)


def passes(check: Callable[[Run], None], run: Run) -> bool:
    """Whether a check that asserts on what a kernel computes holds with this `run`."""
    try:
        check(run)
    except (AssertionError, EmulatorError):
        return False
    return True


def catches(
    check: Callable[[Run], None],
    replace: Sequence[tuple[str, str]],
    seeds: Sequence[int] = (1, 2, 3),
    only: str = "",
) -> bool:
    """Whether the mutant fails the check with one of the seeds, as the true kernel never does."""
    return not all(passes(check, Emulator(seed, tuple(replace), only)) for seed in seeds)
