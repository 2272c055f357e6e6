"""Pictures of mini-batches: what is shown is what was drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maotune.experiments.example_batches import ExampleBatches, collect_example_batches, plot_example_batches
from maotune.experiments.first_batches import draw_first_batches
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
    document, _ = found.save(tmp_path)
    told = json.loads(document.read_text(encoding="utf-8"))
    assert document.name == "cases-icons-weather-seed1.json"
    assert (told["dataset"], told["seed"], told["b"], told["k"]) == ("icons-weather", 1, found.draws.b, found.draws.k)
    for kind, batches in found.draws.batches.items():
        assert told["batches"][kind] == [
            [{"image": sample.image.name, "class": found.draws.classes[sample.label]} for sample in batch]
            for batch in batches
        ]


def test_every_picture_stands_over_its_class(found: ExampleBatches) -> None:
    panels = [panel for panel in plot_example_batches(found).axes if panel.images]
    kinds = [kind for row in range(2) for kind in ("random", "hard") if row < len(found.draws.batches[kind])]
    rows = {"random": 0, "hard": 0}
    for panel, kind in zip(panels, kinds, strict=True):
        batch = found.draws.batches[kind][rows[kind]]
        rows[kind] += 1
        assert len(panel.images) == len(panel.texts) == len(batch)
        for image, text, sample in zip(panel.images, panel.texts, batch, strict=True):
            left, right, bottom, top = image.get_extent()
            x, y = text.get_position()
            assert left < x < right
            assert top < bottom < y
            name = found.draws.classes[sample.label].replace("_", " ")
            assert text.get_text().split() == name.split()[: len(text.get_text().split())]


def test_the_png_holds_the_colours_of_the_pictures(tmp_path: Path) -> None:
    source = paint_photos(tmp_path, train=2)
    _, figure = collect_example_batches(load_recipe(None, {**WEATHER, "data.source": str(source)}), batches=1).save(
        tmp_path / "out"
    )
    pixels = np.asarray(Image.open(figure).convert("RGB"), dtype=float).reshape(-1, 3)
    for name, colour in COLOURS.items():
        near = (np.abs(pixels - np.array(colour)).max(1) < 40).sum()
        assert near > 1000, f"no picture of {name}"


def test_at_least_one_batch_is_asked_for(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="batches is 0: give the number of mini-batches to show, 1 or more"):
        collect_example_batches(recipe, batches=0)
