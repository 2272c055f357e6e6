"""Copies of pictures on two sides or under two labels, and pictures that show nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maotune.data.images.decode import ImageFile
from maotune.data.images.duplicates import Look, Member, look_at, remarks_on_copies
from maotune.data.images.scan import scan_images
from maotune.data.sets.dataset import Sample


def scene(path: Path, seed: int) -> Path:
    """A picture with large shapes, as photos have them."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((180, 120), Image.Resampling.BICUBIC).save(path)
    return path


def remarks(*images: tuple[Path, str, str]) -> list[str]:
    looks: dict[str, Look] = {}
    scan_images([Sample(ImageFile(path), 0) for path, _, _ in images], looks=looks)
    return remarks_on_copies([Member(ImageFile(path), side, label) for path, side, label in images], looks)


def test_different_pictures_are_nothing_to_tell(tmp_path: Path) -> None:
    images = [scene(tmp_path / f"{number}.png", number) for number in range(40)]
    sides = ["training", "validation", "test", "unlabelled"]
    assert remarks(*((path, sides[n % 4], "owl") for n, path in enumerate(images))) == []


def test_copies_on_two_sides_are_counted(tmp_path: Path) -> None:
    images = [scene(tmp_path / f"{number}.png", number) for number in range(8)]
    copies = [Path(shutil.copy(path, tmp_path / f"copy-{path.name}")) for path in images[:3]]
    train = [(path, "training", "owl") for path in images]
    (remark,) = remarks(
        *train, *((path, "test", "owl") for path in copies), (scene(tmp_path / "9.png", 9), "test", "owl")
    )
    assert remark.startswith("3 of 8 training images are also test images, such as ")
    assert "0.png" in remark
    pool = [(path, "unlabelled", "") for path in copies]
    assert remarks(*train, *pool) == [], "the pool may hold what is tuned on"


def test_a_picture_under_two_labels(tmp_path: Path) -> None:
    owl, fox = scene(tmp_path / "owl/1.png", 1), tmp_path / "fox" / "7.png"
    fox.parent.mkdir()
    shutil.copy(owl, fox)
    (remark,) = remarks((owl, "training", "owl"), (fox, "training", "fox"), (owl, "training", "owl"))
    assert remark == f"1 picture has two labels: {owl} is owl, {fox} is fox"


def test_a_picture_in_another_size_under_another_label(tmp_path: Path) -> None:
    owls = [scene(tmp_path / f"owl/{number}.png", number) for number in range(9)]
    fox = tmp_path / "fox.jpg"
    with Image.open(owls[3]) as image:
        image.resize((90, 60)).save(fox)
    images = [(path, "training", "owl") for path in owls]
    (remark,) = remarks(*images, (fox, "training", "fox"))
    assert remark == f"1 picture looks the same as one with another label: {owls[3]} is owl, {fox} is fox"
    assert remarks(*images, (fox, "training", "owl")) == []


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
@pytest.mark.parametrize("size", [(60, 40), (360, 240), (120, 80)])
def test_a_picture_in_another_size_and_format_looks_the_same(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    train = [scene(tmp_path / f"{number}.png", number) for number in range(12)]
    small = tmp_path / f"thumbnail.{suffix}"
    with Image.open(train[4]) as image:
        image.resize(size, Image.Resampling.LANCZOS).save(small)
    (remark,) = remarks(*((path, "training", "owl") for path in train), (small, "test", "owl"))
    assert remark == f"1 of 1 test images look the same as training images, such as {small} and {train[4]}"


def test_flat_pictures_look_like_nothing(tmp_path: Path) -> None:
    for name, value in {"black": 3, "grey": 120}.items():
        noise = np.random.default_rng(value).integers(-2, 3, (40, 40, 3))
        Image.fromarray((value + noise).astype(np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((40, 40, 3), 3, np.uint8)).save(tmp_path / "other.png")
    looks = {name: look_at(ImageFile(tmp_path / f"{name}.png").read()) for name in ("black", "grey", "other")}
    assert all(look.flat for look in looks.values())
    assert not look_at(ImageFile(scene(tmp_path / "a.png", 1)).read()).flat
    assert remarks((tmp_path / "black.png", "training", "a"), (tmp_path / "other.png", "test", "a")) == []


def test_images_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert remarks((tmp_path / "a.png", "training", "a"), (tmp_path / "b.png", "test", "b")) == []
