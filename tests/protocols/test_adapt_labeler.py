"""The labeler of a pool that may lack classes."""

from pathlib import Path

from maotune.recipe import load_recipe


def test_own_images_are_labelled_by_the_labeler_that_no_missing_class_harms(tmp_path: Path) -> None:
    own = {"data.source": str(tmp_path), "method": "mao"}
    assert load_recipe(None, own).mao.labeler == "stata"
    assert load_recipe(None, {**own, "learner": "gda"}).mao.labeler == "stata", "no epochs of prompts are set"
    assert load_recipe(None, {"protocol": "adapt"}).mao.labeler == "stata"
    assert load_recipe(None, {**own, "mao.labeler": "foundation"}).mao.labeler == "foundation"
    for paper in ({}, {"protocol": "base-to-new"}, {**own, "protocol": "few-shot"}):
        assert load_recipe(None, paper).mao.labeler == "foundation"


def test_a_file_that_says_otherwise_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {source: photos}\nmao: {labeler: transclip}\n")
    assert load_recipe(file).mao.labeler == "transclip"
    file.write_text("data: {source: photos}\n")
    assert load_recipe(file).mao.labeler == "stata"
    file.write_text("data: {source: icons-weather}\n")
    assert load_recipe(file).mao.labeler == "foundation"
