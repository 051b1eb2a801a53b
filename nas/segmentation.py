"""How well a segmentation, a class for each pixel, agrees with the truth.

    IoU of class i = n_ii / (sum_j n_ij + sum_j n_ji - n_ii),    n_ij pixels of class i called j

over all pixels of a split; the mean is over the classes that occur. Unlike the share of pixels
that are right, it gives the background no more weight than a rare class.

Source: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation",
section 5 ("mean IU").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


def confusion(truth: Labels, called: Labels, classes: int) -> NDArray[np.int64]:
    """n[i, j]: how many pixels of class i are called j. Both arrays hold 0..classes-1.

    Raises ValueError where the shapes differ or a label is out of range.
    """
    if truth.shape != called.shape:
        raise ValueError(f"truth has shape {truth.shape} and called {called.shape}; must be equal")
    for name, labels in (("truth", truth), ("called", called)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            found = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"{name} has labels {found}; valid are 0 to {classes - 1}")
    pairs = classes * truth.reshape(-1) + called.reshape(-1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class; NaN for one neither there nor called."""
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    unions = np.where(union > 0, union, np.nan)
    result: NDArray[np.float64] = np.diag(matrix) / unions
    return result


def mean_iou(matrix: NDArray[np.int64]) -> float:
    """The mean over the classes that are there or called."""
    return float(np.nanmean(class_iou(matrix)))


def constant_mean_iou(truth: Labels) -> float:
    """The mean IoU of the best predictor that calls all pixels the same.

    It has the IoU share(i) for its class i and 0 for all others that occur.
    """
    _, counts = np.unique(truth, return_counts=True)
    return float(counts.max() / truth.size / len(counts))
