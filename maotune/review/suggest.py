"""Which images of a pool to label next: those that a model is unsure of, and that differ from one another."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

_CANDIDATES = 10
"""Images among which one is chosen: the most uncertain ones."""


def choose_images(features: np.ndarray, probabilities: np.ndarray | None, count: int) -> list[int]:
    """Return the numbers of ``count`` images, the most uncertain first.

    The most uncertain images, by the margin of the two most probable classes, are grouped by their features (k-means,
    weighted by uncertainty), and the image next to the centre of each group is taken. Without probabilities all images
    are grouped.

    Args:
        features: (N, d), of length 1.
        probabilities: (N, C), of a model that knows the classes.
        count: images to choose; all of them where there are no more.
    """
    uncertainty = np.ones(len(features))
    if probabilities is not None and probabilities.shape[1] > 1:
        best = np.sort(probabilities, axis=1)[:, -2:]
        uncertainty = 1 - (best[:, 1] - best[:, 0])
    order = np.argsort(-uncertainty, kind="stable")
    if count >= len(features):
        return [int(number) for number in order]
    candidates = order if probabilities is None else order[: _CANDIDATES * count]
    weights = uncertainty[candidates] + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer groups than asked for, where images are equal
        groups = KMeans(count, n_init=4, random_state=0).fit(features[candidates], sample_weight=weights)
    distance = np.linalg.norm(features[candidates] - groups.cluster_centers_[groups.labels_], axis=1)
    nearest = [
        candidates[members[distance[members].argmin()]]
        for group in range(count)
        if len(members := np.flatnonzero(groups.labels_ == group))
    ]
    chosen = {int(number) for number in nearest}
    others = [int(number) for number in order if int(number) not in chosen]
    chosen |= {*others[: count - len(chosen)]}  # where images are equal
    return sorted(chosen, key=lambda number: -uncertainty[number])
