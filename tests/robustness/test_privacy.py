"""What people share says nothing about the folders of their machine."""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import maotune
from maotune.cli import call
from maotune.printable import without_folders
from maotune.recipe import Recipe, load_recipe
from maotune.sweep.manifest import Sweep
from tests.toys import paint_photos

TOLD = ("recipe.json", "scoring.json", "pseudo_labels.json", "log.txt", "error.txt", "sweep.json")
"""Files of the folder of a run that may say where its data are; docs/own-images.md says so."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of somebody, with photos, class names, a pool and a CLIP."""
    home = tmp_path / "home" / "somebody"
    paint_photos(home / "project x")
    paint_photos(home / "pool")
    (home / "project x" / "photos" / "broken.png").write_bytes(b"no picture")
    shutil.copytree(str(files("maotune") / "assets" / "iconclip"), home / "models" / "clip")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MAOTUNE_CACHE", str(home / "cache"))
    monkeypatch.chdir(tmp_path)
    return home


def told(folder: Path, home: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TOLD and str(home.parent).encode() in path.read_bytes()
    ]


def test_nothing_that_is_shared_names_the_home_folder(home: Path, tmp_path: Path) -> None:
    photos, runs = home / "project x" / "photos", tmp_path / "runs"
    one = next(path for path in sorted(photos.rglob("*.png")) if path.parent != photos)
    one.with_name("cut.png").write_bytes(one.read_bytes()[:40])
    command = ["train", "--data", str(photos), "--unlabelled", str(home / "pool"), "--mao", "--folder", str(runs)]
    command += ["--clip", str(home / "models" / "clip"), "--shots", "2", "--epochs", "2", "data.views=1"]
    assert call(command) == 0
    (folder,) = (path for path in runs.iterdir())
    assert call(["report", str(runs)]) == 0
    assert told(runs, home) == []
    result = json.loads((folder / "result.json").read_text())
    assert result["recipe"]["data"]["source"] == "photos"
    assert result["recipe"]["clip"]["source"] == "~/models/clip"
    assert any(image["name"].startswith("photos/") and "cut.png" in image["name"] for image in result["skipped"])
    # The folder still knows where its data are: it is found again, and scored again.
    assert call(command) == 0
    assert [*runs.glob("*/result.json")] == [folder / "result.json"]
    run = maotune.load(folder)
    assert run.recipe.data.source == str(photos)
    assert run.evaluate(str(photos), split="val") == run.evaluate(photos, split="val")
    run.save(tmp_path / "shared" / "prompts.safetensors")
    assert told(tmp_path / "shared", home) == []
    assert maotune.load(tmp_path / "shared" / "prompts.safetensors").recipe.data.source == "photos"
    (folder / "result.json").unlink()
    assert call([*command, "--resume"]) == 0


def test_a_sweep_and_its_report_name_no_home_folder(home: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (home / "data").mkdir()
    shutil.move(home / "project x" / "photos", home / "data" / "photos")
    command = ["run", "base-to-new", "--data", str(home / "data" / "photos"), "--clip", "iconclip", "--seeds", "1"]
    command += ["--learners", "coop", "--methods", "plain", "--shots", "1", "--epochs", "2", "data.views=1"]
    command += ["--folder", str(sweep)]
    assert call(command) == 0
    assert call(["report", str(sweep)]) == 0
    assert told(sweep, home) == []
    assert Sweep.read(sweep).trials[0].recipe.data.source == str(home / "data" / "photos")


@pytest.mark.parametrize(
    ("setting", "value", "shown"),
    [
        ("data.source", "/data/patients", "patients"),
        ("data.source", "../../patients", "patients"),
        ("data.source", "hub:/data/patients", "hub:patients"),
        ("data.source", "hub:owner/name", "hub:owner/name"),
        ("data.source", "own/photos", "own/photos"),
        ("data.source", "icons-food", "icons-food"),
        ("data.root", "/data", "data"),
        ("data.classes", "/data/names.txt", "names.txt"),
        ("data.unlabelled", "/data/pool", "pool"),
        ("clip.source", "/models/ViT-B-16.pt", "ViT-B-16.pt"),
        ("clip.source", "openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("templates", "a photo of a {}/{}.", "a photo of a {}/{}."),
    ],
)
def test_settings_keep_names_only(setting: str, value: str, shown: str) -> None:
    recipe = load_recipe(None, {setting: value})
    part: Any = recipe.shareable().model_dump(mode="json")
    for key in setting.split("."):
        part = part[key]
    assert part == shown
    assert recipe.shareable().shareable() == recipe.shareable()
    assert recipe.shareable().located(recipe).deciding() == recipe.deciding()
    assert Recipe.from_record(recipe.shareable().model_dump(mode="json")) == recipe.shareable()


def test_a_folder_with_the_name_of_a_public_set_keeps_its_protocol() -> None:
    recipe = load_recipe(None, {"data.source": "/data/food101"})
    assert recipe.protocol_in_use.name == "adapt"
    assert recipe.shareable().protocol_in_use.name == "adapt"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/x y/photos/red fox/1.jpg: cut off", "photos/red fox/1.jpg: cut off"),
        ("cannot read /mnt/disk/a.jpg (x)", "cannot read a.jpg (x)"),
        ("maotune run a --root=/mnt/data data.root=/mnt/data", "maotune run a --root=data data.root=data"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("and/or 1/2 a / b", "and/or 1/2 a / b"),
        ("12 images /s, b /n; give /help", "12 images /s, b /n; give /help"),
        ("a photo of a {}/{}/{}. (B, d)/n/m x[1]/y/z", "a photo of a {}/{}/{}. (B, d)/n/m x[1]/y/z"),
        ("error:/mnt/disk/a.jpg, hub:/mnt/disk/pets", "error:a.jpg, hub:pets"),
        ("'/mnt/disk/a.jpg' and (/mnt/disk/b.jpg)\n\"/mnt/c/d\"", "'a.jpg' and (b.jpg)\n\"d\""),
        ("photos/red /1.jpg", "photos/red /1.jpg"),
        ("/mnt/disk/", "disk/"),
    ],
)
def test_texts_lose_their_folders(text: str, shown: str) -> None:
    assert without_folders(text, ["/data/x y/photos"]) == shown


def test_folders_with_spaces_in_their_names_are_found_on_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "My Passport" / "of some body"
    folder.mkdir(parents=True)
    text = f"cannot read {folder}/a b.jpg (or/and) {folder}/c.jpg"
    assert without_folders(text) == "cannot read a b.jpg (or/and) c.jpg"
    assert without_folders(f"{folder}/gone too/a.jpg: x") == "gone too/a.jpg: x"
