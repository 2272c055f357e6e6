"""Data sets on disk: what is understood, and what the errors say."""

import json
import logging
import random
from collections import Counter
from pathlib import Path

import pytest

from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.readers import read_class_names, read_folder, read_split_json, read_table, read_unlabelled


def touch(folder: Path, *names: str) -> Path:
    """Empty files: readers do not look inside. Made in a random order, which must not matter."""
    for name in random.sample(names, len(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def numbered(folder: str, count: int, suffix: str = "jpg") -> list[str]:
    return [f"{folder}/{number}.{suffix}" for number in range(count)]


def labelled(dataset: Dataset, split: str, folder: Path) -> list[tuple[str, str]]:
    samples: tuple[Sample, ...] = getattr(dataset, split)
    return [(Path(s.image.name).relative_to(folder).as_posix(), dataset.classes[s.label]) for s in samples]


def test_folders_of_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/2.JPG", "train/dog/10.png", "train/cat/a/deep.webp", "valid/cat/1.tif", "test/dog/1.gif")
    touch(
        tmp_path, "unlabeled/x.bmp", "unlabeled/more/y.jpeg", "train/.hidden/1.jpg", "train/dog/._2.jpg", ".git/1.jpg"
    )
    dataset = read_folder(tmp_path)
    assert dataset.name == tmp_path.name
    assert dataset.classes == ("cat", "dog")
    assert labelled(dataset, "train", tmp_path) == [
        ("train/cat/a/deep.webp", "cat"),
        ("train/dog/10.png", "dog"),
        ("train/dog/2.JPG", "dog"),
    ]
    assert labelled(dataset, "val", tmp_path) == [("valid/cat/1.tif", "cat")]
    assert labelled(dataset, "test", tmp_path) == [("test/dog/1.gif", "dog")]
    assert [Path(s.image.name).name for s in dataset.unlabelled] == ["y.jpeg", "x.bmp"]
    assert {s.label for s in dataset.unlabelled} == {-1}


def test_skipped_files_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(
        tmp_path, "train/cat/1.jpg", "train/cat/notes.txt", "train/cat/photo.heic", "extra/1.jpg", "train/cat/Thumbs.db"
    )
    with caplog.at_level(logging.WARNING):
        read_folder(tmp_path)
    assert "extra is none of train, val, test, unlabelled: skipped" in caplog.text
    assert "skipped 2 files that are no images by their names: train/cat/notes.txt, train/cat/photo.heic" in caplog.text


def test_class_folders_alone_are_split_by_name_and_each_class_alike(tmp_path: Path) -> None:
    touch(tmp_path, *numbered("cat", 20), *numbered("dog", 7), *numbered("owl", 1), "unlabelled/1.jpg")
    dataset = read_folder(tmp_path)
    counts = {split: Counter(s.label for s in getattr(dataset, split)) for split in ("train", "val", "test")}
    assert counts == {"train": {0: 10, 1: 4, 2: 1}, "val": {0: 4, 1: 1}, "test": {0: 6, 1: 2}}
    every = [s.image for split in ("train", "val", "test") for s in getattr(dataset, split)]
    assert len(set(every)) == len(every) == 28
    assert len(dataset.unlabelled) == 1
    numbers = sorted(int(Path(s.image.name).stem) for s in dataset.train if s.label == 0)
    assert numbers not in (list(range(10)), list(range(10, 20)))
    assert len(read_folder(tmp_path, fractions=(1, 0)).train) == 28
    with pytest.raises(ValueError, match="fractions"):
        read_folder(tmp_path, fractions=(0.9, 0.2))


def test_the_split_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    parts = [read_folder(touch(tmp_path / place, *numbered("cat", 9), *numbered("dog", 9))) for place in ("a", "b/c")]
    names = [[Path(s.image.name).name for s in part.train] for part in parts]
    assert names[0] == names[1]


def test_images_alone_are_unlabelled(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.png")
    dataset = read_folder(tmp_path)
    assert (dataset.classes, dataset.train) == ((), ())
    assert [Path(s.image.name).name for s in dataset.unlabelled] == ["a.png", "b.jpg"]
    assert read_unlabelled(tmp_path) == dataset.unlabelled


def test_a_class_names_file_orders_and_renames(tmp_path: Path) -> None:
    touch(tmp_path / "data", "train/n01/1.jpg", "train/n02/1.jpg")
    names = tmp_path / "names.txt"
    names.write_text("﻿n02\tgreat white shark\n\nn01\tgoldfish \n", encoding="utf-8")
    dataset = read_folder(tmp_path / "data", names)
    assert dataset.classes == ("great white shark", "goldfish")
    assert [s.label for s in dataset.train] == [1, 0]
    (tmp_path / "data/classes.tsv").write_text("n01\nn02\n")
    assert read_folder(tmp_path / "data").classes == ("n01", "n02")
    assert read_folder(tmp_path / "data", names).classes == ("great white shark", "goldfish")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ncat\n", r"line 2: 'cat' stands there twice"),
        (b"a\tcat\nb\tcat\n", r"line 2: 'cat' names two classes"),
        (b"\tcat\n", r"line 1: a display name without a name"),
        (b"\n \n", "holds no class names"),
        (b"caf\xe9\n", "is not UTF-8 text"),
    ],
)
def test_class_names_that_cannot_be(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / "names.txt")


def test_class_names_must_match_the_folders(tmp_path: Path) -> None:
    touch(tmp_path / "data", "train/cat/1.jpg", "train/dog/1.jpg", "train/owl/1.jpg")
    names = tmp_path / "names.txt"
    names.write_text("cat\n")
    with pytest.raises(ValueError, match=r"does not list the folder 'dog' \(and 1 more\)"):
        read_folder(tmp_path / "data", names)
    names.write_text("cat\nyak\ndog\nowl\n")
    dataset = read_folder(tmp_path / "data", names)
    assert dataset.classes == ("cat", "yak", "dog", "owl"), "a name without images is a class to recognise"
    assert {sample.label for sample in dataset.train} == {0, 2, 3}


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        read_folder(touch(tmp_path, "train/cat/notes.txt"))
    with pytest.raises(ValueError, match="holds no images"):
        read_unlabelled(tmp_path)
    for read in (read_folder, read_unlabelled):
        with pytest.raises(NotADirectoryError, match=r"gone is (not|neither) a folder"):
            read(tmp_path / "gone")


TABLE = [
    ("a.jpg", "cat", "train"),
    ("b.jpg", "dog, small", "val"),
    ("c.jpg", "cat", "test"),
    ("d.jpg", "", ""),
    ("e.jpg", "cat", "unlabelled"),
]


def write_table(path: Path) -> Path:
    if path.suffix == ".jsonl":
        rows = [json.dumps({"path": image, "label": label, "split": split}) for image, label, split in TABLE]
        path.write_text("\n\n".join(rows))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        quoted = [(image, f'"{label}"', split) for image, label, split in TABLE]
        path.write_text("\n".join(separator.join(row) for row in [("Path", "label", " split"), *quoted]))
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "images", "a.jpg", "b.jpg")
    dataset = read_table(write_table(tmp_path / f"pets.{suffix}"), tmp_path / "images")
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog, small")
    images = tmp_path / "images"
    assert labelled(dataset, "train", images) == [("a.jpg", "cat")]
    assert labelled(dataset, "val", images) == [("b.jpg", "dog, small")]
    assert labelled(dataset, "test", images) == [("c.jpg", "cat")]
    assert [Path(s.image.name).name for s in dataset.unlabelled] == ["d.jpg", "e.jpg"]


def test_a_table_without_splits_is_split_and_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(60)]
    touch(tmp_path, *names)
    lines = [f"{name},{number % 12}" for number, name in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    dataset = read_table(tmp_path / "table.csv")
    assert dataset.classes == tuple(str(number) for number in range(12))
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [24, 12, 24]
    (tmp_path / "names.txt").write_text("".join(f"{number}\tthing {number}\n" for number in reversed(range(12))))
    assert read_table(tmp_path / "table.csv", classes=tmp_path / "names.txt").classes[0] == "thing 11"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no label and path in the first line"),
        ("a.csv", "path,class\na.jpg,cat", "no label in the first line"),
        ("a.csv", "path,label\n", "lists no images"),
        ("a.csv", "path,label\n,cat", "line 2: no path"),
        ("a.csv", "path,label\na.jpg,cat,tabby", "line 2: more cells than columns"),
        ("a.csv", "path,label\na.jpg,cat\na.jpg,dog", "line 3: a.jpg stands in line 2 already"),
        ("a.csv", "path,label,split\na.jpg,cat,tests", "line 2: split 'tests' is unknown; there are train, val"),
        ("a.csv", "path,label,split\na.jpg,cat,train\nb.jpg,cat,", "1 labelled lines lack a split"),
        ("a.csv", "path,label\nnowhere.jpg,cat", "none of the 1 images of .*a.csv exists under"),
        ("a.jsonl", '{"path": "a.jpg", "label": "cat"}\n{', "line 2 is not JSON"),
        ("a.jsonl", "[1]", "line 1: expected an object like"),
        ("a.jsonl", '{"label": "cat"}', "line 1: no path"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, name: str, content: str, message: str) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / name)


def test_a_split_file_keeps_its_order(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.jpg", "images/a.jpg", "images/c.jpg", "other/x.txt")
    content = {"train": [["b.jpg", 7, "dog"], ["a.jpg", 3, "cat"]], "val": [], "test": [["c.jpg", 7, "dog"]]}
    (tmp_path / "split_zhou_Pets.json").write_text(json.dumps(content))
    dataset = read_split_json(tmp_path / "split_zhou_Pets.json")
    assert (dataset.name, dataset.classes, dataset.val) == ("Pets", ("cat", "dog"), ())
    assert labelled(dataset, "train", tmp_path / "images") == [("b.jpg", "dog"), ("a.jpg", "cat")]
    assert labelled(dataset, "test", tmp_path / "images") == [("c.jpg", "dog")]
    assert read_split_json(tmp_path / "split_zhou_Pets.json", tmp_path / "images") == dataset


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected .*train"),
        ('{"train": [], "dev": []}', "expected .*train"),
        ('{"train": []}', "lists no images"),
        ('{"train": [["a.jpg", "cat"]]}', r"train\[0\]: expected \[path, label, class name\], got \['a.jpg', 'cat'\]"),
        ('{"train": {"a": 1}}', r"train\[0\]: expected"),
        ('{"train": [["a.jpg", 0, "cat"], ["b.jpg", 0, "dog"]]}', "label 0 is 'dog' at .*b.jpg, but 'cat' before"),
        ('{"train": [["nowhere.jpg", 0, "cat"]]}', "none of the 1 images"),
    ],
)
def test_split_files_that_cannot_be(tmp_path: Path, content: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_split_json(tmp_path / "split.json")
