"""A kernel as it is compiled: a file, its macros, and the resources that its design claims."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from torch import Tensor

FOLDER = Path(__file__).resolve().parent.parent
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)

Argument = Tensor | int | float | None
"""A tensor is passed as its address and None as a null pointer, an int as 32 bits, a float as
fp32."""


@dataclass(frozen=True)
class Kernel:
    """One instance of a kernel.

    file: below `kernels/`. name: of the function. macros: what `-D` would define. threads: of a
    block. shared: bytes of dynamic shared memory of a block. blocks: how many blocks an SM holds at
    once by design (sm_90); the tests hold registers and shared memory to it.
    """

    file: str
    name: str
    macros: tuple[tuple[str, int], ...]
    threads: int
    shared: int
    blocks: int = 1

    def source(self) -> str:
        """The whole text: macros, then the file with its includes put in, each once."""
        defined = "".join(f"#define {name} {value}\n" for name, value in self.macros)
        return defined + _expanded(self.file, set())


class Run(Protocol):
    """Something that runs a kernel: a GPU through `launch`, or the emulator of the tests."""

    def __call__(
        self, kernel: Kernel, *, grid: tuple[int, int, int], arguments: Sequence[Argument]
    ) -> None: ...


def _expanded(file: str, seen: set[str]) -> str:
    if file in seen:
        return ""
    seen.add(file)

    def included(found: re.Match[str]) -> str:
        beside = str(Path(file).parent / found[1])
        return _expanded(beside if (FOLDER / beside).exists() else f"cuda/{found[1]}", seen)

    return _INCLUDE.sub(included, _read(file)).replace("#pragma once\n", "")


@cache
def _read(file: str) -> str:
    return (FOLDER / file).read_text(encoding="ascii")
