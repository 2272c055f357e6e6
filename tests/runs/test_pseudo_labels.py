"""Pseudo-labels of a run: kept in its folder, made once, with a text of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import maotune
from maotune.train.history import StepDone

SMALL: dict[str, Any] = {"method": "mao", "shots": 2, "epochs": 4, "data__views": 1, "data__bank": False}


OTHER_TEXT = "an old painting of the {}."


class PulledPlug(Exception):
    """The machine goes down."""


def tune(folder: Path, **settings: Any) -> maotune.Run:
    return maotune.tune("icons-weather", folder=folder, **SMALL | settings)


@pytest.mark.parametrize("labeler", ["foundation", "tuned"])
def test_a_run_killed_in_the_new_stage_keeps_its_labels(tmp_path: Path, labeler: str) -> None:
    def pull_the_plug(event: Any) -> None:
        if isinstance(event, StepDone) and (event.stage, event.epoch) == ("new", 1):
            raise PulledPlug

    whole = tune(tmp_path / "whole", mao__labeler=labeler)
    with pytest.raises(PulledPlug):
        tune(tmp_path / "killed", mao__labeler=labeler, callback=pull_the_plug)
    file = tmp_path / "killed" / "pseudo_labels.json"
    written = file.stat()
    again = tune(tmp_path / "killed", mao__labeler=labeler, resume=True)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "not made again"
    assert again.result.scores == whole.result.scores
    assert whole.result.pseudo_labels is not None
    assert again.result.pseudo_labels == whole.result.pseudo_labels
    for name in ("pseudo_labels.json", "scoring.json", "new.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_killed_in_a_round_goes_on_with_its_soft_labels(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"mao__keep": "growing", "mao__rounds": 2, "mao__labels": "soft"}

    def pull_the_plug(event: Any) -> None:
        if isinstance(event, StepDone) and (event.stage, event.epoch) == ("new", 1):
            raise PulledPlug

    whole = tune(tmp_path / "whole", **settings)
    assert {*whole.stages} == {"base", "new-1", "new"}
    assert whole.result.scored_with == {"base": "base", "new": "new"}
    assert whole.result.pseudo_labels is not None
    assert whole.result.pseudo_labels["kept"] == 1
    with pytest.raises(PulledPlug):
        tune(tmp_path / "killed", callback=pull_the_plug, **settings)
    files = [f"pseudo_labels{stem}" for stem in (".json", ".safetensors", "-1.json", "-1.safetensors")]
    written = {name: (tmp_path / "killed" / name).stat() for name in files}
    again = tune(tmp_path / "killed", resume=True, **settings)
    for name, before in written.items():
        now = (tmp_path / "killed" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), f"{name} is not made again"
    assert again.result.pseudo_labels == pytest.approx(whole.result.pseudo_labels)
    assert again.result.scores == pytest.approx(whole.result.scores, abs=1)


def test_labels_without_a_checkpoint_are_not_taken_for_those_of_a_new_run(tmp_path: Path) -> None:
    first = tune(tmp_path / "first", mao__template="a photo of a {}.")
    (tmp_path / "second").mkdir()
    shutil.copy(tmp_path / "first" / "pseudo_labels.json", tmp_path / "second")
    (tmp_path / "second" / "pseudo_labels-1.safetensors").touch()
    second = tune(tmp_path / "second", mao__template="{}", resume=True)
    assert not (tmp_path / "second" / "pseudo_labels-1.safetensors").exists()
    assert second.result.pseudo_labels != first.result.pseudo_labels


def test_the_labeler_can_have_a_text_of_its_own(tmp_path: Path) -> None:
    """Default: the texts of zero-shot CLIP, by default the data set's own."""
    runs = {
        "default": tune(tmp_path / "default"),
        "own": tune(tmp_path / "own", mao__template="dataset"),
        "other": tune(tmp_path / "other", mao__template=OTHER_TEXT),
        "zero-shot": tune(tmp_path / "zero-shot", templates=OTHER_TEXT),
    }
    labels = {name: json.loads((tmp_path / name / "pseudo_labels.json").read_text()) for name in runs}
    assert labels["own"] == labels["default"]
    assert labels["other"] == labels["zero-shot"] != labels["default"]
    assert runs["other"].result.templates == runs["default"].result.templates, "zero-shot CLIP keeps its texts"
    assert runs["default"].recipe.slug == runs["zero-shot"].recipe.model_copy(update={"templates": "dataset"}).slug
