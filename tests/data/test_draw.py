"""Draws and splits; that they are CoOp's own is shown in tests/parity/test_fewshot.py."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.data.draw import PoolMode, base_new, draw_unlabelled_pool, few_shot
from maotune.data.images.decode import ImageFile
from maotune.data.sets.dataset import Dataset, Sample


def dataset(train: list[int], classes: int, val: int = 6) -> Dataset:
    def images(split: str, labels: list[int]) -> tuple[Sample, ...]:
        return tuple(Sample(ImageFile(Path(f"{split}/{number}.png")), label) for number, label in enumerate(labels))

    each = [label for label in range(classes) for _ in range(val)]
    names = tuple(f"class {label}" for label in range(classes))
    return Dataset("toy", names, images("train", train), images("val", each), images("test", each))


def toy(classes: int = 5, images: int = 20) -> Dataset:
    return dataset([label for label in range(classes) for _ in range(images)], classes)


@settings(deadline=None)
@given(st.integers(1, 7).flatmap(lambda c: st.tuples(st.just(c), st.permutations([*range(c)] * 3))), st.integers(1, 5))
def test_few_shot_draws_each_class_alike_and_no_image_twice(classes: tuple[int, list[int]], shots: int) -> None:
    count, labels = classes
    full = dataset(labels, count)
    drawn = few_shot(full, shots, seed=3)
    assert Counter(sample.label for sample in drawn.train) == dict.fromkeys(range(count), min(shots, 3))
    assert Counter(sample.label for sample in drawn.val) == dict.fromkeys(range(count), min(shots, 4))
    assert len(set(drawn.train)) == len(drawn.train)
    assert set(drawn.train) <= set(full.train)
    assert drawn.test == full.test
    assert list(dict.fromkeys(s.label for s in drawn.train)) == list(dict.fromkeys(s.label for s in full.train))


def test_few_shot_depends_on_the_seed_alone() -> None:
    assert few_shot(toy(), 4, 1) == few_shot(toy(), 4, 1)
    assert few_shot(toy(), 4, 1).train != few_shot(toy(), 4, 2).train


def test_few_shot_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="shots is 0"):
        few_shot(toy(), 0, 1)
    with pytest.raises(ValueError, match="toy: class 'class 2' is without any training image"):
        few_shot(dataset([0, 1, 1], 3), 1, 1)
    with pytest.raises(ValueError, match=r"classes .* and 1 more are without"):
        few_shot(dataset([0], 7), 1, 1)


@pytest.mark.parametrize(("classes", "half"), [(2, 1), (5, 3), (6, 3)])
def test_base_and_new_share_no_class(classes: int, half: int) -> None:
    full = replace(toy(classes), unlabelled=(Sample(ImageFile(Path("u.png")), -1),))
    base, new = base_new(full)
    assert base.classes + new.classes == full.classes
    assert len(base.classes) == half
    for split in ("train", "val", "test"):
        whole = {(sample.image, full.classes[sample.label]) for sample in getattr(full, split)}
        parts = [
            {(sample.image, part.classes[sample.label]) for sample in getattr(part, split)} for part in (base, new)
        ]
        assert parts[0] | parts[1] == whole
        assert not parts[0] & parts[1]
    assert base.unlabelled == new.unlabelled == full.unlabelled
    assert (base.name, new.name) == ("toy/base", "toy/new")


def test_one_class_has_no_halves() -> None:
    with pytest.raises(ValueError, match="1 classes cannot be split"):
        base_new(toy(1))


def test_the_balanced_pool_is_the_few_shot_draw_with_its_labels_hidden() -> None:
    new = base_new(toy(8))[1]
    pool = draw_unlabelled_pool(new, 4, seed=1)
    drawn = few_shot(new, 4, seed=1).train
    assert [sample.image for sample in pool.samples] == [sample.image for sample in drawn]
    assert pool.true_labels == tuple(sample.label for sample in drawn)
    assert {sample.label for sample in pool.samples} == {-1}
    again = draw_unlabelled_pool(few_shot(new, 4, seed=1), 4, seed=1)
    assert set(again.samples) == set(pool.samples)


def test_the_natural_pool_looks_at_no_label() -> None:
    new = dataset([0] * 90 + [1] * 10, 2)
    pool = draw_unlabelled_pool(new, 20, seed=1, mode="natural")
    hidden = replace(new, train=tuple(Sample(sample.image, 0) for sample in new.train))
    assert draw_unlabelled_pool(hidden, 20, seed=1, mode="natural").samples == pool.samples
    assert len(pool.samples) == 40
    assert Counter(pool.true_labels)[0] > 30
    assert len(draw_unlabelled_pool(new, 1000, seed=1, mode="natural").samples) == 100


def test_the_off_class_pool_mixes_in_images_of_no_new_class() -> None:
    base, new = base_new(toy(8))
    pool = draw_unlabelled_pool(new, 10, seed=1, mode="natural+off-class", off_class=base)
    images = {sample.image: sample.label for sample in new.train}
    assert len(pool.samples) == 40
    assert all(images.get(s.image, -1) == label for s, label in zip(pool.samples, pool.true_labels, strict=True))
    assert 5 < Counter(pool.true_labels)[-1] < 35


def test_own_unlabelled_images_are_part_of_the_natural_pool() -> None:
    heap = tuple(Sample(ImageFile(Path(f"u/{number}.png")), -1) for number in range(5))
    pool = draw_unlabelled_pool(replace(toy(2), train=(), unlabelled=heap), 16, seed=1, mode="natural")
    assert set(pool.samples) == set(heap)
    assert pool.true_labels == (-1,) * 5


@pytest.mark.parametrize(
    ("mode", "off_class", "message"),
    [
        ("natral", None, "'natral' is unknown"),
        ("natural", toy(), "goes with"),
        ("natural+off-class", None, "goes with"),
    ],
)
def test_pool_errors(mode: PoolMode, off_class: Dataset | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_unlabelled_pool(toy(), 1, 1, mode, off_class)
    with pytest.raises(ValueError, match="no image to draw"):
        draw_unlabelled_pool(replace(toy(), train=()), 1, 1, "natural")
