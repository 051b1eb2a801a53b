"""Compile a kernel without a GPU: NVRTC through ctypes, and what its assembler says of resources.

Needs the PyPI package `nvidia-cuda-nvrtc` (extra `[test]`) or the NVRTC of a CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernels.backends import MissingComponentError
from kernels.cuda.launch import OPTIONS
from kernels.cuda.source import Kernel

REGISTERS = 65536  # of an SM, 32 bits each
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}  # bytes that blocks of an SM may take
RESERVED = 1024  # bytes of shared memory that the system takes of each block


@dataclass(frozen=True)
class Compiled:
    """registers: of a thread. spills: bytes of stores and loads. log: the assembler's words."""

    binary: bytes
    registers: int
    spills: int
    log: str

    def blocks(self, kernel: Kernel, architecture: str) -> int:
        """Blocks that an SM holds at once, by registers, threads and shared memory."""
        by_thread = REGISTERS // (-(-self.registers // 8) * 8 * kernel.threads)
        by_shared = SHARED[architecture] // (kernel.shared + RESERVED)
        return min(by_thread, 2048 // kernel.threads, by_shared)


class CompileError(RuntimeError):
    """NVRTC refused the source; the message holds its log."""


def compile_kernel(kernel: Kernel, architecture: str) -> Compiled:
    """The binary for "sm_80" or "sm_90". Raises CompileError, MissingComponentError."""
    library = _library()
    program = ctypes.c_void_p()
    source = kernel.source().encode()
    library.nvrtcCreateProgram(ctypes.byref(program), source, kernel.file.encode(), 0, None, None)
    options = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *OPTIONS]
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = library.nvrtcCompileProgram(program, len(options), words)
    try:
        log = _text(library, "ProgramLog", program).decode(errors="replace")
        if status:
            raise CompileError(f"{kernel.file} {dict(kernel.macros)} for {architecture}:\n{log}")
        binary = _text(library, "CUBIN", program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    spills = sum(int(found) for found in re.findall(r"(\d+) bytes spill", log))
    registers = re.search(r"Used (\d+) registers", log)
    if registers is None:
        raise CompileError(f"{kernel.file}: no word on registers in the log:\n{log}")
    return Compiled(binary, int(registers[1]), spills, log)


def _text(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


@cache
def _library() -> ctypes.CDLL:
    """NVRTC from the PyPI package, else from the system."""
    folders = [Path(folder) / "nvidia" for folder in sys.path]
    found = [path for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    names = [*map(str, found), "libnvrtc.so"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingComponentError("NVRTC is not here; pip install nvidia-cuda-nvrtc")
