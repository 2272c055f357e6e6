"""Other measures of the same predictions, against figures worked out by hand."""

from dataclasses import replace

import pytest

from maotune.report.other_measures import joint_vocabulary, mean_over_classes
from maotune.runs.predictions import Scoring

OWN = {"base": "base", "new": "new"}
"""Each half by the prompts of its stage."""


def scoring() -> Scoring:
    """Four images of two base classes, three of two new ones; the prompts of the other stage score them otherwise."""
    return Scoring(
        classes={"base": ["a", "b"], "new": ["c", "d"]},
        labels={"base": [0, 0, 0, 1], "new": [0, 0, 1]},
        predicted={
            "base": {"base": [0, 0, 1, 1], "new": [1, 1, 1]},
            "new": {"base": [1, 1, 1, 1], "new": [0, 0, 0]},
        },
        pseudo_labels=None,
        highest={
            "base": {
                "base": {"base": [9.0, 5.0, 9.0, 7.0], "new": [0.0] * 4},
                "new": {"base": [4.0, 8.0, 1.0], "new": [0.0] * 3},
            },
            "new": {
                "base": {"base": [0.0] * 4, "new": [2.0, 6.0, 1.0, 7.0]},
                "new": {"base": [0.0] * 3, "new": [6.0, 7.0, 9.0]},
            },
        },
    )


def test_each_class_counts_alike() -> None:
    means = mean_over_classes(scoring(), OWN)
    assert means["base"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert means["new"] == pytest.approx(50)
    assert means["h"] == pytest.approx(2 * 250 / 3 * 50 / (250 / 3 + 50))


def test_a_joint_vocabulary_takes_the_scores_of_each_halfs_own_prompts() -> None:
    """Base images lead by 7, -1, (8, wrong) and 0; new ones by -2, 1 and (-8, wrong)."""
    joint = joint_vocabulary(scoring(), OWN)
    assert joint["base"] == 100 * 2 / 4, "the first, and the last: a tie goes to the first list"
    assert joint["new"] == pytest.approx(100 * 1 / 3), (
        "the second is taken for a base class, the third for the wrong one"
    )
    assert joint["h"] == pytest.approx(40)
    # Right pairs: 7 beats -2 and 1; -1 beats -2; 0 beats -2. Wrong base images lose, wrong new ones are not beaten.
    assert joint["openworld"] == pytest.approx(100 * 4 / 12)


def test_ties_count_half() -> None:
    one = scoring()
    assert one.highest is not None
    one.highest["new"]["new"]["new"] = [4.0, 7.0, 9.0]  # the first new image leads by 0, as the last base image does
    assert joint_vocabulary(one, OWN)["openworld"] == pytest.approx(100 * (1 + 1 + 0.5) / 12)


def test_runs_of_older_versions_have_no_joint_vocabulary() -> None:
    assert joint_vocabulary(replace(scoring(), highest=None), OWN) == {}
    assert mean_over_classes(replace(scoring(), highest=None), OWN)["new"] == 50
