"""Run a kernel's own source on the CPU: compile it with `emulator.h`, launch it like a GPU would.

    run = Emulator(seed=1)
    run(kernel, grid=(tiles, 1, batch), arguments=(x, y, height, width))

Tensors lie in copies with margins: NaN to the reader, checked after the run for a writer. A mutant
is the same kernel with one text replaced.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kernels.cuda.source import Argument, Kernel

HEADER = Path(__file__).with_name("emulator.h")
COMPILER = shutil.which("g++") or shutil.which("clang++")
MARGIN = 4096  # bytes before and after each tensor


class EmulatorError(RuntimeError):
    """The kernel broke a rule of the machine: a divergent barrier, a deadlock, a stray write."""


@dataclass(frozen=True)
class Emulator:
    """A `Run`. seed: of the order of warps and of the landing of copies. replace: seeded bugs, each
    a text of the source and what stands there instead. only: the kernel that they are seeded in,
    where a call launches several."""

    seed: int = 1
    replace: tuple[tuple[str, str], ...] = ()
    only: str = ""

    def __call__(
        self, kernel: Kernel, *, grid: tuple[int, int, int], arguments: Sequence[Argument]
    ) -> None:
        source = kernel.source()
        seeded = self.only in ("", kernel.name)
        for old, new in self.replace if seeded else ():
            if source.count(old) == 0:
                raise ValueError(f"{kernel.file} has no {old!r} to replace")
            source = source.replace(old, new)
        library = _library(source, kernel.name)
        held = [_Held(one) for one in arguments]
        addresses = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one.value) for one in held))
        message = library.launch(
            (ctypes.c_uint * 3)(*grid), kernel.threads, kernel.shared, self.seed, addresses
        )
        if message:
            raise EmulatorError(f"{kernel.name}: {message.decode()}")
        for one in held:
            one.give_back(kernel.name)


class _Held:
    """One argument as the kernel gets it."""

    def __init__(self, argument: Argument) -> None:
        self.tensor = argument if isinstance(argument, Tensor) else None
        self.value: ctypes.c_uint64 | ctypes.c_int32 | ctypes.c_float
        if self.tensor is None:
            self.value = (
                ctypes.c_uint64(0)
                if argument is None
                else ctypes.c_int32(argument)
                if isinstance(argument, int)
                else ctypes.c_float(argument)
            )
            return
        self.bytes = _memory(self.tensor)
        self.copy = torch.full((len(self.bytes) + 2 * MARGIN + 16,), 0xFF, dtype=torch.uint8)
        self.start = MARGIN + -(self.copy.data_ptr() + MARGIN) % 16
        self.inside = self.copy[self.start : self.start + len(self.bytes)]
        self.inside.copy_(self.bytes)
        self.value = ctypes.c_uint64(self.inside.data_ptr())

    def give_back(self, name: str) -> None:
        if self.tensor is None:
            return
        after = self.copy[self.start + len(self.bytes) :]
        if not ((self.copy[: self.start] == 0xFF).all() and (after == 0xFF).all()):
            raise EmulatorError(f"{name}: written outside a tensor {tuple(self.tensor.shape)}")
        self.bytes.copy_(self.inside)


def _memory(tensor: Tensor) -> Tensor:
    """The bytes of a dense tensor in the order in which they lie."""
    order = sorted(range(tensor.dim()), key=lambda axis: (-tensor.stride(axis), axis))
    flat = tensor.permute(order)
    if not flat.is_contiguous():
        raise ValueError(f"the emulator takes dense tensors, not strides {tensor.stride()}")
    return flat.reshape(-1).view(torch.uint8)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emulator-")


@cache
def _library(source: str, name: str) -> ctypes.CDLL:
    if COMPILER is None:
        raise RuntimeError("no C++ compiler: install g++")
    key = hashlib.sha256((source + name).encode()).hexdigest()[:16]
    path = Path(_folder().name) / f"{key}.cpp"
    entry = (
        "\n#undef threadIdx\n"
        'extern "C" const char* launch(const unsigned* grid, int threads, size_t shared, u32 seed,'
        " void** arguments) {\n"
        f"  emulator::body = [](void** a) {{ emulator::apply({name}, a); }};\n"
        "  return emulator::launch(grid, threads, shared, seed, arguments);\n}\n"
    )
    path.write_text(f'#include "{HEADER}"\n' + source + entry, encoding="ascii")
    binary = path.with_suffix(".so")
    command = [COMPILER, "-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "-shared", "-fPIC"]
    built = subprocess.run([*command, "-o", binary, path], capture_output=True, text=True)
    if built.returncode:
        raise RuntimeError(f"the emulated {name} does not compile:\n{built.stderr[:4000]}")
    library = ctypes.CDLL(str(binary))
    library.launch.restype = ctypes.c_char_p
    library.launch.argtypes = [
        ctypes.POINTER(ctypes.c_uint), ctypes.c_int, ctypes.c_size_t, ctypes.c_uint32,
        ctypes.POINTER(ctypes.c_void_p),
    ]  # fmt: skip
    return library
