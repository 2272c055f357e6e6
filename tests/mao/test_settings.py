"""Settings of MAO."""

import pytest
from pydantic import TypeAdapter, ValidationError

from maotune.mao.settings import MaoSettings, default_b_k


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(500, (4, 8)), (33, (4, 8)), (24, (2, 8)), (19, (2, 8)), (5, (2, 2)), (12, (2, 5)), (3, (1, 2))],
)
def test_defaults_of_b_and_k_are_the_papers_and_leave_a_class_out(classes, expected):
    assert default_b_k(classes) == expected
    assert expected[0] * expected[1] < classes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"template": "a photo"}, "give dataset, ensemble, or a text"),
        ({"b": 0}, "b is 0"),
        ({"lr": 0}, "lr is 0"),
        ({"labeler": "oracle"}, "foundation"),
        ({"rounds": 0}, "rounds is 0"),
        ({"keep": "growing", "top_per_class": 4}, "goes with keep: top, and keep is growing"),
        ({"labels": "soft", "label_views": "each"}, "label each image once"),
        ({"bb": 4}, "bb"),
    ],
)
def test_settings_are_checked(given, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(MaoSettings).validate_python(given)
    described = TypeAdapter(MaoSettings).json_schema()["properties"]
    assert all(field.get("description") for field in described.values()), "the help of the command line"
