"""Other measures of the same predictions: means over classes, one list of all classes, OpenworldAUC."""

from collections.abc import Mapping

import numpy as np

from maotune.runs.predictions import Scoring
from maotune.train.evaluate import harmonic_mean


def mean_over_classes(scoring: Scoring, scored_with: Mapping[str, str]) -> dict[str, float]:
    """Return base and new accuracy where each class counts alike, in percent, and their H."""
    means = {}
    for test in ("base", "new"):
        labels = np.array(scoring.labels[test])
        right = np.array(scoring.predicted[scored_with[test]][test]) == labels
        counts = np.bincount(labels)
        means[test] = 100 * float((np.bincount(labels, right)[counts > 0] / counts[counts > 0]).mean())
    return means | {"h": harmonic_mean(means["base"], means["new"])}


def joint_vocabulary(scoring: Scoring, scored_with: Mapping[str, str]) -> dict[str, float]:
    """Score base and new classes together; nothing where the run has not recorded what that needs.

    Each half of the classes has the scores that its own prompts give it. ``base`` and ``new`` are the accuracies in
    percent where an image may be taken for any class, ``h`` their harmonic mean. ``openworld`` is OpenworldAUC: the
    share of pairs of a base and a new image where both are right among their own half, and the base image is the more
    base-like by the difference of its highest scores; ties count half.
    """
    if scoring.highest is None or any(
        len(scoring.highest[scored_with[test]][test]) < len(scoring.classes) for test in ("base", "new")
    ):  # not recorded, or not defined (an image as part of a pool)
        return {}
    right, margin = {}, {}
    for test in ("base", "new"):
        right[test] = np.array(scoring.predicted[scored_with[test]][test]) == np.array(scoring.labels[test])
        base, new = (np.array(scoring.highest[scored_with[half]][test][half]) for half in ("base", "new"))
        margin[test] = base - new
    joint = {
        "base": 100 * float((right["base"] & (margin["base"] >= 0)).mean()),
        "new": 100 * float((right["new"] & (margin["new"] < 0)).mean()),
    }
    ranked = np.sort(np.where(right["new"], margin["new"], np.inf))
    below = [np.searchsorted(ranked, margin["base"][right["base"]], side) for side in ("left", "right")]
    pairs = len(right["base"]) * len(ranked)
    auc = 100 * float(np.sum(below)) / 2 / pairs
    return joint | {"h": harmonic_mean(joint["base"], joint["new"]), "openworld": auc}


OTHER_MEASURES = {"mean over classes": mean_over_classes, "all classes in one list": joint_vocabulary}
