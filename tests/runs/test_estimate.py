"""What a run is said to cost before it begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maotune.recipe import load_recipe
from maotune.runs.events import RunPlan, duration
from maotune.runs.tune import tune_and_score
from tests.toys import paint_photos, toy_clip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_photos(tmp_path_factory.mktemp("plans"))


@pytest.fixture
def planned(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., RunPlan]:
    """The plan of a run, which is stopped when it has been told."""
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path))

    class Told(Exception):
        pass

    def plan(**settings: Any) -> RunPlan:
        plans: list[RunPlan] = []

        def listen(event: Any) -> None:
            if isinstance(event, RunPlan):
                plans.append(event)
                raise Told

        given = {"data.source": str(photos), "data.views": 2, "protocol": "base-to-new", "data.shots": 3, "epochs": 4}
        recipe = load_recipe(None, given | {key.replace("__", "."): value for key, value in settings.items()})
        with pytest.raises(Told):
            tune_and_score(recipe, clip=toy_clip(), callback=listen)
        return plans[0]

    return plan


def test_updates_and_missing_features_are_counted(planned: Callable[..., RunPlan], photos: Path) -> None:
    plan = planned(method="mao", batch_size=2)
    assert [(stage.name, stage.epochs, stage.updates) for stage in plan.stages] == [("base", 2, 6), ("new", 2, 3)]
    assert plan.updates == 2 * 6 + 2 * 3
    assert plan.estimate.features == 2 * (6 + 6) + 8 + 6, "two views to learn from; tests and pool upright"
    assert plan.estimate.encoding > 0
    assert "18 in all" in str(plan)
    assert "GB of memory" in str(plan)
    assert "base: 2 x 6 updates over 2 classes, 2.0 a batch on average" in str(plan)
    assert planned(method="hard-full").candidates is None, "its loss is over all classes"


def test_features_in_the_bank_cost_nothing(planned: Callable[..., RunPlan], photos: Path) -> None:
    given = {"data.source": str(photos), "data.views": 2, "protocol": "base-to-new", "data.shots": 3, "epochs": 4}
    tune_and_score(load_recipe(None, given), clip=toy_clip())
    plan = planned()
    assert (plan.estimate.features, plan.estimate.encoding) == (0, 0)
    assert plan.estimate.tuning > 0


def test_the_updates_are_those_that_are_made(planned: Callable[..., RunPlan], photos: Path) -> None:
    for method in ("plain", "step-matched", "mao", "new-only"):
        plan = planned(method=method, batch_size=4)
        given = {"data.source": str(photos), "protocol": "base-to-new", "data.shots": 3, "data.views": 2, "epochs": 4}
        result = tune_and_score(load_recipe(None, given | {"method": method, "batch_size": 4}), clip=toy_clip()).result
        assert sum(stage["updates"] for stage in result.stages) == plan.updates, method


def test_a_look_at_the_cost_changes_nothing(photos: Path) -> None:
    given = {"data.source": str(photos), "data.views": 1, "protocol": "base-to-new", "data.bank": False, "epochs": 2}
    recipe = load_recipe(None, given | {"learner": "promptsrc", "learner.text_depth": 2, "learner.visual_depth": 2})
    silent = tune_and_score(recipe, clip=toy_clip()).history
    told = tune_and_score(recipe, clip=toy_clip(), callback=lambda event: None).history
    for name, value in (silent["plain"].prompts or {}).items():
        assert torch.equal(value, (told["plain"].prompts or {})[name]), name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "under 1 s"),
        (40, "40 s"),
        (85, "85 s"),
        (150, "2.5 min"),
        (1800, "30 min"),
        (5400, "1.5 h"),
        (90_000, "25 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said
