"""Names of learners in reports."""

import pytest

from maotune.learners import LEARNERS
from maotune.report.names import explain, learner_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("coop", "CoOp"),
        ("coop+dept", "CoOp + DePT"),
        ("lp++", "LP++"),
        ("clip-adapter+dept (all classes)", "CLIP-Adapter + DePT (all classes)"),
        ("gda", "GDA"),
    ],
)
def test_a_learner_has_the_name_that_people_write(key: str, name: str) -> None:
    assert learner_name(key) == name


def test_no_name_is_cut_at_a_plus_of_its_own() -> None:
    assert all(" + " not in learner_name(key) for key in LEARNERS)


def test_what_is_not_clear_from_its_name_is_explained_once() -> None:
    text = explain(["plain", "mao", "one-set", "plain"], ["h"])
    assert text == (
        "Plain: the learner as published. One set: both halves by the prompts of MAO's last stage. "
        "H: harmonic mean of base and new accuracy."
    )
