"""What a network will reach, by a Gaussian process over what the trained ones did.

With p(x) what is expected of such networks beforehand (`nas.prior`), in standard deviations,

    y(x) = c + b p(x) + g(x) + noise,   c ~ N(0, 1),  b ~ N(1, B),  g ~ GP(0, G Matern_5/2(L))

where y is in standard deviations too. So the very first predictions are good ones, and where
another data set disagrees with the table, b and g learn it. B, G, L and the noise are those of a
small grid with the largest marginal likelihood: no optimiser that might not converge.

Cost: O(n^3), 5 ms for n = 300, most of it the grid.
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
        hyper = _likeliest(x[late], p[late], rest[late], grid)
        factor, weights = _solved(_seen(x, p, hyper), rest)
        return cls(x, p, hyper, centre, unit, rest, factor, weights)

    def mean(self, x: Array, p: Array) -> Array:
        """What is expected of networks. p: beforehand."""
        return self._means(self._cross(x, p), p)

    def predict(self, x: Array, p: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of networks, without the noise of a training."""
        cross = self._cross(x, p)
        prior = 1 + self.hyper.slope * p**2 + self.hyper.scale
        variance = prior.copy()
        half = solve_triangular(self.factor, cross.T, lower=True)
        variance -= (half**2).sum(axis=0)
        deviation = self.unit * np.sqrt(np.maximum(variance, 1e-12 * prior))
        return self._means(cross, p), deviation

    def expecting(self, x: Array, p: Array) -> Process:
        """The process as if these networks had reached what it predicts: no mean changes."""
        if not len(x):
            return self
        mean = self.mean(x, p)
        rest = np.concatenate([self.rest, (mean - self.centre) / self.unit - p])
        x, p = np.concatenate([self.x, x]), np.concatenate([self.p, p])
        factor, weights = _solved(_seen(x, p, self.hyper), rest)
        return Process(x, p, self.hyper, self.centre, self.unit, rest, factor, weights)

    def _cross(self, x: Array, p: Array) -> Array:
        """Covariance of networks with those that were seen."""
        shape = _matern(_distances(x, self.x), self.hyper.length)
        return _covariance(np.outer(p, self.p), shape, self.hyper)

    def _means(self, cross: Array, p: Array) -> Array:
        return np.asarray(self.centre + self.unit * (p + cross @ self.weights))


def _likeliest(x: Array, p: Array, rest: Array, grid: Sequence[Hyper]) -> Hyper:
    """The point of the grid with the largest evidence; the first where nothing was seen."""
    if not len(x):
        return grid[0]
    distances, products = _distances(x, x), np.outer(p, p)
    shapes = {length: _matern(distances, length) for length in {one.length for one in grid}}

    def evidence(one: Hyper) -> float:
        """Its logarithm, up to a constant."""
        covariance = _covariance(products, shapes[one.length], one) + one.noise * np.eye(len(x))
        factor, weights = _solved(covariance, rest)
        return -0.5 * float(rest @ weights) - float(np.log(np.diag(factor)).sum())

    return max(grid, key=evidence)


def _seen(x: Array, p: Array, hyper: Hyper) -> Array:
    """Covariance of what was seen, with the noise of its trainings."""
    shape = _matern(_distances(x, x), hyper.length)
    return _covariance(np.outer(p, p), shape, hyper) + hyper.noise * np.eye(len(x))


def _solved(covariance: Array, rest: Array) -> tuple[Array, Array]:
    """Cholesky factor of K, and K^-1 rest."""
    if not len(rest):
        return np.zeros((0, 0)), rest
    factor, _ = cho_factor(covariance, lower=True, check_finite=False)
    return factor, cho_solve((factor, True), rest, check_finite=False)


def _covariance(products: Array, shape: Array, hyper: Hyper) -> Array:
    """Of c + b p + g: 1 + B p q + G Matern_5/2."""
    return 1 + hyper.slope * products + hyper.scale * shape


def _matern(distances: Array, length: float) -> Array:
    """Matern_5/2."""
    r = math.sqrt(5) * distances / length
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r))


def _distances(x: Array, y: Array) -> Array:
    """Euclidean, (n, m)."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))
