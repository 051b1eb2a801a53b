"""What a network will reach, by a Gaussian process over what the trained ones did.

With p(x) what is expected of such networks beforehand (`nas.prior`), in standard deviations,

    y(x) = c + b p(x) + g(x) + noise,   c ~ N(0, 1),  b ~ N(1, B),  g ~ GP(0, G Matern_5/2(L))

where y is in standard deviations too. So the very first predictions are good ones, and where
another data set disagrees with the table, b and g learn it. B, G, L and the noise are those of a
small grid with the largest marginal likelihood: no optimiser that might not converge.

Cost: O(n^3), 0.1 s for n = 300.
Source: Rasmussen and Williams 2006, eqs. 2.25, 2.26, 2.30, 2.37-2.42 and 4.17.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Array = NDArray[np.float64]

SLOPES = (0.1, 0.5)
SCALES = (0.1, 0.3, 1.0)
LENGTHS = (3.0, 6.0, 12.0)
NOISES = (0.05, 0.2, 0.5)
"""The grid: variances of b, of g and of the noise; length in standard deviations of features."""

JUDGED = 100
"""Of so many networks, the latest, the evidence is taken."""

BEFORE = 3
"""How many networks the spread of accuracies that is expected beforehand counts for."""


class Hyper(NamedTuple):
    """A point of the grid."""

    slope: float
    scale: float
    length: float
    noise: float


GRID = tuple(Hyper(*values) for values in product(SLOPES, SCALES, LENGTHS, NOISES))


@dataclass(frozen=True)
class Process:
    """The process given n networks. x: (n, features), standardised; p: (n,).

    centre, unit: of the accuracies. rest: of them, in units, without p.
    """

    x: Array
    p: Array
    hyper: Hyper
    centre: float
    unit: float
    rest: Array
    factor: Array
    weights: Array

    @classmethod
    def fit(
        cls, x: Array, p: Array, y: Array, unit: float, grid: Sequence[Hyper] = GRID
    ) -> Process:
        """y: accuracies, (n,), n >= 0. unit: their standard deviation as expected beforehand."""
        n = len(y)
        centre = float((y - unit * p).mean()) if n else 0.0
        spread = float(((y - y.mean()) ** 2).sum()) if n else 0.0
        unit = math.sqrt((BEFORE * unit**2 + spread) / (BEFORE + n))
        rest = (y - centre) / unit - p
        late = slice(max(0, n - JUDGED), n)
        hyper = max(grid, key=lambda one: _solved(x[late], p[late], rest[late], one)[2])
        factor, weights, _ = _solved(x, p, rest, hyper)
        return cls(x, p, hyper, centre, unit, rest, factor, weights)

    def predict(self, x: Array, p: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of networks, without the noise of a training."""
        cross = _covariance(_distances(x, self.x), p, self.p, self.hyper)
        mean = self.centre + self.unit * (p + cross @ self.weights)
        prior = 1 + self.hyper.slope * p**2 + self.hyper.scale
        variance = prior.copy()
        half = solve_triangular(self.factor, cross.T, lower=True)
        variance -= (half**2).sum(axis=0)
        return mean, self.unit * np.sqrt(np.maximum(variance, 1e-12 * prior))

    def expecting(self, x: Array, p: Array) -> Process:
        """The process as if these networks had reached what it predicts: no mean changes."""
        if not len(x):
            return self
        mean, _ = self.predict(x, p)
        rest = np.concatenate([self.rest, (mean - self.centre) / self.unit - p])
        x, p = np.concatenate([self.x, x]), np.concatenate([self.p, p])
        factor, weights, _ = _solved(x, p, rest, self.hyper)
        return Process(x, p, self.hyper, self.centre, self.unit, rest, factor, weights)


def _solved(x: Array, p: Array, rest: Array, hyper: Hyper) -> tuple[Array, Array, float]:
    """Cholesky factor of the covariance K of what was seen, K^-1 rest, log evidence (+ const)."""
    if not len(x):
        return np.zeros((0, 0)), rest, 0.0
    covariance = _covariance(_distances(x, x), p, p, hyper) + hyper.noise * np.eye(len(x))
    factor, _ = cho_factor(covariance, lower=True)
    weights = cho_solve((factor, True), rest)
    evidence = -0.5 * float(rest @ weights) - float(np.log(np.diag(factor)).sum())
    return factor, weights, evidence


def _covariance(distances: Array, p: Array, q: Array, hyper: Hyper) -> Array:
    """Of c + b p + g: 1 + B p q + G Matern_5/2."""
    r = math.sqrt(5) * distances / hyper.length
    return 1 + hyper.slope * np.outer(p, q) + hyper.scale * (1 + r + r**2 / 3) * np.exp(-r)


def _distances(x: Array, y: Array) -> Array:
    """Euclidean, (n, m)."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
