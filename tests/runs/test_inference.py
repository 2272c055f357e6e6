"""Images per second of tuned prompts."""

import time
from pathlib import Path

import pytest

from maotune.clip import FrozenCLIP
from maotune.data.sets.folders import read_folder
from maotune.learners import LEARNERS
from maotune.recipe import load_recipe
from maotune.runs.build import build_learner
from maotune.runs.inference import Inference, measure_inference
from maotune.runs.tune import tune_recipe
from maotune.sweep.inference import measure
from maotune.sweep.manifest import Sweep
from tests.toys import paint_photos, toy_clip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_photos(tmp_path_factory.mktemp("cost"), train=2, val=1, test=2, heap=0)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_can_be_measured(name: str, photos: Path, tmp_path: Path) -> None:
    dataset = read_folder(photos)
    learner = build_learner(load_recipe(f"icons/{name}"), toy_clip(), dataset.classes)
    made = measure_inference(toy_clip(), learner, dataset.test, batch_size=5, rounds=2)
    assert (made.batch_size, made.classes, made.device) == (5, 4, "cpu")
    assert made.images_per_second > 0
    made.save(tmp_path)
    assert Inference.find(tmp_path) == made


def test_nothing_measured_and_nothing_to_measure_with(tmp_path: Path) -> None:
    assert Inference.find(tmp_path) is None
    learner = build_learner(load_recipe("icons/coop"), toy_clip(), ("rain", "snow"))
    with pytest.raises(ValueError, match="no image to measure with"):
        measure_inference(toy_clip(), learner, [])


def test_finished_trials_are_measured_once(photos: Path, tmp_path: Path) -> None:
    small = {"protocol": "few-shot", "epochs": 1, "data.shots": 1, "data.bank": False}
    for seed in (1, 2):
        recipe = load_recipe("icons/coop", {**small, "data.source": str(photos), "seed": seed})
        tune_recipe(recipe, tmp_path / f"seed{seed}", estimates=False)
    measure(Sweep.read(tmp_path).trials)
    made = [Inference.find(tmp_path / f"seed{seed}") for seed in (1, 2)]
    assert [one and (one.classes, one.batch_size) for one in made] == [(4, 8), (4, 8)]
    measure(Sweep.read(tmp_path).trials)
    assert [Inference.find(tmp_path / f"seed{seed}") for seed in (1, 2)] == made, "what was measured stands"


class Slow(FrozenCLIP):
    """An image tower that takes its time, and counts."""

    towers = 0
    texts = 0

    def encode_image(self, *arguments, **named):
        self.towers += 1
        time.sleep(0.05)
        return super().encode_image(*arguments, **named)

    def encode_text(self, *arguments, **named):
        self.texts += 1
        return super().encode_text(*arguments, **named)


def test_the_tower_is_measured_beside_the_learner_and_texts_are_encoded_once(photos: Path) -> None:
    clip = Slow(toy_clip().model, name="slow")
    dataset = read_folder(photos)
    learner = build_learner(load_recipe("icons/coop"), clip, dataset.classes)
    made = measure_inference(clip, learner, dataset.test, batch_size=4, rounds=3)
    assert clip.towers == 8, "alone and with the learner, four times"
    assert clip.texts == 1
    assert made.tower_images_per_second <= 4 / 0.05
    assert made.images_per_second <= 4 / 0.05
