"""The fingerprint of data differs after any change that matters, and says what has changed."""

import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

from maotune.data.images.decode import ImageFile
from maotune.recipe import Recipe, load_recipe
from maotune.runs.build import build_splits
from maotune.runs.fingerprint import DataComparison, DataRecord, data_differences, record_data
from tests.toys import paint_photos


def recipe_for(place: Path, **settings: Any) -> Recipe:
    own = {"data.source": str(place / "photos"), "data.unlabelled": str(place / "heap"), "shots": 4}
    return load_recipe(None, {**own, "data.classes": str(place / "names.txt"), **settings})


def record_of(recipe: Recipe) -> DataRecord:
    drawn = build_splits(recipe)
    record = record_data(drawn.splits, [item.name for item in drawn.skipped], recipe.mao.pool == "train")
    loaded: DataRecord = json.loads(json.dumps(record))
    return loaded


def differences(recipe: Recipe, before: DataRecord) -> str:
    return "; ".join(DataComparison().differences(recipe, before))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    paint_photos(tmp_path)
    (tmp_path / "photos" / "train" / "sun" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "names.txt").write_text("sun\nrain\tlight rain\nsnow\nfire\n")
    return tmp_path


def repaint(path: Path, seed: int = 5) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(path)


def add_class(place: Path) -> None:
    for split in ("train", "val", "test"):
        repaint(place / "photos" / split / "owl" / "owl.png", len(split))
    with (place / "names.txt").open("a") as file:
        file.write("owl\n")


def rename(place: Path) -> None:
    (place / "names.txt").write_text("sun\nrain\theavy rain\nsnow\nfire\n")


def reorder(place: Path) -> None:
    (place / "names.txt").write_text("rain\tlight rain\nsun\nsnow\nfire\n")


def swap_classes(place: Path) -> None:
    for split in (place / "photos").iterdir():
        (split / "sun").rename(split / "other")
        (split / "snow").rename(split / "sun")
        (split / "other").rename(split / "snow")


def move_label(place: Path) -> None:
    (image, *_) = (place / "photos" / "train" / "sun").glob("sun-*.png")
    image.rename(place / "photos" / "train" / "snow" / image.name)


def swap_test_labels(place: Path) -> None:
    sun, snow = (next((place / "photos" / "test" / name).iterdir()) for name in ("sun", "snow"))
    content = sun.read_bytes()
    sun.write_bytes(snow.read_bytes())
    snow.write_bytes(content)


def grow_pool(place: Path) -> None:
    repaint(place / "heap" / "more.png")


def grow_test(place: Path) -> None:
    repaint(place / "photos" / "test" / "sun" / "more.png")


def change_in_place(place: Path) -> None:
    """All validation pictures of a class, with their old modification time."""
    for path in (place / "photos" / "val" / "sun").iterdir():
        times = path.stat().st_mtime_ns
        repaint(path)
        os.utime(path, ns=(times, times))


def mend(place: Path) -> None:
    repaint(place / "photos" / "train" / "sun" / "broken.png")


def remove(place: Path) -> None:
    shutil.rmtree(place / "photos" / "test" / "fire")


def rename_files(place: Path) -> None:
    """The names decide the order, and so the draw."""
    images = sorted((place / "photos" / "test" / "sun").iterdir())
    images[0].rename(images[0].with_name("zzz.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_class, "classes: with owl"),
        (rename, "classes: without light rain and with heavy rain"),
        (reorder, "classes: in another order"),
        (swap_classes, "images tuned on: other labels; val images: other labels; test images: other labels"),
        (move_label, "training split: 2 of sun instead of 3, 4 of snow instead of 3"),
        (swap_test_labels, "test images: other labels"),
        (grow_pool, "unlabelled pool: 9 instead of 8"),
        (grow_test, "test images: 9 instead of 8"),
        (change_in_place, "val images: other pictures"),
        (mend, "training split: 4 of sun instead of 3"),
        (remove, "test images: 6 instead of 8"),
        (rename_files, "images: in another order, as their names have changed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_is_found_and_said(place: Path, change: Callable[[Path], None], message: str) -> None:
    recipe = recipe_for(place)
    before = record_of(recipe)
    assert differences(recipe, before) == ""
    change(place)
    assert message in differences(recipe, before)
    assert message in "; ".join(data_differences(before, record_of(recipe)))
    older = {key: before[key] for key in ("base_classes", "new_classes", "fingerprint")}
    assert differences(recipe, older) == "images, labels or class names"
    assert differences(recipe, record_of(recipe)) == ""


def test_what_changes_no_content_is_no_change(place: Path) -> None:
    recipe = recipe_for(place)
    before = record_of(recipe)
    for path in (place / "photos").rglob("*.png"):
        path.touch()
    (place / "photos" / "train" / "sun" / "broken.png").write_bytes(b"broken in another way")
    (place / "photos" / "train" / "sun" / "new.png").write_bytes(b"broken, too")
    assert differences(recipe, before) == ""
    moved = shutil.copytree(place, place.parent / "moved")
    assert differences(recipe_for(moved), before) == ""
    assert differences(recipe, {}) == ""
    assert DataComparison().differences(recipe, None) == []


def test_training_images_count_where_all_are_used(place: Path) -> None:
    few, whole = recipe_for(place, shots=1), recipe_for(place, **{"shots": 1, "mao.pool": "train"})
    drawn = {sample.image.name for sample in build_splits(few).splits.shots}
    others = [path for path in (place / "photos" / "train").rglob("*.png") if str(path) not in drawn]
    before = record_of(few), record_of(whole)
    repaint(next(path for path in others if path.name != "broken.png"))
    assert differences(few, before[0]) == ""
    assert differences(whole, before[1]) == "training split: other pictures"


def test_images_in_a_shard(place: Path) -> None:
    def pack() -> None:
        with tarfile.open(place / "pool.tar", "w") as shard:
            shard.add(place / "heap", "heap")

    pack()
    recipe = recipe_for(place, **{"data.unlabelled": str(place / "pool.tar")})
    before = record_of(recipe)
    pack()
    assert differences(recipe, before) == ""
    repaint(next((place / "heap").iterdir()))
    pack()
    assert differences(recipe, before) == "unlabelled pool: other pictures"


def test_files_that_were_not_touched_are_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "photos" / "train" / "sun" / "broken.png").unlink()  # such a file is looked at each time
    recipe = recipe_for(place, **{"protocol": "few-shot", "data.unlabelled": None})
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)  # files are not taken for just written
    before = record_of(recipe)

    def read(*_: object) -> NoReturn:
        raise AssertionError("read")

    monkeypatch.setattr(ImageFile, "read", read)
    monkeypatch.setattr(ImageFile, "digest", read)
    assert differences(recipe, before) == ""


def test_data_that_are_gone_are_said_to_be(place: Path) -> None:
    recipe = recipe_for(place)
    before = record_of(recipe)
    shutil.rmtree(place / "photos")
    with pytest.raises(ValueError, match="photos' is neither a data set nor a path"):
        differences(recipe, before)


def test_shipped_sets_have_a_fingerprint_too() -> None:
    recipe = load_recipe(None, {"data.source": "icons-weather"})
    before = record_of(recipe)
    assert differences(recipe, before) == ""
    assert "images tuned on: other pictures" in differences(recipe.model_copy(update={"seed": 2}), before)
