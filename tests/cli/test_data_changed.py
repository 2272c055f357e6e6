"""A run is that of its data: after any change the same command tunes anew beside it, and nothing is resumed."""

import shutil
from pathlib import Path

import pytest

import maotune as package
from maotune.recipe import load_recipe
from maotune.train.history import EpochDone
from maotune.train.session import CheckpointError
from tests.cli.conftest import Maotune
from tests.toys import paint, paint_photos

ICONCLIP = ("--clip", "iconclip")
COMMAND = (
    "train",
    "--data",
    "photos",
    "--classes",
    "names.txt",
    "--epochs",
    1,
    "--shots",
    2,
    "data.views=1",
    *ICONCLIP,
)


@pytest.fixture
def place(photos: Path, tmp_path: Path) -> Path:
    return shutil.copytree(photos, tmp_path / "place")


def swap_classes(place: Path) -> None:
    photos = place / "photos"
    (photos / "leaf").rename(photos / "other")
    (photos / "sky").rename(photos / "leaf")
    (photos / "other").rename(photos / "sky")


def test_after_a_change_the_same_command_tunes_anew_in_a_folder_of_its_own(maotune: Maotune, place: Path) -> None:
    answer = maotune(*COMMAND, "--json", cwd=place)
    assert answer.code == 0, answer.err
    (before,) = (Path(run["folder"]) for run in answer.json["runs"])
    assert "finished before" in maotune(*COMMAND, cwd=place).err
    (place / "names.txt").write_text("tomato\nleaf\toak leaf\nsky\n")
    answer = maotune(*COMMAND, "--json", cwd=place)
    assert answer.code == 0, answer.err
    assert "finished before" not in answer.err
    message = "classes: without green leaf, snow and with oak leaf"
    assert f"the data have changed since {before}: {message}" in answer.err
    expected = {"folder": f"{before}-2", "before": str(before), "differences": [message]}
    assert answer.json["data_changed"] == [expected]
    again = maotune(*COMMAND, "--json", cwd=place)
    assert f"finished before, in {before}-2" in again.err
    assert "data_changed" not in again.json
    assert again.json["runs"] == answer.json["runs"]


def stop_after_an_epoch(event: object) -> None:
    if isinstance(event, EpochDone):
        raise KeyboardInterrupt


def test_an_unfinished_run_is_not_resumed_on_other_data(maotune: Maotune, place: Path, tmp_path: Path) -> None:
    own = {"epochs": 3, "data__views": 1, "shots": 2, "folder": tmp_path / "runs" / "one", "clip__source": "iconclip"}
    with pytest.raises(KeyboardInterrupt):
        package.tune(place / "photos", callback=stop_after_an_epoch, **own)
    checkpoint = (tmp_path / "runs" / "one" / "checkpoint.safetensors").read_bytes()
    swap_classes(place)
    with pytest.raises(CheckpointError, match=r"on other data, so it cannot be resumed: training split: 8 of leaf"):
        package.tune(place / "photos", resume=True, **own)
    recipe = load_recipe(None, {"data.source": str(place / "photos"), "shots": 2, "epochs": 3, "data.views": 1})
    (tmp_path / "runs" / "one").rename(tmp_path / "runs" / recipe.slug)
    command = (
        "train",
        "--data",
        place / "photos",
        "--folder",
        tmp_path / "runs",
        "--epochs",
        3,
        "--shots",
        2,
        *ICONCLIP,
    )
    answer = maotune(*command, "data.views=1", "--resume", "--json")
    assert answer.code == 1
    assert "holds an unfinished run of this recipe on other data" in answer.json["error"]
    answer = maotune(*command, "data.views=1", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["data_changed"][0]["folder"].endswith("-2")
    assert (tmp_path / "runs" / recipe.slug / "checkpoint.safetensors").read_bytes() == checkpoint
    swap_classes(place)
    answer = maotune(*command, "data.views=1", "--resume", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["runs"][0]["folder"] == str(tmp_path / "runs" / recipe.slug)


@pytest.mark.slow
def test_a_finished_sweep_is_not_extended_on_other_data(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    command = ("run", "base-to-new", "--data", photos, "--learners", "coop", "--methods", "zeroshot", "--seeds", 1)
    small = ("--folder", tmp_path / "sweep", "--jobs", 1, "shots=2", "epochs=1", "data.views=1", "--yes")
    assert maotune(*command, *small).code == 0
    paint(photos / "test" / "sun" / "more.png", (250, 220, 30), 77)
    answer = maotune(*command, *small)
    assert answer.code == 1
    assert "the data have changed since 1 of the trials in" in answer.err
    assert "images: 5 instead of 4" in answer.err
