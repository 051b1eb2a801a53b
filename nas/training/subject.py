"""What a real training trains: a rank of a run, an exported specification, or a network by name.

    find("runs/first", 1, shape)            the network of this rank, for data of another shape too
    find("mine/dw_pw.json", 1, shape)       what `leanfield export --format json` wrote
    find("UNet(small, DW+PW)", 1, shape)    a layout of `spaces.layout`

A classifier takes the inputs and classes of the data at hand, at the width that it has. For
segmentation, its design takes the place of the convolutions of a small U-net.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.theorems import resolve
from nas.candidates import Entry, Sized, Task
from nas.datasets.labelled import Shape
from nas.files import RunError
from nas.rivals import entry_from_dict
from nas.table import table
from spaces.design import Design
from spaces.layout import network
from spaces.operator import DesignError

if TYPE_CHECKING:
    import torch
    from torch import nn

UNET = "UNet(small{})"


@dataclass(frozen=True)
class Subject:
    """A network, as JSON can hold it: `entry` (a candidate at a width) or `layout` (a name)."""

    title: str
    shape: Shape
    entry: Mapping[str, Any] | None = None
    layout: str | None = None

    def module(self, seed: int) -> nn.Module:
        """With weights that the seed settles."""
        import torch

        if self.entry is not None:
            return entry_from_dict(dict(self.entry)).module(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(self.layout or "", _input(self.shape), self.shape.classes).module()

    @property
    def sized(self) -> Sized | None:
        """The candidate that can be exported as code, None for a layout and a user's block."""
        found = entry_from_dict(dict(self.entry)) if self.entry is not None else None
        return found if isinstance(found, Sized) else None

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, but for a user's block, which may call `view` on its maps."""
        import torch

        own = self.entry is not None and self.sized is None
        return torch.contiguous_format if own else torch.channels_last

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Subject:
        return cls(data["title"], Shape(**data["shape"]), data["entry"], data["layout"])


def data_of(target: str) -> str | None:
    """The data that a run was searched on, None for any other target."""
    from nas.run import read_record

    path = Path(target)
    return read_record(path).settings.data if path.is_dir() else None


def find(target: str, rank: int, shape: Shape, *, segmentation: bool = False) -> Subject:
    """The network that `target` names, for data of this shape.

    Raises RunError or DesignError that say what was found and what would be valid.
    """
    path = Path(target)
    if path.is_dir():
        entry = _ranked(path, rank)
    elif path.suffix == ".json":
        entry = _exported(path)
    else:
        try:
            network(target, _input(shape), shape.classes)
        except DesignError as error:
            raise RunError(
                f"{target!r} is no run folder, no exported .json file and no network: {error}"
            ) from error
        return Subject(target, shape, layout=target)
    if segmentation:
        return _in_unet(entry, shape)
    sized = entry.candidate.sized(Task(_input(shape), shape.classes), entry.width)  # type: ignore[attr-defined]
    return Subject(sized.title, shape, entry=sized.to_dict())


def _ranked(folder: Path, rank: int) -> Entry:
    rows = [row for row in table(folder) if row.rank is not None and row.network is not None]
    row = next((row for row in rows if row.rank == rank), None)
    if row is None or row.network is None:
        found = f"valid ranks are 1 to {len(rows)}" if rows else "nothing is ranked yet"
        raise RunError(f"{folder} has no rank {rank}; {found}")
    return entry_from_dict(dict(row.network))


def _exported(path: Path) -> Entry:
    try:
        return Sized.from_dict(json.loads(path.read_text(encoding="utf-8"))["network"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is no specification of a network ({error}); valid is what "
            "`leanfield export --format json` writes"
        ) from error


def _in_unet(entry: Entry, shape: Shape) -> Subject:
    """The design of a candidate in each stage of the small U-net, best group numbers settled."""
    if not isinstance(entry, Sized):
        raise RunError(f"{entry.title} is your own block, which has no place in a U-net")
    design = entry.candidate.design
    plain = network(UNET.format(""), _input(shape), shape.classes)
    widths = {p.name: p.entry.channels for p in plain.parts if p.name.startswith("stage")}
    rules = "".join(f", {name}.*={_settled(design, c)}" for name, c in widths.items())
    layout = UNET.format(rules)
    network(layout, _input(shape), shape.classes)
    return Subject(f"{design} in a U-net", shape, layout=layout)


def _settled(design: Design, channels: int) -> Design:
    return resolve(design, channels, channels) if design.is_family else design


def _input(shape: Shape) -> tuple[int, int, int]:
    return shape.channels, shape.height, shape.width
