"""DPC in whole runs: whose prompts score what, files to deploy, resuming, the released reading, own images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maotune.contract import Predictors, name_mixture
from maotune.recipe import RecipeError, load_recipe
from maotune.runs.predictions import Scoring
from maotune.runs.tune import tune_recipe
from maotune.runs.tuned import load_run
from maotune.train.history import StepDone
from maotune.train.session import CheckpointError, load_prompts, save_prompts
from tests.toys import paint_photos, toy_clip

MIXED = "0.8 plain + 0.2 parallel"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_photos(tmp_path_factory.mktemp("photos"), train=3, val=2, test=2, heap=0)


def recipe(photos: Path, method: str = "dpc", learner: str = "coop", **settings: Any) -> Any:
    small = {"epochs": 2, "batch_size": 2, "data.shots": 2, "data.views": 2, "data.bank": False, "lr": 0.1}
    given = {"data.source": str(photos), "protocol": "base-to-new", "method": method, "train.warmup_epochs": 0}
    return load_recipe(f"icons/{learner}", small | given | {key.replace("__", "."): v for key, v in settings.items()})


@pytest.mark.parametrize(("method", "new"), [("dpc", "plain"), ("dpc-mao", "new")])
@pytest.mark.parametrize("learner", ["coop", "maple"])
def test_a_run_scores_saves_and_predicts_by_the_mixture(
    learner: str, method: str, new: str, photos: Path, tmp_path: Path
) -> None:
    small = {"learner__depth": 2} if learner == "maple" else {}
    run = tune_recipe(recipe(photos, method, learner, **small), tmp_path, clip=toy_clip(), estimates=False)
    assert run.result.scored_with == {"base": MIXED, "new": new}
    assert run.result.predictors == Predictors(MIXED, new)
    scoring = Scoring.find(tmp_path)
    assert scoring is not None
    in_order = ["plain", "parallel", MIXED, *(["new"] if method == "dpc-mao" else []), "zeroshot"]
    assert [*scoring.predicted][: len(in_order)] == in_order

    loaded = load_run(tmp_path, clip=toy_clip())
    base, others = run.classes, ("a fish", run.classes[0])
    for classes, prompts in ((base, MIXED), (others, new)):
        ours, theirs = (each.predict(photos / "test", classes, top_k=2) for each in (run, loaded))
        assert ours.prompts == theirs.prompts == prompts
        torch.testing.assert_close(ours.probabilities, theirs.probabilities)
    images = [*(photos / "test" / base[0]).glob("*.png"), *(photos / "test" / base[1]).glob("*.png")]
    predicted = [best[0][0] for _, best in loaded.predict(images, base)]
    recorded = [scoring.classes["base"][index] for index in scoring.predicted[MIXED]["base"]]
    assert sorted(predicted) == sorted(recorded)
    assert 0 <= loaded.evaluate(str(photos), prompts="0.5 plain + 0.5 parallel") <= 100


def test_mixed_prompts_are_the_mixture_of_parameters_or_of_features(photos: Path) -> None:
    run = tune_recipe(recipe(photos), clip=toy_clip(), estimates=False)
    plain, parallel = (run.stages[name].tensors["context"] for name in ("plain", "parallel"))
    torch.testing.assert_close(run.learner().state_dict()["context"], 0.8 * plain + 0.2 * parallel)
    assert torch.equal(run.learner(prompts="plain").state_dict()["context"], plain)
    assert torch.equal(run.learner(["a fish"]).state_dict()["context"], plain), "new classes"


def test_of_mao_any_mixture_can_be_tried(photos: Path) -> None:
    run = tune_recipe(recipe(photos, "mao"), clip=toy_clip(), estimates=False)
    base, new = (run.stages[name].tensors["context"] for name in ("base", "new"))
    half = run.learner(prompts=name_mixture({"base": 0.5, "new": 0.5})).state_dict()["context"]
    torch.testing.assert_close(half, (base + new) / 2)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [("parallell", "did you mean parallel"), ("0.8 plain + 0.2 new", "unknown prompts 'new'"),
     ("0.5 plain + 0.5 zeroshot", "unknown prompts 'zeroshot'"), ("0.8 plain + 0.8 parallel", "weights that sum to 1")],
)  # fmt: skip
def test_prompts_that_are_not_there_are_refused_in_words(prompts: str, message: str, photos: Path) -> None:
    run = tune_recipe(recipe(photos), clip=toy_clip(), estimates=False)
    with pytest.raises(ValueError, match=message):
        run.predict(photos / "test", prompts=prompts)


def test_as_released_base_classes_have_the_parallel_prompts_alone(photos: Path) -> None:
    run = tune_recipe(recipe(photos, dpc__reading="released"), clip=toy_clip(), estimates=False)
    assert run.result.scored_with == {"base": "parallel", "new": "plain"}


@pytest.mark.parametrize("stage", ["plain", "parallel", "new"])
def test_a_run_that_is_interrupted_in_any_stage_ends_as_without(stage: str, photos: Path, tmp_path: Path) -> None:
    whole = tune_recipe(recipe(photos, "dpc-mao"), tmp_path / "whole", clip=toy_clip(), estimates=False)

    def interrupt(event: object) -> None:
        if isinstance(event, StepDone) and event.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_recipe(recipe(photos, "dpc-mao"), tmp_path / "cut", clip=toy_clip(), estimates=False, callback=interrupt)
    again = tune_recipe(recipe(photos, "dpc-mao"), tmp_path / "cut", clip=toy_clip(), estimates=False, resume=True)
    for name, prompts in whole.stages.items():
        for key, value in prompts.tensors.items():
            assert torch.equal(value, again.stages[name].tensors[key]), (name, key)
    assert again.result.scores == whole.result.scores


@pytest.mark.parametrize("protocol", ["few-shot", "adapt"])
def test_other_protocols(protocol: str, photos: Path) -> None:
    run = tune_recipe(recipe(photos, protocol=protocol), clip=toy_clip(), estimates=False)
    if protocol == "few-shot":
        assert run.result.scored_with == {"all": MIXED}
        assert run.result.predictors == Predictors(MIXED, "plain")
    else:  # whatever is best on the validation images, a mixture or not
        assert {*run.result.scored_with.values()} <= {"plain", "parallel", MIXED, "zeroshot"}
        assert run.result.predictors is not None
        assert run.result.predictors.base == run.result.predictors.new


def test_a_file_of_before_says_by_its_scores_whose_prompts_predict(photos: Path, tmp_path: Path) -> None:
    run = tune_recipe(recipe(photos, "mao"), clip=toy_clip(), estimates=False)
    tensors, metadata = load_prompts(run.save(tmp_path / "now.safetensors"))
    del metadata["result"]["predictors"]
    save_prompts(tmp_path / "before.safetensors", tensors, metadata)
    before = load_run(tmp_path / "before.safetensors", clip=toy_clip())
    assert before.predict(photos / "test", run.classes).prompts == "base"
    assert before.predict(photos / "test", ["a fish", "rain"]).prompts == "new"


@pytest.mark.parametrize(
    "base",
    ["0.8 plain + 0.2 ghost", "0.8 plain + 0.8 parallel", "0.5 zeroshot + 0.5 plain", "1e400 plain + 0 parallel"],
)
def test_a_mixture_of_a_stranger_that_cannot_be_is_refused(base: str, photos: Path, tmp_path: Path) -> None:
    run = tune_recipe(recipe(photos), clip=toy_clip(), estimates=False)
    tensors, metadata = load_prompts(run.save(tmp_path / "good.safetensors"))
    metadata["result"]["predictors"]["base"] = base
    save_prompts(tmp_path / "bad.safetensors", tensors, json.loads(json.dumps(metadata)))
    with pytest.raises(CheckpointError, match=r"written by another version of maotune, or is damaged"):
        load_run(tmp_path / "bad.safetensors", clip=toy_clip())


def test_unknown_settings_of_dpc_are_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown setting 'dpc.wight'; did you mean weight"):
        load_recipe("icons/coop", {"dpc.wight": 0.5})
