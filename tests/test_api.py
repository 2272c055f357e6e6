"""The same in a few lines of Python: tune, predict, evaluate, save, load."""

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import maotune
from maotune.data.sets.dataset import UnreadableImage
from maotune.recipe import RecipeError
from maotune.train.session import CheckpointError
from tests.toys import COLOURS, paint, toy_clip

SMALL = {"shots": 3, "epochs": 2, "data__views": 1, "learner__context_length": 4, "train__warmup_epochs": 0}


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def run(place: Path) -> maotune.Run:
    return maotune.tune("photos", method="mao", unlabelled="heap", folder="mine", clip=toy_clip(), **SMALL)


def test_settings_reach_the_recipe(run: maotune.Run) -> None:
    assert run.recipe.data.shots == 3
    assert run.recipe.learner["context_length"] == 4
    assert run.recipe.method == "mao"
    assert set(run.stages) == {"base", "new"}
    assert run.classes == tuple(sorted(COLOURS))
    with pytest.raises(RecipeError, match="did you mean epochs"):
        maotune.tune("photos", epoch=3)


def test_it_is_never_worse_than_zeroshot_on_validation_images(run: maotune.Run) -> None:
    assert run.result.scores["val"] >= run.result.zeroshot["val"]
    assert run.evaluate("photos", split="val") == pytest.approx(run.result.scores["val"])
    assert run.evaluate("photos", split="val", prompts="zeroshot") == pytest.approx(run.result.zeroshot["val"])


def test_files_folders_and_pictures_in_memory_are_predicted_alike(run: maotune.Run, place: Path) -> None:
    path = paint(place / "other" / "one.png", COLOURS["sun"], 99)
    (from_file,), (from_folder,) = run.predict(path, top_k=4), run.predict(str(path.parent), top_k=4)
    with Image.open(path) as picture:
        in_memory, again = run.predict([picture, path], top_k=4)
    assert from_file[0] == from_folder[0] == again[0] == str(path)
    assert in_memory[0] == "image 0"
    assert [name for name, _ in from_file[1]] == [name for name, _ in in_memory[1]] == [n for n, _ in from_folder[1]]
    for (_, one), (_, other) in zip(from_file[1], in_memory[1], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert sum(probability for _, probability in from_file[1]) == pytest.approx(1, abs=1e-4)


def test_predicting_leaves_nothing_on_the_disk(run: maotune.Run, place: Path) -> None:
    kept = sorted((place / "cache").rglob("*"))
    run.predict(paint(place / "other" / "two.png", COLOURS["rain"], 100))
    assert sorted((place / "cache").rglob("*")) == kept


def test_other_classes_can_be_asked_for(run: maotune.Run) -> None:
    found = run.predict("heap", classes=["a car", "a_cat"], top_k=5)
    assert len(found) == 8
    assert all({name for name, _ in best} == {"a car", "a_cat"} for _, best in found)
    with pytest.raises(RecipeError, match="did you mean zeroshot"):
        run.predict("heap", prompts="zero-shot")
    with pytest.raises(ValueError, match="very"):
        run.predict("heap", classes=["very " * 80])


def test_unreadable_images_are_listed_or_fatal(run: maotune.Run, place: Path) -> None:
    (place / "bad.png").write_bytes(b"no picture")
    found = run.predict([place / "bad.png", *sorted((place / "heap").iterdir())])
    assert len(found) == 8
    assert [Path(image.name).name for image in found.skipped] == ["bad.png"]
    with pytest.raises(UnreadableImage, match=r"bad\.png"):
        run.predict(["bad.png", "heap"], strict=True)
    with pytest.raises(ValueError, match="no image to classify"):
        run.predict("bad.png")


def test_a_tar_shard_is_a_folder_of_images(run: maotune.Run, place: Path) -> None:
    files = sorted((place / "heap").iterdir())
    with tarfile.open(place / "heap.tar", "w") as shard:
        for file in files:
            shard.add(file, file.name)
    for (_, from_shard), (_, from_file) in zip(run.predict("heap.tar"), run.predict(files), strict=True):
        assert from_shard == from_file


def test_a_run_that_was_moved_or_saved_predicts_the_same(run: maotune.Run, place: Path, tmp_path: Path) -> None:
    expected = [*run.predict("heap", top_k=2)]
    moved = shutil.copytree("mine", tmp_path / "elsewhere")
    saved = run.save(tmp_path / "deploy.safetensors")
    assert saved.stat().st_size < 50_000
    for path in (moved, moved / "prompts.safetensors", saved):
        again = maotune.load(path, clip=toy_clip())
        assert [*again.predict("heap", top_k=2)] == expected
        assert again.result == run.result


def test_prompts_of_another_clip_are_refused(run: maotune.Run) -> None:
    with pytest.raises(CheckpointError, match="with other weights") as refused:
        maotune.load("mine", clip=toy_clip(seed=1))
    assert toy_clip().fingerprint[:12] in str(refused.value)
    assert toy_clip(seed=1).fingerprint[:12] in str(refused.value)


def test_data_that_are_not_here_must_be_named(
    run: maotune.Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run.evaluate("photos", split="val")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"data that are not here, seen from .*: name where they are now: photos \(--data"
    ):
        run.evaluate("photos", split="val")
    assert run.evaluate(place / "photos", split="val") == expected
    with pytest.raises(ValueError, match=r"'names\.txt' is not a file of class names"):
        run.evaluate(place / "photos", classes="names.txt")


def test_damaged_weights_are_suspected_and_not_all_images_named(run: maotune.Run) -> None:
    clip = toy_clip.__wrapped__()
    clip.model.visual_projection.weight.data[3, 2] = float("nan")
    damaged = maotune.Run(run.recipe, clip, run.stages, run.result)
    with pytest.raises(ArithmeticError, match=r"for all 8 images of a batch: the weights of the CLIP .* and 5 more$"):
        damaged.predict("heap")
    stages = {
        name: replace(stage, tensors={k: t * float("nan") for k, t in stage.tensors.items()})
        for name, stage in run.stages.items()
    }
    with pytest.raises(CheckpointError, match="the saved prompts are damaged"):
        maotune.Run(run.recipe, toy_clip(), stages, run.result).predict("heap", prompts="base")


def test_the_mean_over_classes_is_recorded(run: maotune.Run) -> None:
    assert set(run.result.mean_per_class) == {"val", "test"}
    assert run.result.mean_per_class["val"] == pytest.approx(run.result.scores["val"]), "as many images of each class"


def test_each_class_counts_alike_in_the_mean_over_classes(run: maotune.Run, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    first, *others = sorted((tmp_path / "photos" / "test").iterdir())
    for other in others:
        for image in sorted(other.iterdir())[1:]:
            image.unlink()
    scored = run.score(tmp_path / "photos")
    assert scored.accuracy == run.evaluate(tmp_path / "photos")
    assert scored.mean_per_class == pytest.approx(scored.per_class["accuracy"].mean())
    assert len(scored) == len([*first.iterdir()]) + len(others)


def test_what_is_no_run_is_refused(run: maotune.Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        maotune.load(tmp_path)
    with pytest.raises(CheckpointError, match="one stage"):
        maotune.load("mine/base.safetensors", clip=toy_clip())
    with pytest.raises(CheckpointError, match="does not exist"):
        maotune.load("nowhere.safetensors")


def test_the_folder_of_a_run_is_not_written_over(run: maotune.Run) -> None:
    given = {"method": "mao", "data__unlabelled": "heap", "folder": "mine", "clip": toy_clip(), **SMALL}
    with pytest.raises(CheckpointError, match="holds a run already"):
        maotune.tune("photos", **given)
    again = maotune.tune("photos", resume=True, **given)
    for stage, prompts in run.stages.items():
        for name, value in prompts.tensors.items():
            assert torch.equal(again.stages[stage].tensors[name], value)


def test_class_specific_contexts_predict_their_classes_and_no_others(place: Path) -> None:
    kept = maotune.tune("photos", learner__class_specific=True, clip=toy_clip(), **SMALL).save("own.safetensors")
    run = maotune.load(kept, clip=toy_clip())
    assert len(run.predict("heap", prompts="plain")) == 8
    assert len(run.predict("heap", classes=["sun", "fire"], prompts="plain")) == 8
    with pytest.raises(ValueError, match="'a car' is not one of them"):
        run.predict("heap", classes=["sun", "a car"], prompts="plain")


def test_mao_needs_unlabelled_images(place: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.unlabelled.*base-only"):
        maotune.tune("photos", method="mao", clip=toy_clip(), **SMALL)


def test_a_run_killed_between_tuning_and_its_result_still_tells_of_its_pseudo_labels(tmp_path: Path) -> None:
    small = {"method": "mao", "shots": 2, "epochs": 2, "data__views": 1, "data__bank": False}
    whole = maotune.tune("icons-weather", folder=tmp_path, **small).result
    scoring = (tmp_path / "scoring.json").read_bytes()
    for name in ("result.json", "scoring.json", "prompts.safetensors"):
        (tmp_path / name).unlink()
    again = maotune.tune("icons-weather", folder=tmp_path, resume=True, **small).result
    assert whole.pseudo_labels is not None
    assert again.pseudo_labels == whole.pseudo_labels
    assert (tmp_path / "scoring.json").read_bytes() == scoring
