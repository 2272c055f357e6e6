"""Learners in feature space in whole runs: every method, files to deploy, resuming."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maotune.learners import LEARNERS
from maotune.mao.methods import METHODS
from maotune.recipe import RecipeError, load_recipe
from maotune.runs.tune import tune_recipe
from maotune.runs.tuned import load_run
from tests.toys import paint_photos, toy_clip

NAMES = [name for name, learner in LEARNERS.items() if not learner.tunes_prompts]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_photos(tmp_path_factory.mktemp("photos"), train=3, val=1, test=2, heap=0)


def recipe(name: str, photos: Path, method: str, **settings: Any) -> Any:
    small = {"epochs": 2, "batch_size": 4, "data.shots": 2, "data.views": 2, "data.bank": False, "mao.b": 1, "mao.k": 2}
    given = {"data.source": str(photos), "protocol": "base-to-new", "method": method}
    return load_recipe(f"icons/{name}", small | given | {key.replace("__", "."): v for key, v in settings.items()})


def test_the_learners_here_are_all_that_tune_no_prompts() -> None:
    assert {*NAMES} == {
        "taskres", "linear", "lp++", "clap", "clip-adapter", "tip-adapter", "gda", "prolip", "clip-lora",
        "mmrl", "mmrl++",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_run_predicts_the_same_wherever_it_is_loaded(name: str, photos: Path, tmp_path: Path) -> None:
    run = tune_recipe(recipe(name, photos, "mao"), tmp_path, clip=toy_clip(), estimates=False)
    assert list(run.stages) == ["base", "new"]
    loaded = load_run(tmp_path, clip=toy_clip())
    images = [*(photos / "test" / "rain").glob("*.png"), *(photos / "test" / "snow").glob("*.png")]
    for classes in (None, run.stages["new"].classes, ("rain", "snow", "sun", "fire"), ("a fish", "rain")):
        ours, theirs = run.predict(images, classes), loaded.predict(images, classes)
        assert ours.labels == theirs.labels
        torch.testing.assert_close(ours.probabilities, theirs.probabilities)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "distill"])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_runs(name: str, method: str, photos: Path) -> None:
    if name in ("gda", "lp++", "tip-adapter") and method.startswith("dpc"):
        with pytest.raises(ValueError, match="has a closed form: choose the method plain or mao"):
            tune_recipe(recipe(name, photos, method), clip=toy_clip(), estimates=False)
        return
    run = tune_recipe(recipe(name, photos, method), clip=toy_clip(), estimates=False)
    assert set(run.result.scores) >= {"base", "new", "h"}


def test_tuned_keys_of_a_cache_and_soft_mixes_are_restored(photos: Path, tmp_path: Path) -> None:
    given = recipe("tip-adapter", photos, "mao", learner__tuned=True, learner__alpha=None, learner__beta=None)
    run = tune_recipe(given, tmp_path, clip=toy_clip(), estimates=False)
    assert run.result.stages[0]["updates"] > 0
    learner, loaded = run.learner(), load_run(tmp_path, clip=toy_clip()).learner()
    assert {name: tuple(value.shape) for name, value in learner.state_dict().items()} == {
        "keys": (4, 16), "values": (4,), "scales": (2,),
    }  # fmt: skip
    for name, value in learner.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


@pytest.mark.parametrize("labeler", ["adjusted", "sinkhorn", "transclip", "stata", "zlap"])
def test_a_labeler_of_the_whole_pool_labels_the_new_stage(labeler: str, photos: Path) -> None:
    run = tune_recipe(recipe("gda", photos, "mao", mao__labeler=labeler), clip=toy_clip(), estimates=False)
    assert run.result.pseudo_labels is not None
    assert run.result.pseudo_labels["images"] == 4
    with pytest.raises(RecipeError, match="labels each image once"):
        recipe("gda", photos, "mao", mao__labeler=labeler, mao__label_views="each")
