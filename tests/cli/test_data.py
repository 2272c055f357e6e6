"""``maotune data``, and the commands of docs/datasets.md, run."""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maotune.data.sets.named import named_sets
from tests.cli.conftest import Maotune
from tests.data.sets.test_archives import tar
from tests.toys import COLOURS, paint, paint_photos

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
TRAIN = ("train", "--clip", "iconclip")


def jpeg(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 20, (24, 24, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the page takes for granted: ``downloads`` with two public sets in small, ``birds`` for the hub, ``pool``."""
    datasets = pytest.importorskip("datasets", reason='pip install "maotune[hub]"')
    root = tmp_path_factory.mktemp("page")
    for folder in ("data", "downloads", "birds", "pool"):
        (root / folder).mkdir()
    pictures = {f"{breed}_{n}": jpeg(colour, n) for breed, colour in COLOURS.items() for n in range(1, 13)}
    tar(root / "downloads/images.tar.gz", {f"images/{name}.jpg": content for name, content in pictures.items()})
    lines = [f"{name} {[*COLOURS].index(name.partition('_')[0]) + 1} 1 1\n" for name in pictures]
    lists = {"trainval": [line for line in lines if int(line.split(" ")[0].split("_")[1]) <= 9]}
    lists["test"] = [line for line in lines if line not in lists["trainval"]]
    tar(
        root / "downloads/annotations.tar.gz", {f"annotations/{n}.txt": "".join(of).encode() for n, of in lists.items()}
    )
    textures = {f"dtd/images/{name}/{n}.jpg": jpeg(colour, n) for name, colour in COLOURS.items() for n in range(6)}
    tar(root / "downloads/dtd-r1.0.1.tar.gz", textures)
    for split, count in {"train": 3, "validation": 2, "test": 2}.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                paint(root / "birds" / split / name / f"{number}.png", colour, len(split) * 10 + number)
    for part in range(2):
        with tarfile.open(root / f"pool/part-{part}.tar", "w") as shard:
            for number, colour in enumerate(COLOURS.values()):
                content = jpeg(colour, 100 * part + number)
                member = tarfile.TarInfo(f"{number}.jpg")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield root


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_their_order(maotune: Maotune, place: Path) -> None:
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    commands = [line.partition("#")[0].replace('"', "").split() for line in re.findall(r"maotune (.*)", text)]
    assert [command[0] for command in commands] == ["data", "data", "data", "train", "data", "train", "train"]
    for command in commands:
        quick = ["epochs=2", "data.shots=2", "--clip", "iconclip"] if command[0] == "train" else []
        answer = maotune(*command, *quick, cwd=place)
        assert answer.code == 0, f"{' '.join(command)}: {answer.err}"
    assert len([*(place / "runs").glob("*/result.json")]) == 3


def states(document: Any) -> dict[str, str]:
    return {one["name"]: one["state"] for one in document["sets"]}


def test_what_is_there_is_shown(maotune: Maotune, place: Path, tmp_path: Path) -> None:
    assert set(states(maotune("data", "check", "--root", tmp_path, "--json").json).values()) == {"missing"}
    done = maotune("data", "prepare", "dtd", "--root", tmp_path, "--archives", place / "downloads", "--json")
    assert done.code == 0, done.err
    assert [(one["name"], one["made"]) for one in done.json["sets"]] == [("dtd", ["images"])]
    checked = maotune("data", "check", "--root", tmp_path, "--json")
    assert checked.code == 0
    assert list(states(checked.json)) == list(named_sets())
    assert states(checked.json)["dtd"] == "differs"
    (dtd,) = [one for one in checked.json["sets"] if one["name"] == "dtd"]
    assert dtd["found"] == {"classes": 4, "train": 12, "val": 4, "test": 8}
    assert dtd["expected"] == {"classes": 47, "train": 2820, "val": 1128, "test": 1692}
    assert any("classes 4 (expected 47)" in sentence for sentence in dtd["advice"])
    assert maotune("data", "check", "--root", tmp_path, "--strict").code == 1
    told = maotune("data", "check", "--root", tmp_path).out
    assert re.search(r"dtd +differs +4 +12 +4 +8", told)
    assert f"maotune data prepare food101 --root {tmp_path}" in told
    assert "https://data.vision.ee.ethz.ch" in told


def test_what_cannot_be_prepared_is_said(maotune: Maotune, place: Path, tmp_path: Path) -> None:
    answer = maotune("data", "prepare", "ucf101", "--root", tmp_path)
    assert answer.code == 1
    assert "missing: UCF-101-midframes, made from UCF-101-midframes.zip" in answer.out
    assert "middle frame" in answer.out
    everything = maotune("data", "prepare", "--root", tmp_path, "--archives", place / "downloads")
    assert everything.code == 0
    assert re.findall(r"^(\S+):$", everything.out, re.MULTILINE) == ["oxford-pets", "dtd"]
    again = maotune("data", "prepare", "--root", tmp_path, "--archives", place / "downloads")
    assert "nothing to do" in again.out
    (tmp_path / "eurosat").mkdir()
    (tmp_path / "eurosat" / "EuroSAT.zip").write_text("<html>404")
    broken = maotune("data", "prepare", "eurosat", "--root", tmp_path)
    assert broken.code == 1
    assert "EuroSAT.zip is cut off or no archive" in broken.err
    unknown = maotune("data", "prepare", "pets", "--root", tmp_path)
    assert unknown.code == 2
    assert "did you mean" in unknown.err


def test_check_needs_something_to_check(maotune: Maotune, tmp_path: Path) -> None:
    assert maotune("data", "check").code == 2
    nowhere = maotune("data", "check", "--root", tmp_path / "nowhere")
    assert nowhere.code == 1
    assert "is not a folder" in nowhere.err


def test_several_data_sets_are_read_at_once(maotune: Maotune, photos: Path) -> None:
    one = maotune("data", "check", photos / "photos", "--json").json
    two = maotune("data", "check", photos / "photos", photos / "heap", "--json").json
    assert two["readable"] == one["readable"] + len([*(photos / "heap").iterdir()])
    assert two["skipped"] == one["skipped"]


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A folder with something of every kind that can be wrong."""
    for name, (colour, wrapped) in {
        "009.LadyBeetle": ((200, 30, 20), 5),
        "owl": ((90, 70, 50), 9),
        "c0": ((9, 9, 200), 20),
    }.items():
        for number in range(8):
            paint(tmp_path / "photos" / name / f"{number}.png", colour, 100 * wrapped + number)
    photos = tmp_path / "photos"
    shutil.copy(photos / "c0" / "0.png", photos / "owl" / "copy.png")
    paint(photos / "loose.png", (1, 2, 3), 1)
    paint(photos / "@eaDir" / "thumb.jpg", (1, 2, 3), 2)
    (photos / "hare").mkdir()
    (photos / "owl" / "clip.mp4").write_bytes(b"....ftypmp42")
    (photos / "c0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    Image.new("RGB", (40, 40), (3, 3, 3)).save(photos / "owl" / "night.png")
    return photos


def test_everything_about_a_folder_on_one_screen(maotune: Maotune, messy: Path) -> None:
    answer = maotune("data", "check", messy)
    assert answer.code == 0
    assert "photos: 3 classes (Lady Beetle, c0, ...), 27 images" in answer.out
    assert re.search(r"4 +2 +2  Lady Beetle   \(on disk: 009.LadyBeetle\)", answer.out)
    assert "1 class name is like codes, such as 'c0'" in answer.out
    assert "1 empty folder, 1 in system folders, 1 loose, 1 truncated, 1 video" in answer.out
    assert "copies: 1 picture has two labels" in answer.out
    assert "1 picture is nearly flat: " in answer.out
    assert "26 of 27 images can be read" in answer.out
    assert len(answer.out.splitlines()) <= 24
    assert maotune("data", "check", messy, "--strict").code == 1
    document = maotune("data", "check", messy, "--json").json
    assert document["readable"] == 26
    assert {item["kind"] for item in document["skipped"]} == {
        "truncated",
        "empty folder",
        "in system folders",
        "loose",
        "video",
    }
    (folder,) = document["sets"]
    assert folder["renamed"] == {"009.LadyBeetle": "Lady Beetle"}
    assert folder["classes"]["c0"] == {"train": 4, "val": 2, "test": 3}
    assert folder["flat"] == [f"1 picture is nearly flat: {messy / 'owl' / 'night.png'}"]


def test_a_clean_folder_is_content(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    (photos / ".DS_Store").write_bytes(b"Bud1")
    (photos / "README.md").write_text("Taken in 2020.")
    answer = maotune("data", "check", photos, "--strict")
    assert answer.code == 0, answer.out
    assert answer.out.startswith("photos: 4 classes (fire, rain, ...), 28 images: 12 train, 8 val, 8 test")
    assert answer.out.endswith("all 28 images can be read\n")
    assert "left out: 1 document\nall 28" in answer.out


def test_the_screen_stays_one_screen(maotune: Maotune, tmp_path: Path) -> None:
    for name in range(30):
        paint(tmp_path / "photos" / f"kind {name}" / "1.png", (8 * name, 90, 50), name)
        (tmp_path / "photos" / f"kind {name}" / "clip.mp4").write_bytes(b"....ftypmp42")
    paint(tmp_path / "photos" / "loose.png", (1, 2, 3), 1)
    (tmp_path / "photos" / "z").mkdir()
    answer = maotune("data", "check", tmp_path / "photos")
    assert len(answer.out.splitlines()) <= 24
    for reason in ("kind 0/clip.mp4: a video", "loose.png; class folders hold", "z: holds no picture", "and 24 more"):
        assert reason in answer.out, "one of each kind first"


def test_what_is_left_out_of_a_run_is_in_its_result_and_strict_makes_it_an_error(
    maotune: Maotune, messy: Path, tmp_path: Path
) -> None:
    train = (*TRAIN, "--data", messy, "protocol=few-shot", "epochs=1", "shots=4", "--folder", tmp_path / "runs")
    answer = maotune(*train, "--json")
    assert answer.code == 0, answer.err
    assert "photos: 3 classes (Lady Beetle, c0, ...), 27 images" in " ".join(answer.err.split())
    assert answer.err.count("3 classes (Lady") == 1
    (run,) = answer.json["runs"]
    kinds = {Path(item["name"]).name: item["kind"] for item in run["skipped"]}
    expected = {"photos": "loose", "@eaDir": "in system folders", "hare": "empty folder", "clip.mp4": "video"}
    assert {name: kinds.get(name) for name in expected} == expected
    assert any("two labels" in remark or "are also test images" in remark for remark in run["remarks"])
    strict = maotune(*train, "--strict", "--seed", 2)
    assert strict.code == 1
    assert "left out, and strict is set: 1 empty folder, 1 in system folders, 1 loose, 1 video" in strict.err


def test_pictures_that_are_tuned_on_and_scored_are_in_plan_and_result(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path, train=4)
    for number, image in enumerate(sorted((photos / "test" / "rain").iterdir())):
        with Image.open(image) as picture:
            picture.resize((64, 80)).save(photos / "train" / "rain" / f"again-{number}.png")
        shutil.copy(image, photos / "train" / "rain" / f"copy-{number}.png")
    answer = maotune(*TRAIN, "--data", photos, "protocol=few-shot", "epochs=1", "--folder", tmp_path / "runs", "--json")
    assert answer.code == 0, answer.err
    (run,) = answer.json["runs"]
    assert any(remark.startswith("2 of 20 training images are also test (all) images") for remark in run["remarks"])
    assert "note: 2 of 20 training images are also test (all) images" in answer.err


def test_a_class_without_a_readable_training_image_is_an_error(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    for image in (photos / "train" / "rain").iterdir():
        image.write_bytes(image.read_bytes()[:60])
    answer = maotune(*TRAIN, "--data", photos, "epochs=1", "--folder", tmp_path / "runs")
    assert answer.code == 1
    assert "no training image of the class 'rain' can be read: 3 " in answer.err


def test_a_name_that_is_not_utf8_is_tuned_on_and_predicted(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    first = min((photos / "train" / "rain").iterdir())
    os.rename(first, os.fsencode(first.parent) + b"/caf\xe9.png")
    answer = maotune(*TRAIN, "--data", photos, "epochs=1", "--folder", tmp_path / "runs")
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "runs").iterdir()
    predicted = maotune("predict", run, photos / "train" / "rain")
    assert predicted.code == 0, predicted.err
    assert len(predicted.out.splitlines()) == 3
    assert len(maotune("predict", run, photos / "train" / "rain", "--json").json["images"]) == 3


def test_what_is_left_out_of_a_folder_to_predict_is_told(maotune: Maotune, messy: Path, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    assert maotune(*TRAIN, "--data", photos, "epochs=1", "--folder", tmp_path / "runs").code == 0
    (run,) = (tmp_path / "runs").iterdir()
    answer = maotune("predict", run, messy / "owl", "--json")
    assert answer.code == 0, answer.err
    assert [Path(item["image"]).name for item in answer.json["skipped"]] == ["clip.mp4"]
    assert len(answer.json["images"]) == 10
    strict = maotune("predict", run, messy / "owl", "--strict")
    assert strict.code == 1
    assert "1 video" in strict.err
    same = maotune("predict", run, messy / "owl", "--classes", "rain,Rain")
    assert same.code == 1
    assert "'rain' and 'Rain' are the same text" in same.err
