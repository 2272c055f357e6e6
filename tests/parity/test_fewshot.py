"""Few-shot draws, splits and class names against CoOp's own code, on a small fake copy of its data sets."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from maotune.data.draw import base_new, few_shot
from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.dataset import Sample
from maotune.data.sets.named import named_sets
from maotune.data.sets.tables import read_split_json
from maotune.recipe import load_recipe
from maotune.runs.build import build_splits
from tests.golden import FAKE_DATASETS, GOLDEN

RECORDED: dict[str, Any] = json.loads((GOLDEN / "fewshot_splits_seed1.json").read_text())
NAME = {row.folder: name for name, row in named_sets().items()}
RUNS = {NAME[golden["folder"]]: golden for golden in RECORDED["with_split_json"].values()}


@pytest.fixture(scope="module")
def with_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake data sets, with split files."""
    root = tmp_path_factory.mktemp("splits")
    subprocess.run([sys.executable, FAKE_DATASETS, root], check=True)
    return root


@pytest.fixture(scope="module")
def annotations_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without split files."""
    root = tmp_path_factory.mktemp("annotations")
    subprocess.run([sys.executable, FAKE_DATASETS, root, "--no-splits"], check=True)
    return root


def listed(samples: Sequence[Sample], folder: Path) -> list[list[object]]:
    """Samples as the golden file writes them."""
    return [[Path(sample.image.name).relative_to(folder).as_posix(), sample.label] for sample in samples]


@pytest.mark.parametrize("golden", RECORDED["with_split_json"].values(), ids=lambda golden: golden["folder"])
def test_few_shot_draws_are_those_of_coop(with_splits: Path, golden: dict[str, Any]) -> None:
    folder = with_splits / golden["folder"]
    dataset = load_dataset(NAME[golden["folder"]], with_splits)
    for run, expected in golden["runs"].items():
        shots, _, half = run.removeprefix("shots").split("_")
        drawn = few_shot(dataset, int(shots), seed=1)
        base, new = base_new(drawn)
        part = {"all": drawn, "base": base, "new": new}[half]
        assert listed(part.train, folder) == expected["train"], run
        assert listed(part.val, folder) == expected.get("val", []), run
        assert listed(part.test, folder) == golden["test"][half], run
        assert list(part.classes) == golden["classnames"][half], run


@pytest.mark.parametrize("golden", RECORDED["from_annotations"].values(), ids=lambda golden: golden["folder"])
def test_splits_drawn_from_annotations_are_those_of_coop(annotations_only: Path, golden: dict[str, Any]) -> None:
    folder, name = annotations_only / golden["folder"], NAME[golden["folder"]]
    stream = random.Random(1)
    dataset = load_dataset(name, annotations_only, stream=stream)
    expected = golden["runs"]["shots4_seed1_all"]
    for split, items in expected["split_json"].items():
        samples = getattr(dataset, split)
        assert listed(samples, folder / named_sets()[name].images) == [item[:2] for item in items]
        assert [dataset.classes[sample.label] for sample in samples] == [item[2] for item in items]
    drawn = few_shot(dataset, 4, stream)
    assert listed(drawn.train, folder) == expected["train"]
    assert listed(drawn.val, folder) == expected["val"]
    assert list(dataset.classes) == golden["classnames"]["all"]


@pytest.mark.parametrize("name", ["dtd", "flowers102", "imagenet"])
def test_a_run_tunes_on_the_draw_of_coop(with_splits: Path, name: str) -> None:
    golden = RUNS[name]
    folder = with_splits / golden["folder"]
    recipe = load_recipe(None, {"data.source": name, "data.root": str(with_splits), "data.shots": 4, "seed": 1})
    splits, skipped, _ = build_splits(recipe)
    assert not skipped
    assert listed(splits.shots, folder) == golden["runs"]["shots4_seed1_base"]["train"]
    assert splits.unlabelled is not None
    drawn = [image for image, _ in listed(splits.unlabelled.samples, folder)]
    assert sorted(drawn) == sorted(image for image, _ in golden["runs"]["shots4_seed1_new"]["train"])  # type: ignore[type-var]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 16])
def test_other_seeds_draw_from_one_stream_class_by_class(with_splits: Path, shots: int, seed: int) -> None:
    """Against the rule written out again, with the global generator, as CoOp seeds it."""
    for name in named_sets().keys() - {"imagenetv2", "imagenet-sketch", "imagenet-a", "imagenet-r"}:
        dataset = load_dataset(name, with_splits)
        random.seed(seed)
        expected = []
        for part, most in ((dataset.train, shots), (dataset.val, min(shots, 4))):
            labels = list(dict.fromkeys(sample.label for sample in part))
            of_label = [[sample for sample in part if sample.label == label] for label in labels]
            expected.append(
                [s for items in of_label for s in (random.sample(items, most) if len(items) >= most else items)]
            )
        drawn = few_shot(dataset, shots, seed)
        assert [list(drawn.train), list(drawn.val)] == expected, name


def test_a_split_file_finds_its_images(with_splits: Path) -> None:
    file = with_splits / "oxford_pets/split_zhou_OxfordPets.json"
    assert read_split_json(file).train == load_dataset("oxford-pets", with_splits).train


def test_the_split_does_not_depend_on_the_seed_of_the_draw(annotations_only: Path) -> None:
    once, again = (load_dataset("dtd", annotations_only) for _ in range(2))
    assert once == again
    assert few_shot(once, 2, seed=1).train != few_shot(once, 2, seed=2).train
