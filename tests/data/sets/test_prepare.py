"""Public data sets from their authors' archives into CoOp's layout, and what is said of what is there."""

import io
import json
import os
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from maotune.data.sets.archives import ArchiveError
from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.check import check
from maotune.data.sets.named import Counts, named_sets
from maotune.data.sets.prepare import prepare
from tests.data.sets.test_archives import tar, tree, zipped
from tests.data.sets.test_folders import labelled


def jpegs(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


def test_pets(tmp_path: Path) -> None:
    root, downloads = tmp_path / "data", tmp_path / "downloads"
    downloads.mkdir()
    images = jpegs(*(f"images/Abyssinian_{number}.jpg" for number in range(1, 8)))
    tar(downloads / "images.tar.gz", images | {"images/._Abyssinian_1.jpg": b"finder"})
    lists = {"annotations/trainval.txt": b"", "annotations/test.txt": b"Abyssinian_6 1 1 1\nAbyssinian_7 1 1 1\n"}
    lists["annotations/trainval.txt"] = b"".join(b"Abyssinian_%d 1 1 1\n" % number for number in range(1, 6))
    tar(downloads / "annotations.tar.gz", lists)

    before = check("oxford-pets", root)
    assert (before.state, before.found) == ("missing", None)
    assert [piece.path for piece in before.missing] == ["images", "annotations"]
    advice = "\n".join(before.advice(root))
    assert "missing: images, made from images.tar.gz" in advice
    assert f"put it into {root / 'oxford_pets'}, then: maotune data prepare oxford-pets --root {root}" in advice
    assert "https://www.robots.ox.ac.uk/~vgg/data/pets/" in advice

    done = prepare("oxford-pets", root, downloads)
    assert (done.made, done.present, done.missing) == (("images", "annotations"), (), ())
    assert tree(root / "oxford_pets") == images | lists
    again = prepare("oxford-pets", root, downloads)
    assert (again.made, again.present) == ((), ("images", "annotations"))

    after = check("oxford-pets", root)
    assert (after.state, after.found, after.gone) == ("differs", (1, 4, 1, 2), 0)
    assert "train 4 (expected 2,944)" in "\n".join(after.advice(root))
    assert "split_zhou_OxfordPets.json, linked from CoOp's DATASETS.md, belongs in" in "\n".join(after.advice(root))


def test_a_split_file_makes_annotations_unnecessary_and_its_missing_images_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    folder.mkdir()
    tar(folder / "images.tar.gz", jpegs("images/a_1.jpg", "images/a_2.jpg"))
    split = [[f"a_{number}.jpg", 0, "a"] for number in range(1, 6)]
    (folder / "split_zhou_OxfordPets.json").write_text(json.dumps({"train": split}))
    done = prepare("oxford-pets", tmp_path)
    assert (done.made, done.missing) == (("images",), ())
    found = check("oxford-pets", tmp_path)
    assert (found.state, found.found, found.gone) == ("incomplete", (1, 5, 0, 0), 3)
    assert found.example == str(folder / "images" / "a_3.jpg")
    assert found.missing == ()
    assert "3 images are listed and not there, for instance" in "\n".join(found.advice(tmp_path))


def test_counts_that_fit_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fgvc_aircraft"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("A318\n707\n")
    for split, image in (("train", "1"), ("val", "2"), ("test", "3")):
        (folder / f"images_variant_{split}.txt").write_text(f"{image} A318\n")
        (folder / "images" / f"{image}.jpg").touch()
    assert check("fgvc-aircraft", tmp_path).state == "differs"
    row = named_sets()["fgvc-aircraft"].model_copy(update={"counts": Counts(1, 1, 1, 1)})
    monkeypatch.setitem(named_sets(), "fgvc-aircraft", row)
    found = check("fgvc-aircraft", tmp_path)
    assert (found.state, found.advice(tmp_path)) == ("complete", [])
    (folder / "images" / "2.jpg").unlink()
    assert check("fgvc-aircraft", tmp_path).state == "incomplete"
    (folder / "images_variant_val.txt").write_text("2 B52\n")
    assert "line 1 cannot be understood" in "\n".join(check("fgvc-aircraft", tmp_path).advice(tmp_path))


def test_aircraft_comes_from_deep_inside_its_archive(tmp_path: Path) -> None:
    top = "fgvc-aircraft-2013b/data"
    lists = {f"{top}/images_variant_{split}.txt": b"1 A318\n" for split in ("train", "val", "test")}
    tar(
        tmp_path / "fgvc-aircraft-2013b.tar.gz",
        {f"{top}/images/1.jpg": b"1", f"{top}/variants.txt": b"A318\n", "fgvc-aircraft-2013b/README": b"", **lists},
    )
    done = prepare("fgvc-aircraft", tmp_path)
    assert len(done.made) == 5
    assert sorted(path.name for path in (tmp_path / "fgvc_aircraft").iterdir()) == sorted(
        ["images", "variants.txt", "images_variant_train.txt", "images_variant_val.txt", "images_variant_test.txt"]
    )
    assert load_dataset("fgvc-aircraft", tmp_path).classes == ("A318",)


def test_caltech_is_an_archive_in_an_archive(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner", jpegs("101_ObjectCategories/yin_yang/image_0001.jpg"))
    folder = tmp_path / "caltech-101"
    folder.mkdir()
    zipped(folder / "caltech-101.zip", {"caltech-101/101_ObjectCategories.tar.gz": inner.read_bytes()})
    assert prepare("caltech101", tmp_path).made == ("101_ObjectCategories",)
    assert (folder / "101_ObjectCategories" / "yin_yang" / "image_0001.jpg").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["101_ObjectCategories", "caltech-101.zip"]


@pytest.mark.parametrize(("archive", "top"), [("EuroSAT.zip", "2750"), ("EuroSAT_RGB.zip", "EuroSAT_RGB")])
def test_eurosat_old_and_new(tmp_path: Path, archive: str, top: str) -> None:
    zipped(tmp_path / archive, jpegs(f"{top}/Forest/Forest_1.jpg"))
    assert prepare("eurosat", tmp_path).made == ("2750",)
    assert (tmp_path / "eurosat" / "2750" / "Forest" / "Forest_1.jpg").is_file()


def test_cars_flowers_and_scenes(tmp_path: Path) -> None:
    for archive, members in {
        "cars_train.tgz": ["cars_train/00001.jpg"],
        "cars_test.tgz": ["cars_test/00001.jpg"],
        "car_devkit.tgz": ["devkit/cars_meta.mat"],
        "102flowers.tgz": ["jpg/image_00001.jpg"],
        "SUN397.tar.gz": ["SUN397/a/abbey/sun_1.jpg"],
    }.items():
        tar(tmp_path / archive, jpegs(*members))
    zipped(tmp_path / "Partitions.zip", jpegs("ClassName.txt", "Training_01.txt", "Testing_01.txt", "Training_02.txt"))
    for loose in ("cars_test_annos_withlabels.mat", "imagelabels.mat", "cat_to_name.json"):
        (tmp_path / loose).write_bytes(loose.encode())
    for name in ("stanford-cars", "flowers102", "sun397"):
        done = prepare(name, tmp_path)
        assert done.missing == (), name
        assert {*done.made} == {piece.path for piece in named_sets()[name].parts}
    assert not (tmp_path / "sun397" / "Training_02.txt").exists()
    assert (tmp_path / "imagelabels.mat").exists(), "what the user put there stays"


def test_ucf_says_what_to_do_about_videos(tmp_path: Path) -> None:
    zipped(tmp_path / "UCF101TrainTestSplits-RecognitionTask.zip", jpegs("ucfTrainTestlist/classInd.txt"))
    done = prepare("ucf101", tmp_path)
    assert done.made == ("ucfTrainTestlist",)
    assert [piece.path for piece in done.missing] == ["UCF-101-midframes"]
    assert "take the middle frame of every video yourself" in "\n".join(check("ucf101", tmp_path).advice(tmp_path))


SYNSETS = {"n3": "yak", "n1": "cat", "n2": "dog"}


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """The three official archives, small, and CoOp's list of names."""
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for synset in random.Random(0).sample([*SYNSETS], 3):
            inner = tar(tmp_path / "inner", jpegs(*(f"{synset}_{number}.JPEG" for number in range(2))), "w")
            info = tarfile.TarInfo(f"{synset}.tar")
            content = inner.read_bytes()
            info.size = len(content)
            outer.addfile(info, io.BytesIO(content))
            inner.unlink()
    tar(tmp_path / "ILSVRC2012_img_val.tar", jpegs(*(f"ILSVRC2012_val_{n:08d}.JPEG" for n in (2, 4, 1, 3))), "w")
    synsets = np.empty((3, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for row, synset in enumerate(SYNSETS):
        synsets[row, 0] = (np.array([[row + 1]], np.uint16), synset, "words")
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data"
    truth = {f"{data}/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n3\n2\n", f"{data}/meta.mat": meta.getvalue()}
    tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", truth)
    (tmp_path / "classnames.txt").write_text("".join(f"{synset} {name}\n" for synset, name in SYNSETS.items()))
    return tmp_path


def test_imagenet_becomes_a_folder_a_class(imagenet: Path) -> None:
    done = prepare("imagenet", imagenet)
    assert {*done.made} == {"images/train", "images/val", "classnames.txt"}
    folder = imagenet / "imagenet"
    dataset = load_dataset("imagenet", imagenet)
    assert labelled(dataset, "test", folder / "images" / "val") == [
        ("n1/ILSVRC2012_val_00000001.JPEG", "cat"),
        ("n1/ILSVRC2012_val_00000004.JPEG", "cat"),
        ("n2/ILSVRC2012_val_00000003.JPEG", "dog"),
        ("n3/ILSVRC2012_val_00000002.JPEG", "yak"),
    ]
    assert sorted(tree(folder / "images" / "train")) == [f"n{c}/n{c}_{n}.JPEG" for c in (1, 2, 3) for n in (0, 1)]
    assert sorted(path.name for path in folder.iterdir()) == ["classnames.txt", "images"]
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["train", "val"]


def test_validation_images_that_lie_loose_are_sorted(imagenet: Path) -> None:
    prepare("imagenet", imagenet)
    val = imagenet / "imagenet" / "images" / "val"
    expected = load_dataset("imagenet", imagenet)
    for image in [*val.rglob("*.JPEG")][:3]:  # the fourth was sorted before an interruption
        image.rename(val / image.name)
    with pytest.raises(ValueError, match=r"3 pictures lie in .*val and in no class folder, such as ILSVRC2012_val_.*"):
        load_dataset("imagenet", imagenet)
    assert "maotune data prepare imagenet" in str(check("imagenet", imagenet).problem)
    assert prepare("imagenet", imagenet).made == ("images/val",)
    assert load_dataset("imagenet", imagenet) == expected
    assert sorted(path.name for path in val.parent.iterdir()) == ["train", "val"]


def test_class_folders_one_level_too_deep(imagenet: Path) -> None:
    prepare("imagenet", imagenet)
    val = imagenet / "imagenet" / "images" / "val"
    val.rename(imagenet / "elsewhere")
    val.mkdir()
    (imagenet / "elsewhere").rename(val / "val")
    with pytest.raises(ValueError, match=r"one level too deep: mv .*val/val/"):
        load_dataset("imagenet", imagenet)


def test_imagenet_without_its_kit_says_what_is_missing(imagenet: Path) -> None:
    (imagenet / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    done = prepare("imagenet", imagenet)
    assert [str(piece) for piece in done.missing] == [
        "missing: images/val, made from ILSVRC2012_img_val.tar, with ILSVRC2012_devkit_t12.tar.gz"
    ]


def test_imagenet_with_images_cut_off_makes_nothing_half(imagenet: Path) -> None:
    tar(imagenet / "ILSVRC2012_img_val.tar", jpegs("ILSVRC2012_val_00000001.JPEG"), "w")
    with pytest.raises(ArchiveError, match=r"1 validation images, but .* has labels for 4"):
        prepare("imagenet", imagenet)
    assert not (imagenet / "imagenet" / "images" / "val").exists()
    assert not list((imagenet / "imagenet").glob(".*"))


def test_variants_take_the_names_from_imagenet(tmp_path: Path) -> None:
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "classnames.txt").write_text("n1 cat\n")
    zipped(tmp_path / "ImageNet-Sketch.zip", jpegs("sketch/n1/sketch_0.JPEG"))
    tar(tmp_path / "imagenet-a.tar", jpegs("imagenet-a/n1/0.jpg", "imagenet-a/README.txt"), "w")
    tar(tmp_path / "imagenet-r.tar", jpegs("imagenet-r/n1/art_0.jpg"), "w")
    tar(tmp_path / "imagenetv2-matched-frequency.tar.gz", jpegs("imagenetv2-matched-frequency-format-val/0/a.jpeg"))
    for name in ("imagenetv2", "imagenet-sketch", "imagenet-a", "imagenet-r"):
        assert prepare(name, tmp_path).missing == (), name
        assert len(load_dataset(name, tmp_path).test) == 1, name
        assert check(name, tmp_path).found == (1, 0, 0, 1)


def test_a_broken_archive_leaves_nothing_half_and_can_be_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "dtd"
    images = jpegs(*(f"dtd/images/banded/banded_{number:04d}.jpg" for number in range(40)))
    archive = tar(tmp_path / "dtd-r1.0.1.tar.gz", images)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="get it again"):
        prepare("dtd", tmp_path)
    assert not any(folder.iterdir())
    archive.write_bytes(whole)
    assert prepare("dtd", tmp_path).made == ("images",)
    assert len(load_dataset("dtd", tmp_path).train) == 20


def test_a_run_that_is_stopped_leaves_nothing_half(tmp_path: Path) -> None:
    tar(tmp_path / "dtd-r1.0.1.tar.gz", jpegs(*(f"dtd/images/banded/{number}.jpg" for number in range(9))))
    heard: list[int] = []

    def stop(done: int, total: int) -> None:
        heard.append(done)
        if len(heard) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("dtd", tmp_path, progress=stop)
    assert not any((tmp_path / "dtd").iterdir())
    assert prepare("dtd", tmp_path).made == ("images",)
    assert len([*(tmp_path / "dtd" / "images").rglob("*.jpg")]) == 9


def test_of_two_runs_at_once_the_first_to_finish_counts(tmp_path: Path) -> None:
    tar(tmp_path / "dtd-r1.0.1.tar.gz", jpegs("dtd/images/banded/1.jpg"))
    prepared = []

    def meanwhile(done: int, total: int) -> None:
        if not prepared:
            prepared.append(None)
            prepare("dtd", tmp_path)
            (tmp_path / "dtd" / "images" / "first").touch()

    prepare("dtd", tmp_path, progress=meanwhile)
    assert sorted(tree(tmp_path / "dtd")) == ["images/banded/1.jpg", "images/first"]


def test_a_hostile_archive_leaves_nothing(tmp_path: Path) -> None:
    tar(tmp_path / "dtd-r1.0.1.tar.gz", {"dtd/images/a/1.jpg": b"good", "dtd/images/../../../evil": b"evil"})
    with pytest.raises(ArchiveError, match="would leave the folder"):
        prepare("dtd", tmp_path)
    assert sorted(tree(tmp_path)) == ["dtd-r1.0.1.tar.gz"]


def test_what_a_killed_run_left_is_cleared_away_once_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / "dtd"
    old, young = folder / ".preparing-old", folder / ".preparing-young"
    for left in (old, young):
        (left / "0").mkdir(parents=True)
    os.utime(old, (0, 0))
    tar(tmp_path / "dtd-r1.0.1.tar.gz", jpegs("dtd/images/banded/1.jpg"))
    prepare("dtd", tmp_path)
    assert not old.exists()
    assert young.exists(), "it may belong to a run that is at work"
    assert load_dataset("dtd", tmp_path).classes == ("banded",)


def test_the_order_in_which_folders_list_does_not_matter(tmp_path: Path) -> None:
    """Zips keep the order in which members were put in; so does many a file system."""
    loaded = []
    for trial in range(3):
        members = [f"{c}/{c}_{n}.jpg" for c in ("Forest", "River") for n in range(20)]
        root = tmp_path / str(trial)
        root.mkdir()
        with zipfile.ZipFile(root / "EuroSAT.zip", "w") as file:
            for name in random.Random(trial).sample(members, len(members)):
                file.writestr(f"2750/{name}", name)
        prepare("eurosat", root)
        dataset = load_dataset("eurosat", root)
        loaded.append([labelled(dataset, split, root) for split in ("train", "val", "test")])
    assert loaded[0] == loaded[1] == loaded[2]
