"""Which compute back ends serve here, and how to get one that does not.

Nothing is substituted in silence: whoever needs a back end calls `require`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

REMEDIES = {
    "torch": "pip install 'torch>=2.8,<2.14'",
    "numba": "pip install numba",
    "cupy": "pip install 'leanfield[gpu]' on a machine with an NVIDIA GPU and its driver",
}


class MissingComponentError(RuntimeError):
    """A component that was asked for is not there; the message says how to get it."""


@dataclass(frozen=True)
class Backend:
    """One back end: whether it serves, its version, and what is missing otherwise."""

    name: str
    serves: bool
    version: str | None
    detail: str


def backend(name: str) -> Backend:
    """Look at one back end by importing it. Raises ValueError for an unknown name."""
    if name not in REMEDIES:
        raise ValueError(f"unknown back end {name!r}; known are {', '.join(REMEDIES)}")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Backend(name, False, None, f"{error}; {REMEDIES[name]}")
    if name == "cupy":
        try:
            count = module.cuda.runtime.getDeviceCount()
        except module.cuda.runtime.CUDARuntimeError as error:
            return Backend(name, False, module.__version__, f"{error}; {REMEDIES[name]}")
        return Backend(name, count > 0, module.__version__, f"{count} CUDA devices")
    return Backend(name, True, module.__version__, "CPU")


def backends() -> tuple[Backend, ...]:
    """All back ends, in the order in which a user is likely to want them."""
    return tuple(backend(name) for name in REMEDIES)


def require(name: str) -> Backend:
    """The back end, or MissingComponentError with its remedy."""
    found = backend(name)
    if not found.serves:
        raise MissingComponentError(f"{name} does not serve here: {found.detail}")
    return found
