"""The choice among candidates on images that were held out: method best, and cross-validation in adapt."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maotune.contract import Batch, Classify, Output
from maotune.learners import LEARNERS
from maotune.protocols.protocol import CROSS_VALIDATED
from maotune.recipe import Recipe, RecipeError, load_recipe
from maotune.recipe.candidates import candidate_recipes
from maotune.runs.build import build_splits
from maotune.runs.choice import FOLDS
from maotune.runs.comparison import CandidateResult, Comparison, compare
from maotune.runs.events import Progress, RunPlan
from maotune.runs.tune import tune_recipe
from maotune.runs.tuned import Run, load_run
from tests.contract.members import Mine
from tests.toys import COLOURS, paint, paint_photos, toy_clip

IMAGES = 5
"""Of each class."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders without splits, and a heap: any learner tells their colours apart, and zero-shot does not."""
    root = tmp_path_factory.mktemp("own")
    for number, (name, colour) in enumerate(COLOURS.items()):
        for image in range(IMAGES):
            paint(root / "photos" / name / f"{image}.png", colour, 100 * number + image)
        paint(root / "heap" / f"{number}.png", colour, 1000 + number)
    return root / "photos"


def recipe(photos: Path, method: str = "best", **settings: Any) -> Recipe:
    given = {"data.source": str(photos), "clip.source": "iconclip", "method": method, "data.bank": False}
    small = {"data.views": 2, "best.candidates": ["gda"], "epochs": 2, "mao.b": 1, "mao.k": 2}
    return load_recipe("icons/taskres", given | small | {key.replace("__", "."): v for key, v in settings.items()})


def best(photos: Path, folder: Path | None = None, **settings: Any) -> Run:
    return tune_recipe(recipe(photos, **settings), folder, clip=toy_clip(), estimates=False)


def comparison_of(run: Run) -> Comparison:
    assert run.result.comparison is not None
    return run.result.comparison


def test_tuning_wins_where_zeroshot_guesses(photos: Path, tmp_path: Path) -> None:
    run = best(photos, tmp_path)
    comparison = comparison_of(run)
    accuracies = {row["name"]: row["accuracy"] for row in comparison.candidates}
    assert [*accuracies] == ["zeroshot", "gda plain"]
    assert comparison.chosen == "gda plain"
    assert (comparison.test, comparison.folds, comparison.images) == (CROSS_VALIDATED, 5, 4 * IMAGES)
    assert comparison.clear
    assert run.result.zeroshot[CROSS_VALIDATED] == accuracies["zeroshot"]
    assert run.result.scores == {CROSS_VALIDATED: accuracies["gda plain"]}
    assert (run.result.learner, run.result.method) == ("gda", "best")
    assert run.result.environment["data"]["parts"]["shots"]["images"] == 4 * IMAGES, "refit on all images"
    assert not (tmp_path / FOLDS).exists()
    loaded = load_run(tmp_path, clip=toy_clip())
    images = [*photos.glob("*/0.png")]
    assert torch.equal(run.predict(images).probabilities, loaded.predict(images).probabilities)


def test_zeroshot_wins_where_it_cannot_be_beaten(tmp_path: Path) -> None:
    """Pictures in the folders of the classes that zero-shot CLIP takes them for; a tie is not won by tuning."""
    zeroshot = best(paint_photos(tmp_path / "any"), method="zeroshot")
    for seed in range(60):
        colour = (37 * seed % 256, 101 * seed % 256, 211 * seed % 256)
        path = paint(tmp_path / "unsorted" / f"{seed}.png", colour, seed)
        (_, [(label, _)]) = next(iter(zeroshot.predict([path])))
        path.rename(paint(tmp_path / "sorted" / label / path.name, colour, seed))
    run = best(tmp_path / "sorted", tmp_path / "run")
    comparison = comparison_of(run)
    assert (comparison.chosen, run.result.zeroshot[CROSS_VALIDATED]) == ("zeroshot", 100.0)
    assert not comparison.clear
    assert "Nothing that was tuned is better than zero-shot CLIP" in comparison.sentences()[1]
    assert [*run.stages] == ["zeroshot"]
    assert [*load_run(tmp_path / "run", clip=toy_clip()).predict([*(tmp_path / "sorted").glob("*/1.png")])]


def test_the_order_of_the_classes_and_names_of_files_do_not_matter(photos: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(reversed([*COLOURS])))
    for path in photos.glob("*/*.png"):
        (tmp_path / "again" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "again" / path.parent.name / f"{9 - int(path.stem)}.png").write_bytes(path.read_bytes())
    same, other = comparison_of(best(photos)), comparison_of(best(tmp_path / "again", data__classes=str(names)))
    for a, b in zip(same.candidates, other.candidates, strict=True):
        assert (a["name"], a["accuracy"]) == (b["name"], b["accuracy"])
    assert (same.chosen, same.expected, same.gain) == (other.chosen, other.expected, other.gain)


def test_with_a_pool_each_learner_is_also_tried_with_mao(photos: Path) -> None:
    run = best(photos, data__unlabelled=str(photos.parent / "heap"), best__candidates=["gda"])
    assert [row["name"] for row in comparison_of(run).candidates] == [
        "zeroshot", "gda plain", "gda mao, new stage", "gda mao, base stage",
    ]  # fmt: skip
    shared = recipe(photos, mao__labeler="stata", data__crop_scale=[0.9, 1.0], seed=7)
    for candidate in candidate_recipes(shared, pool=True):
        assert (candidate.mao.labeler, candidate.data.crop_scale, candidate.seed) == ("stata", (0.9, 1.0), 7)
        assert candidate.lr == load_recipe(f"icons/{candidate.learner_name}").lr, "their own rates"


def test_candidates_without_time_or_means_are_listed_and_not_tried(photos: Path) -> None:
    no_time = comparison_of(best(photos, best__minutes=0, best__candidates=["taskres", "coop"]))
    assert [row["accuracy"] is None for row in no_time.candidates] == [False, True, True]
    assert all("not tried: about" in row["note"] for row in no_time.candidates[1:])
    assert no_time.chosen == "zeroshot"


class Diverging(Mine):
    """A learner whose loss is infinite."""

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        return {"cross_entropy": torch.inf * super().losses(output, batch, classify)["cross_entropy"]}


def test_a_candidate_that_diverges_stops_no_other(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, "diverging", Diverging)
    comparison = comparison_of(best(photos, best__candidates=["diverging", "gda"]))
    assert comparison.chosen == "gda plain"
    assert comparison.candidates[-1]["name"] == "diverging plain"
    assert comparison.candidates[-1]["note"].startswith("not possible: the loss is not finite")


def test_validation_and_test_folders_are_respected(tmp_path: Path) -> None:
    photos = paint_photos(tmp_path, heap=0)
    run = best(photos)
    comparison = comparison_of(run)
    assert (comparison.test, comparison.folds, comparison.images) == ("val", 0, 8)
    assert set(run.result.scores) == {"val", "test"}
    assert run.result.environment["data"]["parts"]["shots"]["images"] == 12, "training images alone"
    assert "the accuracy on 8 validation images" in comparison.sentences()[0]
    plain = tune_recipe(recipe(photos, "plain"), clip=toy_clip(), estimates=False)
    assert plain.result.comparison is None


def test_any_learner_on_own_images_is_cross_validated_and_tuned_on_all_of_them(photos: Path) -> None:
    events: list[Any] = []
    given = recipe(photos, "plain", data__unlabelled=str(photos.parent / "heap"))
    run = tune_recipe(given, clip=toy_clip(), callback=events.append)
    assert [row["name"] for row in comparison_of(run).candidates] == ["zeroshot", "taskres plain"]
    (plan,) = (event for event in events if isinstance(event, RunPlan))
    assert (plan.shots, plan.folds) == (4 * IMAGES, 5)
    assert "the same without each of 5 folds, to choose" in str(plan)
    folds = [event for event in events if isinstance(event, Progress) and event.what.startswith("held-out")]
    assert [(event.done, event.total) for event in folds] == [(done, 5) for done in range(1, 6)]
    accuracy = {row["name"]: row["accuracy"] for row in comparison_of(run).candidates}
    assert run.result.stages[0]["accuracy"] == {CROSS_VALIDATED: accuracy["taskres plain"]}


def test_scores_of_images_that_were_tuned_on_say_that_they_are(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = best(photos, method="plain")
    assert run.evaluate(photos) >= 0
    assert "the prompts were tuned on these images" in caplog.text
    assert run.result.calibration["plain"].images == 4 * IMAGES, "each scored by prompts that were not tuned on it"


def test_images_of_a_fold_are_not_tuned_on_and_copies_are_in_one(photos: Path, tmp_path: Path) -> None:
    for path in photos.glob("*/*.png"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "rain" / "copy.png").write_bytes((tmp_path / "rain" / "0.png").read_bytes())
    paint(tmp_path / "only one" / "image.png", (9, 99, 199), 7)
    splits = build_splits(recipe(tmp_path)).splits
    held: list[str] = []
    for fold in range(5):
        part = splits.without_fold(fold)
        (test,) = part.tests.values()
        contents = {sample.image.digest() for sample in test.samples}
        assert contents.isdisjoint(sample.image.digest() for sample in (*part.shots, *part.train))
        assert len(part.shots) + len(test.samples) == len(splits.shots) == 4 * IMAGES + 2
        assert {sample.label for sample in part.shots} == {*range(5)}, "every class keeps an image"
        held += [sample.image.name for sample in test.samples]
        for sample in test.samples:
            assert test.classes[sample.label] == Path(sample.image.name).parent.name
    assert sorted(held) == sorted(s.image.name for s in splits.shots if Path(s.image.name).parent.name != "only one")
    assert held == [sample.image.name for sample in splits.tests[CROSS_VALIDATED].samples]


def test_one_image_a_class_cannot_be_compared_on(tmp_path: Path) -> None:
    for name, colour in COLOURS.items():
        paint(tmp_path / name / "1.png", colour, 1)
    with pytest.raises(ValueError, match="no class has two labelled images and there are no validation images"):
        best(tmp_path)
    plain = tune_recipe(recipe(tmp_path, "plain"), clip=toy_clip(), estimates=False)
    assert plain.result.comparison is None


def test_best_goes_with_own_images_and_known_learners(photos: Path) -> None:
    with pytest.raises(RecipeError, match="goes with the protocol adapt, and not with base-to-new"):
        recipe(photos, protocol="base-to-new")
    with pytest.raises(RecipeError, match=r"unknown learner of best\.candidates 'gdaa'; did you mean gda"):
        recipe(photos, best__candidates=["gdaa"])


def test_what_was_compared_before_an_interruption_is_not_tuned_again(photos: Path, tmp_path: Path) -> None:
    whole = best(photos, tmp_path / "whole", best__candidates=["taskres", "clap"])

    def interrupt(event: Any) -> None:
        if isinstance(event, Progress) and event.what == "held-out images, clap plain" and event.done == 2:
            raise KeyboardInterrupt

    given, folder = recipe(photos, best__candidates=["taskres", "clap"]), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tune_recipe(given, folder, clip=toy_clip(), callback=interrupt, estimates=False)
    kept = {path: path.stat().st_mtime_ns for path in (folder / FOLDS).glob("*/*.safetensors")}
    assert len({path.parent for path in kept}) == 5 + 2
    seen: list[dict[Path, int]] = []

    def look(event: Any) -> None:
        seen.append({path: path.stat().st_mtime_ns for path in kept if path.exists()})

    resumed = tune_recipe(given, folder, resume=True, clip=toy_clip(), callback=look, estimates=False)
    assert kept in seen
    assert all(files in (kept, {}) for files in seen), "no file of a finished fold was written again"
    expected = comparison_of(whole)
    assert comparison_of(resumed).chosen == expected.chosen
    assert [row["accuracy"] for row in comparison_of(resumed).candidates] == [
        row["accuracy"] for row in expected.candidates
    ]
    for name, tensor in whole.stages["plain"].tensors.items():
        assert torch.equal(tensor, resumed.stages["plain"].tensors[name])
    assert json.loads((folder / "result.json").read_text())["comparison"]["chosen"] == expected.chosen


def drawn(accuracies: list[float], images: int, seed: int) -> Comparison:
    """Candidates that classify each image correctly with these probabilities, independently."""
    random = torch.Generator().manual_seed(seed)
    rows = [CandidateResult(name=str(n), accuracy=None, seconds=0.0, note="") for n in range(len(accuracies))]
    correct = [torch.rand(images, generator=random) < accuracy for accuracy in accuracies]
    return compare("cv", 5, [*zip(rows, correct, strict=True)])


def test_the_best_of_many_equals_is_not_expected_to_be_better() -> None:
    """Of 20 candidates that are right on half of the images, the best is right on about 64 % of 50 images."""
    expected, best_seen = [], []
    for seed in range(20):
        result = drawn([0.5] * 20, 50, seed)
        expected.append(result.expected[0])
        best_seen.append(result.expected[0] - result.gain[0])
        assert result.expected[1] < 50 < result.expected[2] + 10
    assert 48 < sum(expected) / 20 < 58
    assert not all(drawn([0.5] * 20, 50, seed).clear for seed in range(20))


def test_a_clear_gain_is_told_and_an_unclear_one_is_called_that() -> None:
    clear = drawn([0.5, 0.9], 100, 1)
    assert clear.clear
    assert clear.gain[1] < 40 < clear.gain[2]
    assert clear.expected[1] < 90 < clear.expected[2]
    assert clear.stability > 99
    assert "It is above zero-shot CLIP by +" in clear.sentences()[1]
    unclear = drawn([0.5, 0.6], 40, 4)
    assert (unclear.chosen, unclear.clear) == ("1", False)
    assert "cannot be told apart from zero-shot CLIP" in unclear.sentences()[1]
