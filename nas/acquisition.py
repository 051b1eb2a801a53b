"""Which of many networks to train next: the largest expected improvement.

    EI(m, s, b) = s (z Phi(z) + phi(z)),   z = (m - b) / s

over the best b so far. With several objectives each limit u of the costs is a search of its own,
whose best b(u) is the best accuracy within u. Costs are known before training, so the improvement
of the hypervolume (`nas.objectives`) is in expectation that of accuracy, averaged over the limits:

    EHVI(x) = mean over u of [costs(x) <= u] EI(m(x), s(x), b(u)).

b is of the predictions for trained networks, not of their noisy results.
Sources: Jones et al. 1998, eq. 15; Emmerich et al. 2006.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

from nas.surrogate import Array

LIMITS = 256
"""Points u over which the improvement is averaged."""


def expected_improvement(mean: Array, deviation: Array, best: Array | float) -> Array:
    """Elementwise; all arguments broadcast."""
    z = (mean - best) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))


def improvement(
    mean: Array, deviation: Array, costs: Array, trained: Array, trained_costs: Array, seed: int
) -> Array:
    """EHVI of n candidates. costs: (n, m), scaled to [0, 1], m >= 0; trained: predicted means of
    the t trained networks, with costs (t, m). Where none is trained, or none within a limit, the
    least of all predictions is the best so far."""
    floor = float(np.concatenate([trained, mean]).min())
    if not costs.shape[1]:
        return expected_improvement(mean, deviation, trained.max(initial=floor))
    limits = np.random.default_rng(seed).random((LIMITS, costs.shape[1]))
    within = (trained_costs[None] <= limits[:, None]).all(axis=2)
    best = np.where(within, trained, floor).max(axis=1, initial=floor)
    fits = (costs[None] <= limits[:, None]).all(axis=2)
    gains = expected_improvement(mean[None], deviation[None], best[:, None])
    return np.asarray(np.where(fits, gains, 0.0).mean(axis=0))
