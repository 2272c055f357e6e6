"""What a run is said to cost before it begins."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from maotune.contract import AbstractLearner, Stage
from maotune.data.sets.dataset import Sample
from maotune.mao.methods import build_stages
from maotune.mao.pseudo_labels import PseudoLabelStore
from maotune.recipe import load_recipe
from maotune.runs.build import build_clip, build_learner, build_splits
from maotune.runs.estimate import CostMeter, ImageCost, StepCost
from maotune.runs.events import CostEstimate, RunPlan, duration
from maotune.runs.fitting import mao_task
from maotune.runs.forecast import forecast
from maotune.runs.pipeline import Pipeline
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


class Known(CostMeter):
    """A meter whose measurements are known."""

    def __init__(self, picture: float = 4.0) -> None:
        super().__init__()
        self.picture = picture

    def _image_cost(self, pipeline: Pipeline, samples: Sequence[Sample]) -> ImageCost:
        return ImageCost(read=1000.0, train=100.0, test=10.0, encode=1.0, bytes=self.picture)

    def _step(self, pipeline: Pipeline, learner: AbstractLearner, stage: Stage) -> StepCost:
        return StepCost(1e6, 0.0)


def estimated(photos: Path, meter: CostMeter, **settings: Any) -> CostEstimate:
    given = {"data.source": str(photos), "protocol": "base-to-new", "data.shots": 3, "epochs": 4, "data.bank": False}
    recipe = load_recipe(None, given | {key.replace("__", "."): value for key, value in settings.items()})
    splits = build_splits(recipe).splits
    pipeline = Pipeline(toy_clip(), recipe)
    learner = build_learner(recipe, pipeline.clip, splits.classes)
    stages = build_stages(recipe.method, mao_task(recipe, pipeline, splits, PseudoLabelStore()), recipe.mao)
    return meter.estimate(pipeline, learner, stages, splits)


def test_an_image_is_read_once_for_all_its_views_and_each_view_is_prepared_and_encoded(photos: Path) -> None:
    cost = estimated(photos, Known(), method="mao", data__views=2, batch_size=2)
    learned, upright = 6 + 6, 8 + 6 + 6  # upright: tests, pool, and the labelled images of own data
    assert cost.encoding == pytest.approx(learned * (1000 + 2 * (100 + 1)) + upright * (1000 + 10 + 1))
    assert (cost.tuning, cost.scoring) == (1e6 * (2 * 6 + 2 * 3), 0)
    nothing = estimated(photos, Known(), method="zeroshot")
    assert (nothing.features, nothing.encoding, nothing.tuning) == (14, 14 * (1000 + 10 + 1), 0)


@pytest.mark.parametrize("large", [False, True])
def test_pixels_for_each_update_are_part_of_tuning(photos: Path, large: bool) -> None:
    """Of pictures that do not fit into memory, each is read for each update."""
    meter = Known(picture=1e9 if large else 4.0)
    cost = estimated(photos, meter, learner="maple", learner__depth=2, learner__context_length=2, batch_size=3)
    updates, images = 4 * 2, 4 * 2 * 3
    assert cost.tuning == pytest.approx(updates * 1e6 + images * 100 + (images if large else 6) * 1000)
    assert cost.scoring == pytest.approx(8 * (1000 + 10 + 1))


def test_a_forecast_counts_what_runs_that_share_a_bank_compute(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path))
    given = {"data.source": str(photos), "protocol": "base-to-new", "data.shots": 2, "data.views": 2, "epochs": 2}
    given |= {"batch_size": 2, "mao.b": 1, "mao.k": 2}
    methods = ("zeroshot", "plain", "mao")
    recipes = [load_recipe(None, {**given, "seed": seed, "method": name}) for seed in (1, 2) for name in methods]
    costs = forecast(recipes)
    clip = build_clip(recipes[0].clip)
    kept = []
    for recipe in recipes:
        tune_and_score(recipe, clip=clip)
        tensors = [safetensors.torch.load_file(shard) for shard in tmp_path.glob("features/*/*.safetensors")]
        kept.append(sum(len(each["keys"]) for each in tensors))
    assert [cost.features for cost in costs] == np.diff(kept, prepend=0).tolist()
    assert [cost.features for cost in forecast(recipes)] == [0] * 6
    assert [cost.tuning > 0 for cost in costs] == [False, True, True] * 2


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
