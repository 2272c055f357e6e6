"""Folders as people have them: layouts that are read in the right way, refused, or left out with their kind."""

import os
import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from maotune.data.images.formats import SUFFIXES
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.folders import read_folder, read_unlabelled
from tests.data.sets.test_folders import HEIC, left_out

SPLITS = ("train", "val", "test", "unlabelled")


def put(root: Path, *names: str) -> Path:
    """Small pictures, each another; the ending says the format, and none is PNG."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.frombytes("RGB", (12, 12), random.Random(name).randbytes(432))
        noise.save(path, None if path.suffix.lower() in SUFFIXES else "PNG")
    return root


def per_class(folder: str, *classes: str, count: int = 4) -> list[str]:
    return [f"{folder}/{name}/{number}.png" for name in classes for number in range(count)]


def sizes(dataset: Dataset) -> dict[str, int]:
    return {split: len(getattr(dataset, split)) for split in SPLITS if getattr(dataset, split)}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VALID", "TEST"),
        ("train_set", "dev_set", "test_set"),
        ("training_data", "eval", "test_data"),
        ("trainset", "valset", "testset"),
        ("train_images", "evaluation", "Test-Images"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_usual_names_of_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    put(tmp_path, *per_class(train, "owl", "fox"), *per_class(val, "owl", "fox", count=1))
    put(tmp_path, *per_class(test, "owl", "fox", count=2))
    dataset = read_folder(tmp_path)
    assert dataset.classes == ("fox", "owl")
    assert sizes(dataset) == {"train": 8, "val": 2, "test": 4}
    assert dataset.skipped == ()


@pytest.mark.parametrize("wrapper", ["photos", "dataset/images", "data/data", "x.jpg"])
@pytest.mark.parametrize("inside", ["", "train/", "train/train/"])
def test_folders_around_the_data_set_are_opened(tmp_path: Path, wrapper: str, inside: str) -> None:
    put(tmp_path, *per_class(f"{wrapper}/{inside}".rstrip("/"), "owl", "fox"))
    assert read_folder(tmp_path).classes == ("fox", "owl")
    (tmp_path / wrapper / "classes.tsv").write_text("owl\tan owl\nfox\tred fox\n")
    assert read_folder(tmp_path).classes == ("an owl", "red fox")


def test_the_draw_does_not_depend_on_a_folder_around(tmp_path: Path) -> None:
    put(tmp_path, *per_class("a/b", "owl", "fox", count=9))
    outer, inner = read_folder(tmp_path), read_folder(tmp_path / "a" / "b")
    assert outer.train == inner.train


def test_a_vehicle_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    put(tmp_path, *per_class(".", "train", "bus", "test tube"))
    assert read_folder(tmp_path).classes == ("bus", "test tube", "train")
    deep = put(tmp_path / "deep", "train/steam/1.png", "train/diesel/1.png", "bus/1.png", "bus/2.png")
    (deep / "classes.tsv").write_text("train\nbus\n")
    assert read_folder(deep).classes == ("train", "bus")


@pytest.mark.parametrize(
    "domains", [("amazon/images", "dslr/images"), ("fold1", "fold2"), ("seg_train/seg_train", "b")]
)
def test_folders_of_the_same_classes_are_refused(tmp_path: Path, domains: tuple[str, str]) -> None:
    for domain in domains:
        put(tmp_path, *per_class(domain, "owl", "fox", "Hare" if domain == "b" else "hare"))
    with pytest.raises(ValueError, match=r"hold folders of the same names \(fox, hare, owl\)") as refused:
        read_folder(tmp_path)
    assert "name them train, val or test" in str(refused.value)
    first = domains[0].partition("/")[0]
    assert read_folder(tmp_path / first).classes == ("fox", "hare", "owl")
    (tmp_path / "classes.tsv").write_text("".join(domain.partition("/")[0] + "\n" for domain in domains))
    assert len(read_folder(tmp_path).classes) == 2, "the list of classes says which folders they are"


def test_a_class_that_holds_its_splits_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "owl/train/1.png", "owl/test/2.png", "fox/Train/3.png")
    with pytest.raises(ValueError, match="owl is a class that holds its splits: put the splits outside"):
        read_folder(tmp_path)


@pytest.mark.parametrize("nested", ["val", "test", "backup"])
def test_class_folders_among_their_neighbours_are_refused(tmp_path: Path, nested: str) -> None:
    put(tmp_path, *per_class(".", "owl", "fox"), *per_class(nested, "Owl", "fox"))
    with pytest.raises(ValueError, match=rf"{nested} holds folders of the same names \(fox, owl\) as its neighbours"):
        read_folder(tmp_path)


def test_class_folders_may_hold_one_folder_of_the_same_name(tmp_path: Path) -> None:
    put(tmp_path, *per_class("owl", "images"), *per_class("fox", "images"))
    assert read_folder(tmp_path).classes == ("fox", "owl")


def test_loose_pictures_empty_classes_and_flat_splits_are_left_out_and_counted(tmp_path: Path) -> None:
    put(tmp_path, *per_class(".", "owl", "fox"), "1.png", "2.jpg")
    (tmp_path / "hare").mkdir()
    dataset = read_folder(tmp_path)
    assert dataset.classes == ("fox", "owl")
    assert left_out(dataset) == {str(tmp_path): "loose", "hare": "empty folder"}
    assert [item.pictures for item in dataset.skipped if item.kind == "loose"] == [2]
    flat = put(tmp_path / "flat", *per_class("train", "owl", "fox"), "test/1.png", "test/2.png", "test/3.png")
    dataset = read_folder(flat)
    assert sizes(dataset) == {"train": 8}
    (item,) = dataset.skipped
    assert (item.kind, item.pictures) == ("loose", 3)
    assert f"--unlabelled {flat / 'test'}" in item.reason


def test_pictures_in_splits_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test and .*train have no labels: put each into the folder of its class"):
        read_folder(put(tmp_path, "train/cat.0.jpg", "train/dog.1.jpg", "test/1.jpg"))


def test_flat_validation_images_of_imagenet(tmp_path: Path) -> None:
    put(tmp_path, *per_class("train", "n01440764", "n01443537"), "val/ILSVRC2012_val_00000001.JPEG")
    (item,) = read_folder(tmp_path).skipped
    assert "1 pictures lie in it and in no class folder, such as ILSVRC2012_val_00000001.JPEG" in item.reason
    assert "maotune data prepare imagenet" in item.reason


def test_two_spellings_of_a_class_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/sun/1.png", "train/rain/2.png", "test/Sun/3.png", "test/rain/4.png")
    with pytest.raises(ValueError, match=r"'Sun' and 'sun' are the same text"):
        read_folder(tmp_path)
    (tmp_path / "classes.tsv").write_text("sun\nSun\tmidday sun\nrain\n")
    assert read_folder(tmp_path).classes == ("sun", "midday sun", "rain")


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(tmp_path, f"train/{composed}/1.png", "train/bar/2.png", f"test/{decomposed}/3.png")
    assert read_folder(tmp_path).classes == ("bar", composed)
    (tmp_path / "names.txt").write_text(f"bar\n{decomposed}\tcoffee house\n", encoding="utf-8")
    assert read_folder(tmp_path, tmp_path / "names.txt").classes == ("bar", "coffee house")


@pytest.mark.parametrize("name", ["1", "1.jpg.1", "1.jpeg_large", "IMG.orig", "a.b c", "photo.jpg?raw=1"])
def test_a_picture_needs_no_ending(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"owl/{name}", f"owl/{name}x", "fox/1.png")
    dataset = read_folder(tmp_path)
    assert len(dataset.train + dataset.val + dataset.test) == 3
    assert dataset.skipped == ()


@pytest.mark.parametrize("name", ["1.jfif", "1.jpe", "1.JPG", "1.Tiff", "1.ppm", "1.jp2", "1.tga", "1.ico", "1.dib"])
def test_every_ending_that_can_be_read(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"owl/{name}", "fox/1.png")
    assert read_folder(tmp_path).classes == ("fox", "owl")
    assert read_folder(tmp_path).skipped == ()


@pytest.mark.skipif(".heic" in SUFFIXES, reason="pillow-heif is installed")
@pytest.mark.parametrize("name", ["1.heic", "1.HEIF", "1", "1.orig"])
def test_a_class_of_pictures_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    put(tmp_path, "owl/1.png", "fox/1.png", "hare/1.png")
    (tmp_path / "hare" / name).write_bytes(HEIC)
    dataset = read_folder(tmp_path)
    assert left_out(dataset) == {f"hare/{name}": "format not supported"}
    assert 'pip install "maotune[heif]"' in dataset.skipped[0].reason
    (tmp_path / "hare" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"hare holds no picture that can be read: 1 format not supported"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "helps"),
    [
        ("1.CR2", "format not supported", "export it as JPEG"),
        ("1.svg", "format not supported", "export it as JPEG"),
        ("1.mp4", "video", "extract its frames"),
        ("1.zip", "archive", "unpack it"),
        ("1.tar", "archive", "--unlabelled"),
        ("1", "not a picture", "no picture"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, name: str, kind: str, helps: str) -> None:
    put(tmp_path, "owl/1.png", "fox/1.png")
    (tmp_path / "fox" / name).write_bytes(b"II*\0 and more" if name == "1.CR2" else b"something")
    (item,) = read_folder(tmp_path).skipped
    assert item.kind == kind
    assert helps in item.reason


def test_pipes_and_links_to_nothing_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path, "owl/1.png", "fox/1.png")
    os.mkfifo(tmp_path / "owl" / "pipe")
    (tmp_path / "owl" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "owl" / "itself").symlink_to("itself")
    kinds = left_out(read_folder(tmp_path))
    assert kinds == {"owl/gone": "no access", "owl/itself": "no access", "owl/pipe": "not a picture"}


SYSTEM = [
    *("@eaDir/1.png/SYNOFILE_THUMB_M.jpg", "#recycle/old.png", "$RECYCLE.BIN/a.png", ".Trash-1000/files/a.png"),
    *(".thumbnails/1.png", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/b.png", ".git/a.png", "@Recycle/a.png"),
    *("System Volume Information/a.png", "lost+found/a.png", ".@__thumb/default1.png", "Previews.lrdata/a.png"),
]


@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_storage_systems_hold_no_images_of_the_set(tmp_path: Path, name: str) -> None:
    put(tmp_path, *per_class(".", "owl", "fox"))
    clean = read_folder(tmp_path)
    put(tmp_path, name, f"owl/{name}")
    dataset = read_folder(tmp_path)
    assert (dataset.classes, dataset.train, dataset.test) == (clean.classes, clean.train, clean.test)
    folder = name.partition("/")[0]
    assert left_out(dataset) == {folder: "in system folders", f"owl/{folder}": "in system folders"}
    assert [item.pictures for item in dataset.skipped] == [1, 1]
    assert [*left_out(read_unlabelled(tmp_path)).values()] == ["in system folders"] * 2


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "._1.png", "__MACOSX/._1.png", ".git/HEAD"])
def test_files_of_systems_are_nothing_to_tell(tmp_path: Path, name: str) -> None:
    put(tmp_path, "owl/1.png", "fox/1.png")
    (tmp_path / "owl" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "owl" / name).write_bytes(b"\0\5\x16\7")
    assert read_folder(tmp_path).skipped == ()


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "summer/1.png", "summer/2.png")
    put(tmp_path / "photos", "owl/1.png", "fox/1.png")
    (tmp_path / "photos/owl/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos/hare").symlink_to(tmp_path / "elsewhere/summer")
    (tmp_path / "photos/a-fox").symlink_to("fox")
    (tmp_path / "photos/all").symlink_to("..")
    (tmp_path / "photos/owl/here").symlink_to(".")
    dataset = read_folder(tmp_path / "photos")
    images = [*dataset.train, *dataset.val, *dataset.test]
    assert sorted(os.path.relpath(sample.image.name, tmp_path / "photos") for sample in images) == [
        "fox/1.png",
        "owl/1.png",
        "owl/more/summer/1.png",
        "owl/more/summer/2.png",
    ]
    assert left_out(dataset) == {"a-fox": "link", "all": "link", "hare": "link", "owl/here": "link"}
    pool = read_unlabelled(tmp_path / "photos")
    assert len(pool.unlabelled) == 4


def test_splits_made_of_links(tmp_path: Path) -> None:
    put(tmp_path / "all", *per_class(".", "owl", "fox", count=3))
    for split, classes in {"train": ("owl", "fox"), "test": ("owl",)}.items():
        (tmp_path / "photos" / split).mkdir(parents=True)
        for name in classes if split == "train" else ():
            (tmp_path / "photos" / split / name).symlink_to(tmp_path / "all" / name)
    shutil.copytree(tmp_path / "all" / "owl", tmp_path / "photos" / "test" / "owl")
    assert sizes(read_folder(tmp_path / "photos")) == {"train": 6, "test": 3}


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    put(tmp_path, *per_class(".", "owl", "fox"))
    bad = os.fsencode(tmp_path / "owl") + b"/caf\xe9.png"
    os.rename(tmp_path / "owl" / "0.png", bad)
    dataset = read_folder(tmp_path)
    assert len(dataset.train + dataset.val + dataset.test) == 8
    os.rename(tmp_path / "fox", os.fsencode(tmp_path) + b"/ren\xe9")
    with pytest.raises(ValueError, match=r"the folder 'ren\\udce9' is not UTF-8, so it names no class: rename it"):
        read_folder(tmp_path)


@pytest.mark.parametrize("table", ["metadata.csv", "train/metadata.csv", "metadata.jsonl"])
def test_a_table_beside_pictures_gives_their_labels(tmp_path: Path, table: str) -> None:
    put(tmp_path, "train/1.png", "train/2.png", "train/3.png", "test/4.png", "train/5.png")
    names = ["1.png", "2.png", "3.png"] if "/" in table else ["train/1.png", "train/2.png", "train/3.png", "test/4.png"]
    rows = list(zip(names, ["owl", "fox", "owl", "fox"], strict=False))
    if table.endswith("csv"):
        text = "\n".join(["file_name,label", *(f"{name},{label}" for name, label in rows)])
    else:
        text = "\n".join(f'{{"file_name": "{name}", "label": "{label}"}}' for name, label in rows)
    (tmp_path / table).write_text(text)
    dataset = read_folder(tmp_path)
    assert dataset.classes == ("fox", "owl")
    assert sizes(dataset) == ({"train": 3} if "/" in table else {"train": 3, "test": 1})
    (item,) = dataset.skipped
    assert (item.kind, item.pictures) == ("not in the table", 2 if "/" in table else 1)


@pytest.mark.parametrize("images", ["", "images/"])
def test_the_only_table_of_a_folder_without_classes_gives_the_labels(tmp_path: Path, images: str) -> None:
    put(tmp_path, f"{images}1.png", f"{images}2.png")
    (tmp_path / "labels.csv").write_text(f"filename;class\n{images}1.png;owl\n{images}2.png;fox\n")
    assert read_folder(tmp_path).classes == ("fox", "owl")
    put(tmp_path, *per_class(".", "owl", "fox"))
    assert left_out(read_folder(tmp_path))["labels.csv"] == "not a picture"


def test_a_table_of_captions_is_not_one_of_labels(tmp_path: Path) -> None:
    put(tmp_path, *per_class("train", "owl", "fox"))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\nowl/0.png,an owl in a tree\n")
    assert read_folder(tmp_path).classes == ("fox", "owl")


def test_names_are_written_as_words_unless_told_otherwise(tmp_path: Path) -> None:
    put(tmp_path, *per_class(".", "009.LadyBeetle", "010.snow_owl"))
    dataset = read_folder(tmp_path)
    assert dataset.classes == ("Lady Beetle", "snow_owl")
    assert dataset.renamed == (("009.LadyBeetle", "Lady Beetle"), ("010.snow_owl", "snow_owl"))
    assert read_folder(tmp_path, as_words=False).classes == ("009.LadyBeetle", "010.snow_owl")
    (tmp_path / "classes.tsv").write_text("009.LadyBeetle\n010.snow_owl\towl\n")
    assert read_folder(tmp_path).classes == ("009.LadyBeetle", "owl"), "a file of names is taken as it is"
