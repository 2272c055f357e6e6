"""``maotune data``, and the commands of docs/datasets.md, run."""

import io
import re
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
from tests.toys import COLOURS, paint

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


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
        quick = ["epochs=2", "data.shots=2"] if command[0] == "train" else []
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
