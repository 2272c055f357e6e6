"""Data sets on disk: what is understood, and what the errors say."""

import random
from collections import Counter
from pathlib import Path

import pytest

from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.folders import read_folder, read_unlabelled


def touch(folder: Path, *names: str) -> Path:
    """Empty files: readers do not look inside. Made in a random order, which must not matter."""
    for name in random.sample(names, len(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def numbered(folder: str, count: int, suffix: str = "jpg") -> list[str]:
    return [f"{folder}/{number}.{suffix}" for number in range(count)]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)


def left_out(dataset: Dataset) -> dict[str, str]:
    """Kind by name, without the folder of the data set."""
    return {item.name.rpartition(f"{dataset.name}/")[2]: item.kind for item in dataset.skipped}


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


def test_what_is_left_out_is_listed_with_its_kind(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "extra/1.jpg", "train/cat/Thumbs.db")
    (tmp_path / "train/cat/notes.txt").write_text("blurred: 7")
    (tmp_path / "train/cat/photo.heic").write_bytes(HEIC)
    assert left_out(read_folder(tmp_path)) == {
        "train/cat/notes.txt": "document",
        "train/cat/photo.heic": "format not supported",
        "extra": "in no split",
    }


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
    assert read_unlabelled(tmp_path).unlabelled == dataset.unlabelled


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
