"""Data sets by name or path."""

from pathlib import Path

import pytest

from maotune.data.sets.catalog import load_dataset, names
from maotune.data.sets.named import named_sets
from tests.data.sets.test_folders import labelled, touch
from tests.data.sets.test_tables import write_table


def test_every_name_is_listed_once() -> None:
    assert len(set(names())) == len(names())
    assert set(named_sets()) <= set(names())


def test_shipped_data_sets() -> None:
    dataset = load_dataset("icons-animals")
    assert dataset.name == "icons-animals"
    assert min(len(dataset.train), len(dataset.val), len(dataset.test)) >= len(dataset.classes)


def test_paths(tmp_path: Path) -> None:
    touch(tmp_path / "folder", "train/cat/1.jpg", "a.jpg")
    assert load_dataset(tmp_path / "folder").classes == ("cat",)
    assert load_dataset(str(write_table(tmp_path / "t.csv")), root=tmp_path / "folder").name == "t"
    (tmp_path / "s.json").write_text('{"train": [["folder/a.jpg", 0, "cat"]]}')
    assert load_dataset(tmp_path / "s.json").name == "s"


def test_errors_name_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'oxfordpets' is neither .* did you mean oxford-pets"):
        load_dataset("oxfordpets")
    with pytest.raises(ValueError, match=r"'icons-animal' is neither .* did you mean icons-animals"):
        load_dataset("icons-animal")
    with pytest.raises(ValueError, match=r"'zzz' is neither a data set nor a path; give one of icons-"):
        load_dataset("zzz")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"a.txt is no data set"):
        load_dataset("a.txt")
    (tmp_path / "s.json").write_text('{"train": [["a.txt", 0, "cat"]]}')
    for source in ("s.json", "dtd", names()[0]):
        with pytest.raises(ValueError, match="has class names of its own"):
            load_dataset(source, classes=tmp_path / "a.txt")


def test_data_sets_that_are_not_shipped_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtd is not shipped: give the folder that holds dtd as root"):
        load_dataset("dtd")
    with pytest.raises(ValueError, match=r"oxford-pets belongs in .*oxford_pets, but there is no such folder"):
        load_dataset("oxford-pets", tmp_path)
    (tmp_path / "oxford_pets").mkdir()
    with pytest.raises(ValueError, match=r"annotations/trainval.txt is missing \(or split_zhou_OxfordPets.json"):
        load_dataset("oxford-pets", tmp_path)
    for name, missing in (("dtd", "dtd/images"), ("flowers102", "imagelabels.mat"), ("imagenet", "classnames.txt")):
        (tmp_path / named_sets()[name].folder).mkdir()
        with pytest.raises(ValueError, match=f"{name}: .*{missing} is missing"):
            load_dataset(name, tmp_path)


def test_a_bad_line_in_the_annotations_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "fgvc_aircraft"
    folder.mkdir()
    (folder / "variants.txt").write_text("A318\n")
    (folder / "images_variant_train.txt").write_text("0001 A318\n0002 A320\n")
    with pytest.raises(ValueError, match=r"images_variant_train.txt, line 2 cannot be understood: '0002 A320'"):
        load_dataset("fgvc-aircraft", tmp_path)


SYNSETS = "n3 yak\nn1 cat\nn2 dog\n"


def test_variants_of_imagenet_have_a_test_split_only(tmp_path: Path) -> None:
    for name, images, listed in (
        ("imagenet-sketch", "images", [("n1/a.jpg", "cat"), ("n3/b.jpg", "yak")]),
        ("imagenet-a", "imagenet-a", [("n1/a.jpg", "cat"), ("n3/b.jpg", "yak")]),
        ("imagenet-r", "imagenet-r", [("n1/a.jpg", "cat"), ("n3/b.jpg", "yak")]),
    ):
        folder = tmp_path / named_sets()[name].folder
        touch(folder / images, "n3/b.jpg", "n1/a.jpg", "README.txt")
        (folder / "classnames.txt").write_text(SYNSETS)
        dataset = load_dataset(name, tmp_path)
        assert labelled(dataset, "test", folder / images) == listed
        assert (dataset.train, dataset.val) == ((), ())
        assert dataset.classes == ("cat", "yak")
    touch(folder / images, "n9/a.jpg")
    with pytest.raises(ValueError, match=r"classnames.txt has no name for .*n9"):
        load_dataset("imagenet-r", tmp_path)


def test_imagenet_v2_counts_its_folders_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "imagenetv2"
    images = folder / "imagenetv2-matched-frequency-format-val"
    touch(images, "0/a.jpg", "2/b.jpg", "1/c.jpg")
    (folder / "classnames.txt").write_text(SYNSETS)
    dataset = load_dataset("imagenetv2", tmp_path)
    assert labelled(dataset, "test", images) == [("0/a.jpg", "yak"), ("1/c.jpg", "cat"), ("2/b.jpg", "dog")]
    touch(images, "3/d.jpg")
    with pytest.raises(ValueError, match="3 names"):
        load_dataset("imagenetv2", tmp_path)
