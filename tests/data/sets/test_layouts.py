"""Folders as people have them: layouts that are read in the right way, refused, or left out with their kind."""

import os
import random
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from maotune.data.images.formats import SUFFIXES
from maotune.data.sets.dataset import Dataset, missed
from maotune.data.sets.folders import read_folder, read_unlabelled
from maotune.data.sets.tables import read_table
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
        ("birds_train", "birds_val", "birds_test"),
        ("Train Cars", "Valid Cars", "Test Cars"),
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


@pytest.mark.parametrize(
    "folders",
    [
        ("fold1/owl", "fold1/fox", "fold2/owl"),
        ("amazon/mug", "amazon/desk", "amazon/lamp", "dslr/mug", "dslr/chair", "dslr/bottle"),
        ("train/day/owl", "train/day/fox", "train/night/fox"),
    ],
)
def test_folders_that_share_some_of_their_classes_are_refused(tmp_path: Path, folders: tuple[str, ...]) -> None:
    put(tmp_path, *(f"{folder}/{number}.png" for folder in folders for number in range(3)))
    for stray in ("", f"{folders[0].rpartition('/')[0]}/stray.png"):
        put(tmp_path, *filter(None, [stray]))
        with pytest.raises(ValueError, match=r"hold folders of the same names \((owl|mug|fox)\)"):
            read_folder(tmp_path)


@pytest.mark.parametrize(
    "folders",
    [
        ("owl/2021", "owl/2022", "fox/2022", "fox/2023"),
        ("owl/images", "fox/images", "fox/masks"),
        ("owl", "fox/day", "fox/night", "hare/night"),
        ("owl/owl", "fox/fox", "fox/more"),
        ("owl", "fox", "unlabelled/owl", "unlabelled/fox"),
        ("owl/a", "owl/b", "fox/c", "fox/d", "hare"),
    ],
)
def test_classes_may_hold_folders(tmp_path: Path, folders: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, *(f"{folder}/{number}.png" for folder in folders for number in range(3)))
    expected = {folder.partition("/")[0] for folder in folders} - {"unlabelled"}
    assert {*read_folder(tmp_path).classes} == expected
    if "hare" in folders:
        assert "hold folders (fox/c, fox/d, ...), which are not read as classes" in caplog.text


def test_class_folders_that_lie_one_folder_too_deep(tmp_path: Path) -> None:
    put(tmp_path, *per_class("train", "owl", "fox"), *per_class("val/night", "owl"), *per_class("val/day", "hare"))
    with pytest.raises(
        ValueError, match=r"val/night holds folders of the names of classes \(owl\): they lie one folder"
    ):
        read_folder(tmp_path)
    loose = put(tmp_path / "loose", *per_class("train", "owl", "fox"), *per_class("val/images", "owl", "fox"))
    put(loose, "val/stray.png")
    dataset = read_folder(loose)
    assert sizes(dataset) == {"train": 8, "val": 8}
    assert left_out(dataset) == {"val": "loose"}


@pytest.mark.parametrize("names", ["1.png", "images/1.png", "all_photos/1.png"])
def test_a_folder_that_is_called_images_is_no_class(tmp_path: Path, names: str) -> None:
    put(tmp_path, names, names.replace("1", "2"))
    (tmp_path / "labels.csv").write_text("id,breed\n1,owl\n2,fox\n")
    dataset = read_folder(tmp_path)
    assert (dataset.classes, len(dataset.unlabelled)) == ((), 2)
    tiny = put(tmp_path / "tiny", *per_class("train", "owl/images", "fox/images"), "val/images/1.png")
    assert read_folder(tiny).classes == ("fox", "owl")
    assert left_out(read_folder(tiny)) == {"val/images": "loose"}


def test_a_class_that_holds_its_splits_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "owl/train/1.png", "owl/test/2.png", "fox/Train/3.png")
    with pytest.raises(ValueError, match="owl is a class that holds its splits: put the splits outside"):
        read_folder(tmp_path)


@pytest.mark.parametrize("nested", ["val", "test", "backup"])
@pytest.mark.parametrize("classes", [("Owl", "fox"), ("owl",)])
def test_class_folders_among_their_neighbours_are_refused(
    tmp_path: Path, nested: str, classes: tuple[str, ...]
) -> None:
    put(tmp_path, *per_class(".", "owl", "fox"), *per_class(nested, *classes))
    shared = ", ".join(sorted(name.lower() for name in classes))
    with pytest.raises(ValueError, match=rf"{nested} holds folders of the same names \({shared}\) as its neighbours"):
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
    assert "1 picture lies in it and in no class folder, such as ILSVRC2012_val_00000001.JPEG" in item.reason
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
    (tmp_path / "fox" / name).write_bytes(b"II*\0 and more" if name == "1.CR2" else b"some\0thing")
    (item,) = read_folder(tmp_path).skipped
    assert (item.kind, item.pictures) == (kind, 1)
    assert helps in item.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, "Licence: CC0\n".encode(code)) for name, code in (("README.md", "utf-8"), ("LICENSE", "utf-16"))),
        *(("noms.csv", "é;à\n".encode("latin-1")), ("empty.txt", b""), ("notes.docx", b"PK\3\4\0\0")),
    ],
)
def test_texts_and_documents_are_no_pictures_that_are_missed(tmp_path: Path, name: str, content: bytes) -> None:
    put(tmp_path, *per_class("train", "owl", "fox"))
    (tmp_path / "annotations").mkdir()
    for folder in ("", "train/owl", "annotations"):
        (tmp_path / folder / name).write_bytes(content)
    dataset = read_folder(tmp_path)
    assert {item.kind for item in dataset.skipped} == {"document"}
    assert missed(dataset.skipped) == []
    (tmp_path / "train" / "hare").mkdir()
    (tmp_path / "train" / "hare" / name).write_bytes(content)
    assert [Path(item.name).name for item in missed(read_folder(tmp_path).skipped)] == ["hare"], "a class is missed"


def test_a_jpeg_with_the_ending_of_heic_is_read(tmp_path: Path) -> None:
    put(tmp_path, "owl/1.png", "fox/1.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "owl" / "IMG_1.HEIC", "JPEG")
    dataset = read_folder(tmp_path)
    assert dataset.skipped == ()
    assert all(s.image.read().size for s in (*dataset.train, *dataset.val, *dataset.test))


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
    *("@SynoResource/a.png", "@__thumb/a.png", "FOUND.012/a.png", "Network Trash Folder/a.png", "Thumbs/1.png"),
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
        "hare/1.png",
        "hare/2.png",
        "owl/1.png",
    ]
    assert left_out(dataset) == {"a-fox": "link", "all": "link", "owl/more/summer": "link", "owl/here": "link"}
    pool = read_unlabelled(tmp_path / "photos")
    assert len(pool.unlabelled) == 4


@pytest.mark.parametrize("link", ["train/bat/more", "train/bat/in/deep", "train/hare"])
@pytest.mark.parametrize("target", ["train/owl", "test/owl"])
def test_no_class_loses_its_pictures_to_a_link(tmp_path: Path, link: str, target: str) -> None:
    put(tmp_path, *per_class("train", "bat", "owl"), *per_class("test", "bat", "owl", count=2))
    clean = read_folder(tmp_path)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / target)
    dataset = read_folder(tmp_path)
    assert (dataset.classes, dataset.train, dataset.test) == (clean.classes, clean.train, clean.test)
    assert left_out(dataset) == {link: "link"}


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
    assert left_out(read_folder(tmp_path))["labels.csv"] == "document"


def test_a_table_may_name_the_files_in_the_folder_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "train/2.png", "test/1.png", "test/2.png")
    (tmp_path / "train.csv").write_text("filename,label\n1.png,owl\n2.png,fox\n")
    train = read_table(tmp_path / "train.csv")
    assert {Path(s.image.name).parent.name for s in (*train.train, *train.val)} == {"train"}
    (tmp_path / "labels.csv").write_text("filename,label\n1.png,owl\n2.png,fox\n")
    with pytest.raises(ValueError, match=r"1\.png is in .*test and in .*train: give the folder that its paths count"):
        read_table(tmp_path / "labels.csv")
    alone = put(tmp_path / "alone", "images/1.png", "images/2.png")
    (alone / "metadata.csv").write_text("file_name,label\n1.png,owl\n2.png,fox\n")
    assert read_folder(alone).classes == ("fox", "owl")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("1", "1.png is there: write the names of the files with their endings"),
        (r"C:\data\1.png", "the paths are those of another machine: cut what stands before"),
        ("/elsewhere/1.png", "the paths are those of another machine: cut what stands before"),
        ("7.png", "give the folder that their paths count from as root"),
    ],
)
def test_advice_where_no_image_of_a_table_exists(tmp_path: Path, path: str, advice: str) -> None:
    put(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text(f"path,label\n{path},owl\n")
    with pytest.raises(ValueError, match="none of the 1 images of") as refused:
        read_table(tmp_path / "t.csv")
    assert advice in str(refused.value)


@pytest.mark.parametrize("pattern", ["*", "day-*", "*/*"])
def test_a_pattern_matches_pictures_of_any_name_and_folders(tmp_path: Path, pattern: str) -> None:
    put(tmp_path, "day-1/1.png", "day-2/2", "day-2/deep/3.png")
    pool = read_unlabelled(tmp_path / pattern)
    assert [Path(s.image.name).name for s in pool.unlabelled] == ["1.png", "2", "3.png"]


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
