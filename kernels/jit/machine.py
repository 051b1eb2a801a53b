"""The vector unit at hand, compiling for it, and running compiled work on torch's own threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, cast

import llvmlite.binding as llvm

Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Vectors(NamedTuple):
    """lanes: floats of a vector. pixels: rows of the tile that is kept in registers."""

    lanes: int
    pixels: int


@cache
def vectors() -> Vectors:
    """What the processor has: 32 registers of 16 floats (AVX-512), 16 of 8 (AVX2), or 32 of 4."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Vectors(16, 14)
    if features.get("avx2") and features.get("fma"):
        return Vectors(8, 6)
    return Vectors(4, 12)


def _target() -> llvm.TargetMachine:
    """Of its own for every piece of code, which frees it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        jit=True,
    )


class Compiled:
    """The function `work` of a piece of LLVM code, which takes a row of named 64-bit numbers, the
    first of them a ticket that threads draw from. It lives as long as this object."""

    def __init__(self, text: str, fields: Sequence[str]) -> None:
        module = llvm.parse_assembly(text)
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, _target())
        self._engine.finalize_object()
        self.fields = tuple(fields)
        self._address = self._engine.get_function_address("work")
        self._call = Work(self._address)
        self._row = ctypes.c_int64 * len(fields)

    def __call__(self, threads: int, **values: int) -> None:
        """Run on this many threads at once. The ticket starts at 0."""
        row = self._row(0, *(values[name] for name in self.fields[1:]))
        if threads == 1:
            self._call(ctypes.addressof(row))
            return
        team = openmp()
        if team is None:
            raise RuntimeError("torch's OpenMP runtime does not answer; use one thread")
        team(self._address, ctypes.addressof(row), threads, 0)


@cache
def openmp() -> Callable[[int, int, int, int], None] | None:
    """GOMP_parallel of the runtime that torch has loaded, so that there is one pool of threads."""
    try:
        found = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    found.restype = None
    return cast(Callable[[int, int, int, int], None], found)
