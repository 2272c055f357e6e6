"""Describing data sets and taking them away as folders."""

from pathlib import Path

import pytest
from PIL import Image

from maotune.data.export import describe, export
from maotune.data.images.decode import ImageFile, MemoryImage
from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.folders import read_folder
from tests.data.conftest import Paint


@pytest.fixture
def dataset(paint: Paint) -> Dataset:
    """Class names that are no folder names, two of them equal but for case, in an order of their own."""
    files = [
        ImageFile(paint(f"source/{number}.{suffix}")) for number, suffix in enumerate(("png", "jpg", "bmp", "png"))
    ]
    drawn = MemoryImage(Image.new("RGB", (8, 8), (1, 2, 3)), "drawn")
    return Dataset(
        "planes",
        ("F-16A/B", "cat:", "Cat?"),
        train=(Sample(files[0], 2), Sample(files[1], 0), Sample(drawn, 1)),
        val=(Sample(files[2], 2),),
        unlabelled=(Sample(files[3], -1),),
    )


def content(dataset: Dataset, split: str) -> list[tuple[bytes, str]]:
    return sorted((s.image.read().tobytes(), (*dataset.classes, "")[s.label]) for s in getattr(dataset, split))


def test_a_data_set_comes_back_as_it_went(dataset: Dataset, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    assert export(dataset, tmp_path / "out/planes", progress=lambda *done: steps.append(done)) == 5
    assert steps[-1] == (5, 5)
    back = read_folder(tmp_path / "out/planes")
    assert (back.name, back.classes) == (dataset.name, dataset.classes)
    for split in ("train", "val", "test", "unlabelled"):
        assert content(back, split) == content(dataset, split)
    copied = tmp_path / "out/planes/train/F-16A_B/00001.jpg"
    assert copied.read_bytes() == Path(dataset.train[1].image.name).read_bytes()
    assert (tmp_path / "out/planes/train/cat_/00002.png").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["planes"]


def test_nothing_is_overwritten(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists already: nothing is overwritten"):
        export(dataset, tmp_path / "out")


def test_a_failure_leaves_nothing_behind(dataset: Dataset, tmp_path: Path) -> None:
    Path(dataset.val[0].image.name).unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        export(dataset, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_descriptions_count_and_name_empty_classes(dataset: Dataset) -> None:
    found = describe(dataset)
    assert (found.name, found.classes, found.base) == ("planes", dataset.classes, 2)
    assert list(found.splits) == ["train", "val", "unlabelled"]
    train, val, unlabelled = found.splits.values()
    assert (train.images, train.smallest, train.largest, train.empty) == (3, 1, 1, ())
    assert (val.images, val.smallest, val.largest, val.empty) == (1, 0, 1, ("F-16A/B", "cat:"))
    assert (unlabelled.images, unlabelled.empty) == (1, ())
