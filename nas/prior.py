"""What is expected of a network before anything is trained: SparseKernelBench, generalised.

A Gaussian process over the features of the table's designs. Sizes (parameters, multiplications,
traffic, width) are taken relative to those of the space, since between data sets and budgets only
differences carry over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from nas.candidates import Candidate
from nas.features import SHAPES, SIZES, features
from nas.sparse_kernel_bench import BRIEF, SparseKernelBench
from nas.sparse_kernel_bench.designs import TASK
from nas.surrogate import Array, Hyper, Process
from spaces.design import parse

if TYPE_CHECKING:
    import pandas as pd

RARE = 0.05
"""Standard deviation of a feature at least: one that the table hardly varies is not blown up."""
SYMBOLS = 2.0
"""How many standard deviations of an operator's count make one: there are many operators, and what
they are says less than what they see."""
GRID = tuple(
    Hyper(0.0, scale, length, noise)
    for scale in (0.3, 1.0, 2.0)
    for length in (1.5, 3.0, 6.0, 12.0)
    for noise in (0.05, 0.2, 0.5)
)


@dataclass(frozen=True)
class Prior:
    """p(x): accuracy in standard deviations, of features that are centred on a space."""

    process: Process
    centre: Array
    scale: Array
    mean: float
    unit: float

    @classmethod
    def fit(cls, raw: Array, accuracy: Array) -> Prior:
        """raw: features, (n, features). accuracy: (n,)."""
        centre, scale = raw.mean(axis=0), np.maximum(raw.std(axis=0), RARE)
        scale[len(SIZES) + len(SHAPES) :] *= SYMBOLS
        nothing = np.zeros(len(raw))
        mean, unit = float(accuracy.mean()), float(accuracy.std())
        process = Process.fit((raw - centre) / scale, nothing, accuracy, unit, GRID)
        return cls(process, centre, scale, mean, unit)

    def standardised(self, raw: Array, space: Array) -> Array:
        """Features, (n, features), with sizes relative to those of a space, (m, features)."""
        centre = self.centre.copy()
        sizes = len(SIZES)
        centre[:sizes] = np.median(space[:, :sizes], axis=0)
        return np.asarray((raw - centre) / self.scale)

    def expected(self, x: Array) -> Array:
        """p of standardised features."""
        mean = self.process.mean(x, np.zeros(len(x)))
        return np.asarray((mean - self.mean) / self.unit)


def raw_features(pairs: pd.DataFrame) -> Array:
    """Features of designs of SparseKernelBench, from the columns block, blocks and width."""
    columns = zip(pairs["block"], pairs["blocks"], pairs["width"], strict=True)
    found = [
        features(
            Candidate(parse(block), tuple(map(int, blocks.split("-")))).sized(TASK, int(width))
        )
        for block, blocks, width in columns
    ]
    return np.array(found)


@cache
def bundled() -> Prior:
    """Of all designs of the table, by their brief training. Cost: a few seconds, once a process."""
    bench = SparseKernelBench.load()
    accuracies = bench.accuracies(BRIEF).mean(axis=1).dropna()
    pairs = bench.pairs(BRIEF).set_index(["design", "budget"]).loc[accuracies.index]
    return Prior.fit(raw_features(pairs), accuracies.to_numpy(float))
