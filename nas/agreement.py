"""How far two rankings of the same designs agree, and how sure that is.

    kendall(brief, long)                        tau-b: -1 reversed, 0 unrelated, 1 equal
    spearman(brief, long)                       correlation of the ranks
    top_recall(brief, long, k=10)               share of the true best 10 that the first 10 hold
    partial(brief, long, held=params)           tau with a third ranking held fixed
    bootstrap(kendall, brief, long)             Interval(value, low, high) over designs
    ceiling(long_by_seed)                       what the noise of the reference allows

A column is one number a design, in one order for all columns; larger is better. A statistic that
is not defined, for a column that is constant, is NaN. Every function raises ValueError for columns
of different lengths, of fewer than two designs, or with a number that is not finite.

Tau-b is Kendall's (Biometrika 1945), which ties do not spoil: with s_ij(x) = sign(x_i - x_j),

    tau(x, y) = sum s_ij(x) s_ij(y) / sqrt(sum s_ij(x)^2  sum s_ij(y)^2).

Cost: O(n^2) a statistic of n designs, times the rounds of a bootstrap (0.2 s for 100 designs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[..., float]

ROUNDS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic and the ends between which it lies with the probability asked for."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Ceiling(NamedTuple):
    """What a ranking can reach against noisy references, as tau.

    single: one training against another, as observed. mean: one training like these against the
    mean of them all. noiseless: a ranking without any noise against that mean.
    """

    single: float
    mean: float
    noiseless: float


def kendall(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b.

    >>> kendall([1, 2, 3, 4], [1, 2, 4, 3])
    0.6666666666666666
    """
    a, b = (_signs(column) for column in _columns(first, second))
    scale = math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale else math.nan


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's correlation of the ranks, those of ties averaged."""
    a, b = (_ranks(column) for column in _columns(first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def top_recall(found: ArrayLike, truth: ArrayLike, k: int) -> float:
    """The share of the truly best k among the first k found; of ties the average over all orders.

    Raises ValueError unless 1 <= k <= number of designs.

    >>> top_recall([3, 2, 1, 0], [3, 0, 2, 1], k=2)
    0.5
    """
    columns = _columns(found, truth)
    if not 1 <= k <= len(columns[0]):
        raise ValueError(f"k is {k}; there are {len(columns[0])} designs, so valid are 1 to that")
    chosen, best = (_chances(column, k) for column in columns)
    return float(chosen @ best) / k


def partial(first: ArrayLike, second: ArrayLike, held: ArrayLike) -> float:
    """Kendall's partial tau (Biometrika 1942): the agreement that `held` does not explain.

        (t_12 - t_13 t_23) / sqrt((1 - t_13^2) (1 - t_23^2))

    Where `held` is constant nothing is explained, and the plain tau is left. Two columns that are
    `held` plus independent noise keep a small partial tau, unlike a partial correlation.
    """
    plain = kendall(first, second)
    _, _, fixed = _columns(first, second, held)
    if np.ptp(fixed) == 0:
        return plain
    one, two = kendall(first, held), kendall(second, held)
    scale = math.sqrt((1 - one * one) * (1 - two * two))
    return (plain - one * two) / scale if scale > 1e-12 else math.nan


def bootstrap(
    statistic: Statistic,
    *columns: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    rounds: int = ROUNDS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The statistic of the columns with its percentile interval (Efron 1979).

    Designs are drawn with replacement, the rows of all columns together. groups: rows of one group
    (one design at two budgets) are drawn together, since they are not independent. Rounds in which
    the statistic is undefined are left out. For a difference, pass a function of three columns:
    `bootstrap(lambda b, p, l: kendall(b, l) - kendall(p, l), brief, params, long)`.
    """
    whole = _columns(*columns)
    if rounds < 1 or not 0 < level < 1:
        raise ValueError(f"rounds is {rounds} and level {level}; valid are 1 or more and 0 to 1")
    members = _members(groups, len(whole[0]))
    random = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in drawn])
        values.append(statistic(*(column[rows] for column in whole)))
    defined = np.asarray(values)[np.isfinite(values)]
    value = statistic(*whole)
    if not len(defined):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def ceiling(repeats: ArrayLike) -> Ceiling:
    """What the noise of a reference (n designs, r >= 2 independent trainings) allows.

    Each training is taken as truth plus independent noise of one size. With rho the correlation of
    two trainings, one training correlates with the mean of r as sqrt(rho R) and the truth as
    sqrt(R), where R = r rho / (1 + (r - 1) rho) (Spearman 1910, Brown 1910). Kendall's tau is
    carried over by Greiner's relation tau = 2/pi asin(rho), which holds for normal columns.
    """
    table = np.asarray(repeats, float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(
            f"repeats have shape {table.shape}; a row a design and 2 or more trainings are needed"
        )
    count = table.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i)]
    single = float(np.mean([kendall(table[:, i], table[:, j]) for i, j in pairs]))
    rho = max(0.0, math.sin(math.pi / 2 * single))
    reliability = count * rho / (1 + (count - 1) * rho)
    return Ceiling(single, _greiner(math.sqrt(rho * reliability)), _greiner(math.sqrt(reliability)))


def _greiner(correlation: float) -> float:
    return 2 / math.pi * math.asin(min(1.0, correlation))


def _columns(*given: ArrayLike) -> list[Floats]:
    columns = [np.asarray(column, float) for column in given]
    shapes = [column.shape for column in columns]
    if len(set(shapes)) != 1 or columns[0].ndim != 1 or len(columns[0]) < 2:
        raise ValueError(f"columns have shapes {shapes}; one length of 2 or more is needed")
    if not all(np.isfinite(column).all() for column in columns):
        raise ValueError("a column holds NaN or infinity; leave out what has no value")
    return columns


def _signs(column: Floats) -> Floats:
    """sign(x_i - x_j) for all pairs."""
    return np.sign(column[:, None] - column)


def _ranks(column: Floats) -> Floats:
    """From 0 for the smallest, ties averaged."""
    return (len(column) - 1 + _signs(column).sum(axis=1)) / 2


def _chances(column: Floats, k: int) -> Floats:
    """With which chance each design is among the k largest, ties broken at random."""
    above = (column[:, None] < column).sum(axis=1)
    equal = (column[:, None] == column).sum(axis=1)
    return np.clip((k - above) / equal, 0.0, 1.0)


def _members(groups: Sequence[Hashable] | None, count: int) -> list[NDArray[np.int64]]:
    """The rows of each group, in the order of their first."""
    if groups is None:
        return [np.array([row]) for row in range(count)]
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups are given for {count} designs; one each is needed")
    found: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        found.setdefault(group, []).append(row)
    return [np.array(rows) for rows in found.values()]
