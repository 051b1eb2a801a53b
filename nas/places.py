"""Which designs their seeds cannot tell apart: these share a place.

    found = noise([[0.61, 0.63, 0.60], [0.58, 0.57, 0.60], [0.40]])
    found                                                  Noise(deviation=0.0153, freedom=4)
    places([[0.61, 0.63, 0.60], [0.58, 0.57, 0.60], [0.40]])         [[0, 1], [2]]

Two designs with the means of n_a and n_b trainings are told apart where

    |mean_a - mean_b| > t(0.975, f) s sqrt(1 / n_a + 1 / n_b),

Student's interval for a difference of means, with s the deviation between the seeds of a design,
pooled over all designs that have several, and f its degrees of freedom. So a design that was
trained once is judged by the deviation of the others; where each was trained once, nothing says
how large the noise is, and nothing is told apart. All designs have the same seeds: what these have
in common cancels in a difference, so s is too large for it rather than too small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import NamedTuple

LEVEL = 0.95


class Noise(NamedTuple):
    """The pooled deviation between the seeds of a design; freedom 0: nothing is known of it."""

    deviation: float
    freedom: int

    def margin(self, first: int, second: int) -> float:
        """The difference between means of so many seeds beyond which two designs are told apart."""
        if self.freedom == 0:
            return math.inf
        from scipy.special import stdtrit

        student = float(stdtrit(self.freedom, (1 + LEVEL) / 2))
        return student * self.deviation * math.sqrt(1 / first + 1 / second)


def noise(samples: Sequence[Sequence[float]]) -> Noise:
    """From the accuracies of each design, one a seed."""
    several = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    squares = sum(variance(sample) * (len(sample) - 1) for sample in several)
    return Noise(math.sqrt(squares / freedom) if several else math.nan, freedom)


def places(samples: Sequence[Sequence[float]]) -> list[list[int]]:
    """The designs of each place, by their index.

    Taken in the order given: the first that has no place yet, and all later ones that cannot be
    told from it, share the next place. Cost: designs times places.
    """
    found = noise(samples)
    margins = {
        (first, second): found.margin(first, second)
        for first in {len(sample) for sample in samples}
        for second in {len(sample) for sample in samples}
    }
    means = [fmean(sample) for sample in samples]

    def together(first: int, second: int) -> bool:
        margin = margins[len(samples[first]), len(samples[second])]
        return abs(means[first] - means[second]) <= margin

    left, shared = list(range(len(samples))), []
    while left:
        head = left[0]
        shared.append([index for index in left if together(head, index)])
        left = [index for index in left if not together(head, index)]
    return shared
