"""Data sets through Hugging Face datasets: local parquet files and image folders, without a network."""

import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maotune.data.images.decode import ImageFile
from maotune.data.images.scan import scan_images
from maotune.data.sets.catalog import load_dataset, load_unlabelled
from maotune.data.sets.dataset import ImageRef, Sample, UnreadableImage
from maotune.data.sets.hub import read_hub

datasets = pytest.importorskip("datasets", reason='pip install "maotune[hub]"')


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and no network."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (12, 9), random.Random(name).randbytes(3 * 12 * 9)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, columns: Mapping[str, Sequence[Any]], **features: Any) -> Path:
    """A parquet file; a column of pictures is given by their names."""
    table = {
        name: [{"bytes": picture(str(value)), "path": None} for value in values] if name in features else list(values)
        for name, values in columns.items()
        if not isinstance(features.get(name), datasets.ClassLabel)
    }
    table |= {name: list(v) for name, v in columns.items() if isinstance(features.get(name), datasets.ClassLabel)}
    kinds = {name: features.get(name) or datasets.Value("string") for name in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(table, datasets.Features(kinds)).to_parquet(str(path))
    return path


def images(samples: Sequence[Sample]) -> list[ImageRef]:
    return [sample.image for sample in samples]


PETS = ("zebra", "ant", "Ox")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Parquet files as the hub has them: three splits, labels of type ClassLabel, another text column."""
    for split, count in {"train": 6, "validation": 3, "test": 4}.items():
        names = [f"{split}-{number}" for number in range(count)]
        labels = [number % 3 for number in range(count)]
        write(
            tmp_path / "pets" / "data" / f"{split}-00000-of-00001.parquet",
            {"picture": names, "animal": labels, "caption": names},
            picture=datasets.Image(),
            animal=datasets.ClassLabel(names=list(PETS)),
        )
    return tmp_path / "pets"


def test_splits_labels_and_pictures(pets: Path) -> None:
    dataset = load_dataset(f"hub:{pets}")
    assert dataset.name == "pets"
    assert dataset.classes == PETS, "in the order of the data set, which is that of base and new classes"
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test, dataset.unlabelled)] == [6, 3, 4, 0]
    assert [sample.label for sample in dataset.train] == [0, 1, 2, 0, 1, 2]
    for number, image in enumerate(images(dataset.test)):
        file = pets / "one.png"
        file.write_bytes(picture(f"test-{number}"))
        assert image.digest() == ImageFile(file).digest(), "stored bytes, so that features are shared with the file"
        assert image.read().tobytes() == ImageFile(file).read().tobytes()
        assert image.name == f"hub:{pets}/test/{number}"
        assert isinstance(image, ImageRef)
        file.unlink()
    assert len({*images(dataset.train)}) == 6


def test_class_names_can_be_given(pets: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("ant\tan ant\nOx\tan ox\nzebra\na lion\n")
    assert load_dataset(f"hub:{pets}", classes=names).classes == ("an ant", "an ox", "zebra", "a lion")


def test_an_image_folder_is_what_it_is_without_the_hub(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(3):
                file = tmp_path / "own" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(f"{split} {name} {number}"))
    through, plain = load_dataset(f"hub:{tmp_path / 'own'}"), load_dataset(tmp_path / "own")
    assert through.classes == plain.classes
    for split in ("train", "test"):
        mine, theirs = getattr(through, split), getattr(plain, split)
        assert {(s.image.digest(), s.label) for s in mine} == {(s.image.digest(), s.label) for s in theirs}
        assert mine[0].image.read().size == (12, 9)


def test_one_file_is_split_by_its_rows_and_texts_are_labels(tmp_path: Path) -> None:
    rows = [f"{name} {number}" for name in ("cat", "dog") for number in range(10)]
    path = write(tmp_path / "all.parquet", {"image": rows, "kind": [row[:3] for row in rows]}, image=datasets.Image())
    dataset = load_dataset(f"hub:{path}")
    assert dataset.classes == ("cat", "dog")
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [10, 4, 6]
    everything = [*dataset.train, *dataset.val, *dataset.test]
    assert len({sample.image.digest() for sample in everything}) == 20
    assert all(dataset.classes[s.label] == rows[int(s.image.name.rpartition("/")[2])][:3] for s in everything)
    assert load_dataset(f"hub:{path}") == dataset
    assert len(load_dataset(f"hub:{path}", fractions=(0.8, 0)).train) == 16
    assert len(load_dataset(f"hub:{path}?train=train").train) == 20


def test_rows_without_a_label(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    for split in ("train", "test"):
        write(
            tmp_path / "data" / f"{split}.parquet",
            {"image": [f"{split} {n}" for n in range(4)], "label": [0, 1, -1, None]},
            image=datasets.Image(),
            label=label,
        )
    dataset = load_dataset(f"hub:{tmp_path / 'data'}")
    assert [sample.label for sample in dataset.train] == [0, 1]
    assert [image.name.rpartition("/")[2] for image in images(dataset.unlabelled)] == ["2", "3"]
    assert [sample.label for sample in dataset.test] == [0, 1]


def test_columns_that_could_be_several(tmp_path: Path) -> None:
    rows = {"front": ["a", "b", "c"], "back": ["d", "e", "f"], "coarse": [0, 1, 1], "fine": [0, 1, 2]}
    kinds = {
        "front": datasets.Image(),
        "back": datasets.Image(),
        "coarse": datasets.ClassLabel(names=["x", "y"]),
        "fine": datasets.ClassLabel(names=["p", "q", "r"]),
    }
    source = f"hub:{write(tmp_path / 'a.parquet', rows, **kinds)}"
    with pytest.raises(ValueError, match=r"front, back could be the image; say which: .*parquet\?image=front"):
        load_dataset(source)
    with pytest.raises(ValueError, match=r"coarse, fine could be the label; say which: .*\?image=back&label=coarse"):
        load_dataset(f"{source}?image=back")
    dataset = load_dataset(f"{source}?image=back&label=fine")
    assert dataset.classes == ("p", "q", "r")
    (first,) = [s.image for s in (*dataset.train, *dataset.test) if s.label == 0]
    assert first.digest() != load_dataset(f"{source}?image=front&label=fine").train[0].image.digest()
    with pytest.raises(ValueError, match=r"'fine' is no image column; columns are .*front"):
        load_dataset(f"{source}?image=fine")
    with pytest.raises(ValueError, match="'colour' is no label column"):
        load_dataset(f"{source}?image=back&label=colour")


def test_what_cannot_be_used_is_told(tmp_path: Path, pets: Path) -> None:
    words = write(tmp_path / "words.parquet", {"word": ["a", "b"], "kind": ["x", "x"]})
    with pytest.raises(ValueError, match=r"no column of pictures; its columns are word \(string\), kind \(string\)"):
        load_dataset(f"hub:{words}")
    bare = write(tmp_path / "bare.parquet", {"image": ["a", "b"]}, image=datasets.Image())
    with pytest.raises(ValueError, match=r"no column of class labels.*give it as --unlabelled"):
        load_dataset(f"hub:{bare}")
    captions = write(tmp_path / "c.parquet", {"image": ["a", "b"], "text": ["one", "two"]}, image=datasets.Image())
    with pytest.raises(ValueError, match="column 'text' is another in each row, as no class label is"):
        load_dataset(f"hub:{captions}")
    with pytest.raises(ValueError, match=r"there is no split 'dev'; there are train, validation, test"):
        load_dataset(f"hub:{pets}?val=dev")
    for source in ("hub:", "hub:?image=a", f"hub:{pets}?images=a", f"hub:{pets}?image"):
        with pytest.raises(ValueError, match=r"the form is hub:PATH_OR_ID\[:CONFIG\]"):
            load_dataset(source)
    with pytest.raises(ValueError, match="Hugging Face datasets cannot load it"):
        load_dataset(f"hub:{tmp_path / 'gone'}")
    with pytest.raises(ValueError, match="Hugging Face datasets cannot load it"):
        load_dataset(f"hub:{pets}:no-such-config")


def test_splits_of_other_names(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    for split in ("clean", "noisy"):
        rows = {"image": [f"{split} {n}" for n in range(4)], "label": [0, 1, 0, 1]}
        write(tmp_path / "data" / f"{split}.parquet", rows, image=datasets.Image(), label=label)
    card = "---\nconfigs:\n- config_name: both\n  data_files:\n  - split: clean\n    path: clean.parquet\n"
    (tmp_path / "data" / "README.md").write_text(f"{card}  - split: noisy\n    path: noisy.parquet\n---\n")
    source = f"hub:{tmp_path / 'data'}:both"
    with pytest.raises(ValueError, match=r"none of its splits \(clean, noisy\) is called train.*\?train=clean"):
        load_dataset(source)
    dataset = load_dataset(f"{source}?train=noisy&test=clean")
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [4, 0, 4]
    assert dataset.train[0].image.name.endswith("/noisy/0")
    (left_out,) = load_dataset(f"{source}?train=noisy").skipped
    assert (left_out.name, left_out.kind, left_out.pictures) == (f"{source}?train=noisy/clean", "in no split", 4)


def test_all_of_it_as_unlabelled_images(pets: Path, tmp_path: Path) -> None:
    heap = load_unlabelled(f"hub:{pets}").unlabelled
    assert len(heap) == 13
    assert {sample.label for sample in heap} == {-1}
    bare = write(tmp_path / "bare.parquet", {"image": ["a", "b"]}, image=datasets.Image())
    assert len(load_unlabelled(Path(f"hub:{bare}")).unlabelled) == 2, "a setting of the recipe is a path"


def test_broken_rows_are_unreadable_pictures(tmp_path: Path) -> None:
    cells = [{"bytes": content, "path": None} for content in (picture("a"), b"<html>", picture("b")[:60])] + [None]
    table = datasets.Dataset.from_dict(
        {"image": cells, "label": ["x", "y", "x", "y"]},
        datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    table.to_parquet(str(tmp_path / "a.parquet"))
    dataset = read_hub(f"hub:{tmp_path / 'a.parquet'}?train=train")
    kept, skipped = scan_images(dataset.train)
    assert len(kept) == 1
    assert [(s.name.rpartition("/")[2], s.kind) for s in skipped] == [
        ("1", "not a picture"),
        ("2", "truncated"),
        ("3", "missing"),
    ]
    with pytest.raises(UnreadableImage, match="the row has no picture"):
        dataset.train[3].image.digest()
