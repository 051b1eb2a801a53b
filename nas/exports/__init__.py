"""Winners for use elsewhere: one format a module of this folder.

A format is a module with the names of `Format`; adding one is adding a file here, and nothing
else. Where weights are given, a safetensors file stands beside the exported one.

    export(sized, module.state_dict(), Path("out"))
        -> [out/dw_pw_x1_1_w24.py, out/dw_pw_x1_1_w24.safetensors]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from analysis.field import Field, field
from nas.candidates import Sized
from nas.files import write_atomically
from spaces.design import Design

if TYPE_CHECKING:
    from torch import Tensor


class ExportError(ValueError):
    """An export that cannot be made; the message says why and what would be valid."""


class Format(Protocol):
    """What a module of this folder declares to be a format."""

    NAME: str
    ABOUT: str
    SUFFIX: str

    def render(self, sized: Sized, weights: str | None, facts: Mapping[str, Any]) -> str:
        """The text of the file; `weights` is the name of the safetensors file beside it."""


class Seen(NamedTuple):
    """The field of one block."""

    name: str
    design: Design
    channels: int
    features: int
    field: Field


def formats() -> dict[str, str]:
    """The formats that there are, each with its line of help."""
    return {name: module.ABOUT for name, module in _formats().items()}


def _formats() -> dict[str, Format]:
    modules = (import_module(f"{__name__}.{entry.name}") for entry in iter_modules(__path__))
    return {module.NAME: module for module in modules if hasattr(module, "render")}


def export(
    sized: Sized,
    state: Mapping[str, Tensor] | None,
    directory: Path,
    format: str = "python",
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the network, and its weights where given; returns the files.

    facts: what was measured, e.g. accuracy, test_accuracy, data. Each file is whole or absent.
    Raises ExportError for an unknown format and for a directory that cannot be written.
    """
    known = _formats()
    if format not in known:
        raise ExportError(f"unknown format {format!r}; valid are {', '.join(known)}")
    stem = file_stem(sized)
    weights = f"{stem}.safetensors" if state is not None else None
    text = known[format].render(sized, weights, facts or {})
    files = {directory / f"{stem}{known[format].SUFFIX}": text.encode()}
    if state is not None:
        from nas.exports.weights import to_bytes

        files[directory / f"{stem}.safetensors"] = to_bytes(state, sized)
    _write(files, directory)
    return list(files)


def file_stem(sized: Sized) -> str:
    """Candidate and width as a name that Python can import: `DW+PW x1-1` is `dw_pw_x1_1_w24`."""
    words = {"(": "", "*": " best", "~": " plain ", "@": " at "}
    text = "".join(words.get(c, c) for c in str(sized.candidate).lower())
    return re.sub(r"\W+", "_", text).strip("_") + f"_w{sized.width}"


def fields(sized: Sized) -> list[Seen]:
    """The information field of each block, in the order of the network."""
    seen = []
    for part in sized.network.blocks():
        if part.design is None:
            continue
        place = part.whole
        design = part.design.canonical(place.channels, place.features)
        seen.append(
            Seen(
                part.name,
                design,
                place.channels,
                place.features,
                field(design, place.channels, place.features),
            )
        )
    return seen


def _write(files: Mapping[Path, bytes], directory: Path) -> None:
    """All files, or none that was not there before."""
    new = [path for path in files if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomically(path, content)
    except OSError as error:
        for path in new:
            with suppress(OSError):
                path.unlink()
        raise ExportError(f"cannot write to {directory}: {error.strerror or error}") from error
