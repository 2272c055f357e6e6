"""Class names and images as people give them work, or are refused in words."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from maotune.runs.given import class_names_of, samples_of


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "names.txt").write_text("owl\nn012\tred fox\n")
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (6, 4), (200, 30, 10)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("names.txt", ("owl", "red fox")),
        (Path("names.txt"), ("owl", "red fox")),
        ("owl, red fox,", ("owl", "red fox")),
        ("F/A-18,node.js", ("F/A-18", "node.js")),
        (["owl"], ("owl",)),
        (("a.txt", "b"), ("a.txt", "b")),
        (",".join(f"class {number}" for number in range(200)), tuple(f"class {number}" for number in range(200))),
    ],
)
def test_class_names(place: Path, given: Any, names: tuple[str, ...]) -> None:
    assert class_names_of(given) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nmaes.txt", r"'nmaes\.txt' is not a file of class names; did you mean names\.txt\?"),
        ("owl,nmaes.txt", r"'nmaes\.txt' is not a file"),
        ("names", r"'names' is not a file of class names; did you mean names\.txt"),
        ("./names", "'names' is not a file"),
        (Path("owl,cat"), "'owl,cat' is not a file"),
        (".", "is not a file"),
        ("", "the class names are empty"),
        ("  ", "the class names are empty"),
        ("x" * 5000, "is not a file"),
        ("folder", "'folder' is not a file of class names: give"),
        ("jay", "is not a file of class names"),
    ],
)
def test_what_is_no_list_of_class_names(place: Path, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_names_of(given)


def test_pictures_in_memory_are_those_of_their_file(place: Path) -> None:
    pixels = np.asarray(Image.open("a.png"))
    content = (place / "a.png").read_bytes()
    given: list[Any] = ["a.png", Image.open("a.png"), pixels, content, bytearray(content), memoryview(content)]
    opened = io.BytesIO(content)
    opened.name = "a.png"
    given += [io.BytesIO(content), opened, np.str_("a.png")]
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    given += [channels_first, channels_first / 255, torch.from_numpy(pixels.copy())]
    samples, left_out = samples_of(given)
    assert not left_out
    assert [sample.image.name for sample in samples[:6]] == ["a.png", *(f"image {number}" for number in range(1, 6))]
    assert [sample.image.name for sample in samples[7:9]] == ["a.png", "a.png"]
    for sample in samples:
        np.testing.assert_array_equal(np.asarray(sample.image.read()), pixels)
    assert samples[3].image.digest() == samples[0].image.digest()
    for one in given[1:4]:
        (sample,) = samples_of(one)[0]
        np.testing.assert_array_equal(np.asarray(sample.image.read()), pixels)
    assert len(samples_of(np.stack([pixels] * 3))[0]) == 3
    for grey in (pixels[..., 0], pixels[..., :1]):
        (sample,) = samples_of(grey)[0]
        assert sample.image.read().getpixel((0, 0)) == (200, 200, 200)
    assert len(samples_of("*.png")[0]) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            np.zeros((4, 6, 3)),
            r"image 0 is an array of float64 and shape \(4, 6, 3\): give \(height, width",
        ),
        (np.zeros((3, 4, 6), np.uint8), r"shape \(3, 4, 6\).*array\.transpose\(1, 2, 0\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        ([np.zeros((4, 6, 3), np.uint16)], "array of uint16"),
        (7, "what was given is a int: give paths, Pillow images, NumPy arrays"),
        ([None], "image 0 is a NoneType: give paths"),
        ({"bytes": b"..."}, "what was given is a dict: give paths"),
        ([], "no image was given"),
        ("", "the path of an image is empty"),
        (["a.png", " "], "the path of an image is empty"),
    ],
)
def test_what_is_no_image(place: Path, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples_of(given)


def test_the_folder_of_a_second_run_is_no_image(place: Path) -> None:
    (place / "runs" / "b").mkdir(parents=True)
    (place / "runs" / "b" / "prompts.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"runs.b is the folder of a run, not of images: .* name one of them"):
        samples_of([Path("runs/b"), "a.png"])


def test_tables_stand_for_the_paths_in_them(place: Path) -> None:
    Image.new("RGB", (6, 4)).save(place / "b.png")
    (place / "list.csv").write_text("File_Name;note\na.png;x\nb.png;\n")
    (place / "only.csv").write_text("path\na.png\nb.png\n")
    (place / "lines.jsonl").write_text('{"image": "a.png"}\n{"image": "b.png"}\n')
    frame = pd.DataFrame({"Image": ["a.png", "b.png"], "more": [1, None]})
    for given in ("list.csv", Path("only.csv"), ["lines.jsonl"], frame, frame["Image"]):
        samples, _ = samples_of(given)
        assert [Path(sample.image.name).name for sample in samples] == ["a.png", "b.png"], given
    (place / "none.csv").write_text("picture\na.png\n")
    for wrong in ("none.csv", pd.DataFrame({"picture": ["a.png"]})):
        with pytest.raises(ValueError, match="path"):
            samples_of(wrong)


@pytest.mark.parametrize("address", ["https://x.org/a.png", "http://x.org/a", "s3://bucket/a.png", "file:///a.png"])
def test_addresses_are_refused(place: Path, address: str) -> None:
    for given in (address, Path(address), ["a.png", address]):
        with pytest.raises(ValueError, match="is an address: nothing is fetched from there"):
            samples_of(given)


def test_arrays_and_files_that_are_no_pictures_are_refused(place: Path) -> None:
    normalised = torch.full((3, 4, 6), -1.5)
    with pytest.raises(ValueError, match=r"values from -1\.50 to -1\.50: give fractions from 0 to 1, or uint8"):
        samples_of(normalised)
    with pytest.raises(ValueError, match="opened as text: open it with mode 'rb'"):
        samples_of(io.StringIO("text"))
    several, _ = samples_of(torch.zeros(2, 3, 4, 6, dtype=torch.uint8))
    assert [sample.image.read().size for sample in several] == [(6, 4), (6, 4)]
