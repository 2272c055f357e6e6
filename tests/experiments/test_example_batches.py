"""Pictures of mini-batches: what is shown is what was drawn."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maotune.experiments.example_batches import ExampleBatches, collect_example_batches
from maotune.experiments.first_batches import draw_first_batches
from maotune.mao.stages import hard_negative_table
from maotune.recipe import Recipe, load_recipe
from tests.toys import COLOURS, paint_photos

WEATHER = {"data.source": "icons-weather", "data.shots": 2, "epochs": 2}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(None, WEATHER)


@pytest.fixture(scope="module")
def found(recipe: Recipe) -> ExampleBatches:
    return collect_example_batches(recipe, batches=2)


def test_the_first_batches_are_shown(recipe: Recipe, found: ExampleBatches) -> None:
    whole = draw_first_batches(recipe).batches
    assert found.draws.batches == {kind: batches[:2] for kind, batches in whole.items()}
    assert len(collect_example_batches(recipe, batches=10**6).draws.batches["hard"]) == len(whole["hard"])


def test_json_says_what_is_in_them(found: ExampleBatches, tmp_path: Path) -> None:
    document = found.save(tmp_path)
    told = json.loads(document.read_text(encoding="utf-8"))
    assert document.name == "cases-icons-weather-seed1.json"
    assert (told["dataset"], told["seed"], told["b"], told["k"]) == ("icons-weather", 1, found.draws.b, found.draws.k)
    for kind, batches in found.draws.batches.items():
        for entries, batch in zip(told["batches"][kind], batches, strict=True):
            shown = sorted((entry["image"], entry["class"]) for entry in entries)
            assert shown == sorted((sample.image.name, found.draws.classes[sample.label]) for sample in batch)
    assert not any("picture" in entry for of in found.document()["batches"].values() for batch in of for entry in batch)


def test_each_query_comes_before_its_neighbours(recipe: Recipe, found: ExampleBatches) -> None:
    """Each row is the list of the query's class in the table of hard negatives."""
    b, k, classes = found.draws.b, found.draws.k, found.draws.classes
    table = hard_negative_table(classes, recipe.mao)
    for batch in found.document()["batches"]["hard"]:
        assert len(batch) == b * k
        for query in range(b):
            row = [classes.index(entry["class"]) for entry in batch[query * k : (query + 1) * k]]
            assert row == table[row[0], :k].tolist()


def test_pictures_are_those_of_the_images(tmp_path: Path) -> None:
    source = paint_photos(tmp_path, train=2)
    found = collect_example_batches(load_recipe(None, {**WEATHER, "data.source": str(source)}), batches=1)
    told = json.loads(found.save(tmp_path / "out").read_text(encoding="utf-8"))
    for entry in (entry for of_kind in told["batches"].values() for entry in of_kind[0]):
        data = base64.b64decode(entry["picture"].removeprefix("data:image/webp;base64,"))
        seen = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float).mean((0, 1))
        assert np.abs(seen - np.array(COLOURS[entry["class"]])).max() < 30


def test_at_least_one_batch_is_asked_for(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="batches is 0: give the number of mini-batches to show, 1 or more"):
        collect_example_batches(recipe, batches=0)
