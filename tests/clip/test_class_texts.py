"""Two classes that the model reads as one text are refused wherever names are bound."""

import pytest

from maotune.clip.class_texts import refuse_same_names
from maotune.learners import LEARNERS
from maotune.learners.zeroshot import ZeroShot
from tests.toys import toy_clip

SAME = [
    ("owl", "Owl"),
    ("clear sky", "Clear_Sky"),
    ("owl", "owl"),
    ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
    ("owl", " owl  "),
    ("salt & pepper", "salt &amp; pepper"),
    ("red fox", "red\u00a0fox"),
    ("owl", "owl\u200b"),
    ("owl", "\ufeffOwl"),
    ("red fox", "red\u2060_fox"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_names_of_one_text_are_refused_with_both(first: str, second: str) -> None:
    for bind in (lambda names: ZeroShot(toy_clip(), names), refuse_same_names):
        with pytest.raises(ValueError, match="display names") as refused:
            bind(("rabbit", first, second))
        assert repr(second) in str(refused.value)
        assert repr(first) in str(refused.value)


@pytest.mark.parametrize("learner", ["coop", "maple", "vpt", "proda", "kgcoop", "tcp", "cocoop", "promptsrc"])
def test_every_learner_refuses_them_when_it_is_bound(learner: str) -> None:
    tuned = LEARNERS[learner](toy_clip(), ("rabbit", "owl"))
    with pytest.raises(ValueError, match="'owl' and 'Owl' are the same text"):
        tuned.bind(("owl", "rabbit", "Owl"))
    with pytest.raises(ValueError, match="'owl' is given twice"):
        tuned.bind(("owl", "rabbit", "owl"))
    tuned.bind(("owl", "rabbit", "owls"))


def test_names_that_imagenet_publishes_twice_are_let_in() -> None:
    refuse_same_names(("sunglasses", "missile", "sunglasses", "missile"))
    with pytest.raises(ValueError, match="same text"):
        refuse_same_names(("sunglasses", "Sunglasses"))


@pytest.mark.parametrize("blank", ["", " ", "_", "\u200b", "\u2800", "\u3164 \u2060", "\n\t"])
def test_a_blank_name_is_refused(blank: str) -> None:
    for bind in (lambda names: ZeroShot(toy_clip(), names), refuse_same_names):
        with pytest.raises(ValueError, match="is blank: give the class a name"):
            bind(("rabbit", blank))


def test_marks_and_letters_of_all_scripts_tell_names_apart() -> None:
    refuse_same_names(("cafe", "caf\u00e9", "\u0915\u093f", "\u0915\u0940", "\u0915", "\u044f", "\u72d0", "-", "7"))
