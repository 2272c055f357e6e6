"""What a run draws and scores is read, and nothing else; what cannot be read is replaced and listed."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from maotune.data.sets.dataset import Dataset, Sample, UnreadableImage
from maotune.protocols.protocol import Split, Splits
from maotune.recipe import load_recipe
from maotune.runs.build import build_splits, load_readable
from maotune.runs.readable import draw_readable
from tests.protocols.draws import adapt, base_to_new
from tests.toys import paint_photos


@dataclass(frozen=True)
class Picture:
    """Counts how often it is read; broken where its name says so."""

    name: str
    reads: "Counter[str]" = field(repr=False, compare=False)

    def read(self) -> Image.Image:
        self.reads[self.name] += 1
        if "broken" in self.name:
            raise UnreadableImage(f"{self.name}: broken", "broken")
        return Image.new("RGB", (4, 4))

    def digest(self) -> str:
        if "gone" in self.name:
            raise UnreadableImage(f"{self.name}: gone", "missing")
        return hashlib.sha256(self.name.encode()).hexdigest()


CLASSES = ("ant", "bee", "cow", "dog")


def dataset(reads: "Counter[str]", broken: Sequence[str] = (), train: int = 12) -> Dataset:
    def pictures(split: str, count: int) -> tuple[Sample, ...]:
        names = [(f"{split}/{label}/{number}", label) for label in range(4) for number in range(count)]
        return tuple(Sample(Picture(f"{n} broken" if n in broken else n, reads), label) for n, label in names)

    return Dataset("toy", CLASSES, pictures("train", train), pictures("val", 3), pictures("test", 5))


def drawn(toy: Dataset, split: Split = "test", **options: bool) -> tuple[Splits, list[str]]:
    def draw(datasets: Sequence[Dataset]) -> Splits:
        return base_to_new(datasets[0], 2, 1, "balanced", split)

    splits, skipped, _ = draw_readable(draw, [toy], **{"strict": False, "whole_train": False} | options)
    return splits, [image.name for image in skipped]


def test_the_first_draw_stands_and_nothing_else_is_read() -> None:
    reads: Counter[str] = Counter()
    toy = dataset(reads)
    splits, skipped = drawn(toy)
    assert skipped == []
    assert splits.shots == base_to_new(toy, 2, 1, "balanced").shots
    assert set(reads.values()) == {1}
    assert Counter(name.partition("/")[0] for name in reads) == {"train": 2 * 4, "test": 5 * 4}


def test_the_whole_training_split_is_read_where_it_is_used_or_scored() -> None:
    reads: Counter[str] = Counter()
    drawn(dataset(reads), whole_train=True)
    assert Counter(name.partition("/")[0] for name in reads) == {"train": 12 * 2 + 2 * 2, "test": 20}
    reads.clear()
    drawn(dataset(reads), "held-out")
    assert Counter(name.partition("/")[0] for name in reads) == {"train": 48}


def test_what_cannot_be_read_is_replaced_and_listed_once() -> None:
    reads: Counter[str] = Counter()
    whole, _ = drawn(dataset(reads))
    assert whole.unlabelled is not None
    victims = [whole.shots[0], whole.shots[3], whole.unlabelled.samples[0], whole.tests["new"].samples[1]]
    names = [victim.image.name for victim in victims]
    reads.clear()
    toy = dataset(reads, names)
    splits, skipped = drawn(toy)
    assert len(skipped) == len({*skipped})
    assert {*skipped} >= {f"{name} broken" for name in names}
    assert all("broken" in name for name in skipped)
    assert set(reads.values()) == {1}, "no image is read twice, however often it is drawn"
    assert Counter(sample.label for sample in splits.shots) == {0: 2, 1: 2}
    left = replace(toy, train=tuple(s for s in toy.train if s.image.name not in skipped))
    assert splits.shots == base_to_new(left, 2, 1, "balanced").shots, "the draw of the data set without them"
    used = [*splits.shots, *(s for test in splits.tests.values() for s in test.samples)]
    assert not any("broken" in sample.image.name for sample in used)
    assert len(splits.tests["new"].samples) == 9


def test_what_is_not_drawn_is_not_complained_of() -> None:
    reads: Counter[str] = Counter()
    whole, _ = drawn(dataset(reads))
    assert whole.unlabelled is not None
    tuned = {sample.image.name for sample in (*whole.shots, *whole.unlabelled.samples)}
    other = next(f"train/0/{number}" for number in range(12) if f"train/0/{number}" not in tuned)
    reads.clear()
    splits, skipped = drawn(dataset(reads, [other]), strict=True)
    assert skipped == []
    assert f"{other} broken" not in reads
    assert [s.image.name for s in splits.shots] == [s.image.name for s in whole.shots]


def test_strict_stops_at_one_that_is_needed() -> None:
    with pytest.raises(UnreadableImage, match="1 of 28 images cannot be used"):
        drawn(dataset(Counter(), ["test/3/0"]), strict=True)


def test_a_class_of_which_nothing_can_be_read_is_named() -> None:
    broken = [f"train/2/{number}" for number in range(12)]
    with pytest.raises(ValueError, match="no training image of the class 'cow' can be read: 2 broken"):
        drawn(dataset(Counter(), broken))


def test_adapt_finds_what_is_missing_when_it_is_read() -> None:
    """Own pictures are compared by content before they are drawn: one that is not there has none."""
    reads: Counter[str] = Counter()
    heap = tuple(Sample(Picture(name, reads), -1) for name in ("heap/1", "heap/2 gone broken", "test/0/0"))
    toy = replace(dataset(reads, ["val/1/1"]), unlabelled=heap)
    splits, skipped, _ = draw_readable(lambda sets: adapt(sets[0], 2, 1), [toy], strict=False, whole_train=False)
    assert {item.name: item.kind for item in skipped} == {
        "heap/2 gone broken": "broken",
        "val/1/1 broken": "broken",
        "test/0/0": "also scored",
    }
    assert splits.unlabelled is not None
    assert [sample.image.name for sample in splits.unlabelled.samples] == ["heap/1"]
    assert len(splits.tests["val"].samples) == 11


def test_of_a_recipe(tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    (photos / "test" / "sun" / "cut.png").write_bytes(b"\x89PNG")
    (photos / "val" / "sun" / "cut.png").write_bytes(b"\x89PNG\r")
    (tmp_path / "heap" / "cut.png").write_bytes(b"\x89PNG\r\n")
    given = {"data.source": str(photos), "data.unlabelled": str(tmp_path / "heap")}
    splits, skipped, _ = build_splits(load_recipe(None, given))
    assert [Path(image.name).parent.name for image in skipped] == ["heap", "sun", "sun"]
    assert {name: len(test.samples) for name, test in splits.tests.items()} == {"val": 8, "test": 8}
    assert splits.unlabelled is not None
    assert len(splits.unlabelled.samples) == 8
    of_test = load_readable(load_recipe(None, given), "test")
    assert (len(of_test.test), len(of_test.val)) == (8, 9), "only the split that is scored is read"
    with pytest.raises(UnreadableImage, match="cannot be used"):
        build_splits(load_recipe(None, {**given, "data.strict": True}))
