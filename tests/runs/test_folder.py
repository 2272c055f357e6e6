"""Folders of runs are known by the recipe that they have recorded, not by their names."""

import json
from pathlib import Path

import pytest

from maotune.recipe import Recipe, load_recipe
from maotune.runs.folder import RECIPE, find_run_folder, identity, recorded_recipe, same_run
from maotune.train.session import CheckpointError


def record(folder: Path, recipe: Recipe, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / RECIPE).write_text(json.dumps({**recipe.model_dump(mode="json"), **changes}), encoding="utf-8")
    return folder


def test_a_folder_of_the_right_name_with_another_run_is_not_taken(tmp_path: Path) -> None:
    """Names leave out defaults: after a default changes, a folder of before has the name of another run."""
    recipe = load_recipe(None, {"data.source": "icons-food"})
    record(tmp_path / recipe.slug, recipe, epochs=recipe.epochs + 1)
    folder = find_run_folder(tmp_path, recipe)
    assert folder == tmp_path / f"{recipe.slug}-2"
    record(folder, recipe)
    assert find_run_folder(tmp_path, recipe) == folder


def test_a_folder_of_another_name_with_the_run_is_taken(tmp_path: Path) -> None:
    recipe = load_recipe(None, {"data.source": "icons-food", "method": "mao"})
    folder = record(tmp_path / f"{recipe.title_and_seed}-0123ab", recipe)
    assert find_run_folder(tmp_path, recipe) == folder


@pytest.mark.parametrize(
    "change",
    [{"data.root": "elsewhere"}, {"clip.device": "cpu"}, {"data.bank": False}, {"train.checkpoint_seconds": 5}],
)
def test_what_decides_nothing_makes_no_other_folder(tmp_path: Path, change: dict[str, object]) -> None:
    recipe = load_recipe(None, {"data.source": "food101"})
    moved = load_recipe(None, {"data.source": "food101", **change})
    assert moved.slug == recipe.slug
    assert find_run_folder(tmp_path, moved) == find_run_folder(tmp_path, recipe)
    assert same_run(moved, recipe)


def test_auto_is_the_protocol_that_it_stands_for_and_a_text_of_the_data_set_is_the_text() -> None:
    named = {"data.source": "icons-food", "learner": "kgcoop", "learner.template": "dataset"}
    recipe = load_recipe(None, named)
    filled = load_recipe(None, {**named, "learner.template": "a photo of a {}, a type of food."})
    assert same_run(recipe, filled)
    assert not same_run(filled, load_recipe(None, {**named, "learner.template": "a picture of a {}."}))
    assert same_run(recipe, load_recipe(None, {**named, "protocol": "base-to-new"}))
    assert not same_run(recipe, load_recipe(None, {**named, "seed": 2}))


def test_a_run_of_a_version_without_views_of_each_seed_shares_its_views(tmp_path: Path) -> None:
    given = {"data.source": "icons-food", "method": "mao"}
    before = load_recipe(None, {**given, "mao.fill": "distinct", "data.shared_views": True})
    record = before.model_dump(mode="json")
    del record["data"]["shared_views"]
    record["mao"]["fill"] = True
    folder = tmp_path / load_recipe(None, given).slug
    folder.mkdir()
    (folder / RECIPE).write_text(json.dumps(record), encoding="utf-8")
    assert recorded_recipe(folder) == before
    assert find_run_folder(tmp_path, before) == folder
    assert find_run_folder(tmp_path, load_recipe(None, given)) == folder.with_name(f"{folder.name}-2")
    assert identity({"recipe": record})["recipe"] == before.deciding()


def test_a_run_of_a_version_that_took_class_names_as_they_are_does_so(tmp_path: Path) -> None:
    for source, same in (("photos", False), ("icons-food", True)):
        recipe = load_recipe(None, {"data.source": source, "data.shared_views": True})
        old = recipe.model_dump(mode="json")
        del old["data"]["as_words"]
        assert Recipe.from_record(old).data.as_words is False
        assert same_run(recipe, Recipe.from_record(old)) is same, "published names are not changed"


def test_a_record_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe(None, {"data.source": "icons-food"})
    folder = record(tmp_path / recipe.slug, recipe, epochs="many")
    with pytest.raises(CheckpointError, match="not written by this version of maotune"):
        recorded_recipe(folder)


def test_a_damaged_neighbour_does_not_block_another_run(tmp_path: Path) -> None:
    recipe = load_recipe(None, {"data.source": "icons-food"})
    (tmp_path / f"{recipe.title_and_seed}-0123ab").mkdir()
    (tmp_path / f"{recipe.title_and_seed}-0123ab" / RECIPE).write_text("{", encoding="utf-8")
    assert find_run_folder(tmp_path, recipe) == tmp_path / recipe.slug
