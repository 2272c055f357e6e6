"""docs/learners.md says of every learner which settings it has and how many numbers it tunes."""

import inspect
import re
from importlib.resources import files
from pathlib import Path

import pytest

from maotune.learners import LEARNERS
from maotune.learners.dept import DePT
from maotune.learners.promptkd import PromptKD
from tests.learners.sizes import CLASSES, tuned, vit_b16

PAGE = (Path(__file__).parents[2] / "docs" / "learners.md").read_text(encoding="utf-8")
ROWS = dict(
    re.findall(r"^\| `([\w+-]+)` \| (.*) \|$", PAGE.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE)
)


def settings_of(learner: type) -> set[str]:
    return {p.name for p in inspect.signature(learner).parameters.values() if p.kind is p.KEYWORD_ONLY}


def test_every_learner_has_a_row() -> None:
    assert set(ROWS) == {*LEARNERS, "--dept"}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_row_tells_settings_and_parameters(name: str) -> None:
    own = {"descriptions": dict.fromkeys(CLASSES, "a thing")} if name == "coprompt" else {}
    settings, parameters = ROWS[name].split(" | ")
    assert settings_of(LEARNERS[name]) == set(re.findall(r"`(\w+)`", settings)) - set(LEARNERS)
    assert tuned(LEARNERS[name](vit_b16(), CLASSES, **own)) == int(parameters.replace(",", ""))


def test_what_the_authors_used_is_told_the_same_everywhere() -> None:
    recipes = files("maotune") / "recipes" / "vit-b16"
    promptkd, vpt = ((recipes / f"{name}.yaml").read_text(encoding="utf-8") for name in ("promptkd", "vpt"))
    for text in (promptkd, PAGE, inspect.getdoc(PromptKD) or ""):
        assert re.search(r"200\s+on\s+Flowers,\s+Aircraft\s+and\s+DTD", text)
    assert "# 5 epochs, lr 0.0025, batch 4 in MaPLe's repository." in vpt


def test_the_row_of_dept() -> None:
    settings, parameters = ROWS["--dept"].split(" | ")
    assert settings_of(DePT) == set(re.findall(r"`(\w+)`", settings))
    added = tuned(DePT(LEARNERS["coop"](vit_b16(), CLASSES), vit_b16().joint_width).head)
    assert added == int(parameters.replace(",", "").removesuffix(" more"))
