"""Rankings that cost no training: what a ranking by training has to beat.

    trivial(row)                  params, mults, traffic, width, depth and the information field
    training_free(entry, data)    the scores of `nas.scores`

Larger ranks first. Where one does not exist (the field of a user's own block), it is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from analysis.field import field
from nas.candidates import Entry, Sized
from nas.datasets.labelled import Dataset
from nas.rivals import entry_from_dict
from nas.table import Row
from spaces.design import parse

TRIVIAL = ("params", "mults", "traffic", "width", "depth", "field size", "field volume")
FREE = ("naswot", "gradient", "snip", "synflow")

IMAGES = 64
SEEDS = (0, 1, 2)

Ranking = Mapping[str, float | None]


def trivial(row: Row) -> Ranking:
    """The values of TRIVIAL for a trained network, costs as the limits count them."""
    entry = entry_from_dict(dict(row.network or {}))
    size, volume = field_of(entry) if isinstance(entry, Sized) else (None, None)
    values = (row.params, row.mults, row.traffic, row.width, sum(row.blocks or ()), size, volume)
    return dict(zip(TRIVIAL, values, strict=True))


def field_of(entry: Sized) -> tuple[int, int]:
    """Columns x rows x channels of the first block's information field, and its volume."""
    seen = field(parse(entry.layers[0]), entry.width)
    here = (entry.task.input[1], entry.task.input[2], entry.width)
    size = math.prod(most if n == "all" else n for n, most in zip(seen.size, here, strict=True))
    return size, size if seen.volume == "all" else seen.volume


def training_free(entry: Entry, data: Dataset) -> Ranking:
    """The values of FREE on the first images of the train split, means over initial weights.

    None for a user's own block that the scores cannot read.
    """
    import torch

    from nas.scores import scores

    images = torch.from_numpy(data.train.images[:IMAGES])
    labels = torch.from_numpy(data.train.labels[:IMAGES])
    try:
        found = [scores(entry.module(seed), images, labels) for seed in SEEDS]
    except (ValueError, RuntimeError):
        if isinstance(entry, Sized):
            raise
        return dict.fromkeys(FREE)
    means = [fmean(column) for column in zip(*found, strict=True)]
    return {
        name: mean if math.isfinite(mean) else None for name, mean in zip(FREE, means, strict=True)
    }
