"""What is installed here, which back ends serve, and who else owns our import names."""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from kernels.backends import Backend, MissingComponentError, backends

OWN = ("kernels", "spaces", "analysis", "nas")
DISTRIBUTION = "leanfield"


@dataclass(frozen=True)
class Report:
    """packages: distribution -> version or None; kernels: way of computing on the CPU -> what it is
    here, or why it does not serve; clashes: import name -> other owners."""

    python: str
    machine: str
    packages: dict[str, str | None]
    backends: tuple[Backend, ...]
    kernels: dict[str, str]
    clashes: dict[str, list[str]]

    @property
    def missing(self) -> list[str]:
        """Core distributions that are not installed."""
        return [name for name, version in self.packages.items() if version is None]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"missing": self.missing}

    def __str__(self) -> str:
        lines = [f"Python {self.python} on {self.machine}"]
        for name, version in self.packages.items():
            lines.append(f"  {name:<14}{version or f'missing: pip install {name}'}")
        lines.append("back ends")
        for b in self.backends:
            state = "serves" if b.serves else "does not serve"
            lines.append(f"  {b.name:<14}{state} {b.version or ''} ({b.detail})")
        lines.append("kernels on the CPU")
        for name, state in self.kernels.items():
            lines.append(f"  {name:<14}{state}")
        for name, owners in self.clashes.items():
            lines.append(
                f"warning: the import name {name!r} also belongs to {', '.join(owners)}; "
                "use an environment of its own for leanfield"
            )
        return "\n".join(lines)


def diagnose() -> Report:
    """Look at this environment; imports the back ends."""
    return Report(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        packages={name: _version(name) for name in _requirements()},
        backends=backends(),
        kernels=_kernels(),
        clashes=_clashes(),
    )


def _kernels() -> dict[str, str]:
    """What the operations can be served by, and where their table of choices lies."""
    try:
        import torch

        from kernels import choice
        from kernels.jit import maps
        from kernels.lean.cpu import why_not_adding
    except ImportError as error:
        return {"torch": f"does not serve: {error}"}
    probe = torch.zeros(1, 1, 2, 2).to(memory_format=torch.channels_last)
    generated = maps.why_not(probe)
    if generated is None:
        from kernels.jit.machine import vectors

        generated = f"serves: vectors of {vectors().lanes} floats"
    adding = why_not_adding(probe)
    table = choice.file()
    known = f"{len(choice.table())} in {table}" if table.exists() else f"none yet in {table}"
    return {
        "llvm": generated,
        "onednn": "serves" if adding is None else adding,
        "torch": f"serves: {torch.get_num_threads()} threads",
        "choices": known,
    }


def _requirements() -> list[str]:
    """The core dependencies as the installed distribution declares them.

    Raises MissingComponentError where leanfield runs from its sources without being installed.
    """
    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise MissingComponentError("leanfield is not installed; pip install -e .") from None
    core = (text for text in declared if "extra ==" not in text)
    return sorted(re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0] for text in core)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _clashes() -> dict[str, list[str]]:
    owners = metadata.packages_distributions()
    others = {name: sorted({*owners.get(name, [])} - {DISTRIBUTION}) for name in OWN}
    return {name: found for name, found in others.items() if found}
