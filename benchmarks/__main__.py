"""`python -m benchmarks` lists the benchmarks; `python -m benchmarks NAME ...` runs one."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("[!_]*.py")
    if path.stem not in {"machine", "layers", "timing"}
)


def main(arguments: list[str]) -> int:
    """Exit code of the benchmark, 2 for an unknown one."""
    if not arguments or arguments[0] not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [--help]", file=sys.stderr)
        return 2
    name, *rest = arguments
    code: int = import_module(f"benchmarks.{name}").main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
