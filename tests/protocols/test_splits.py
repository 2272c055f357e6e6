"""Which images a protocol tunes on, and which it scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from PIL import Image

from maotune.contract import Predictors
from maotune.data.draw import few_shot as drawn_by_coop
from maotune.data.sets.dataset import Dataset, Sample
from maotune.protocols import PROTOCOLS
from maotune.protocols.protocol import Split
from tests.protocols.draws import adapt, base_to_new, cross_dataset, few_shot


@dataclass(frozen=True)
class Picture:
    name: str

    def read(self) -> Image.Image:
        return Image.new("RGB", (4, 4))

    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def pictures(split: str, counts: Sequence[int]) -> tuple[Sample, ...]:
    return tuple(
        Sample(Picture(f"{split}/{label}/{number}"), label)
        for label, count in enumerate(counts)
        for number in range(count)
    )


def dataset(train: Sequence[int] = (6, 6, 6, 6, 6)) -> Dataset:
    of = {"train": pictures("train", train), "val": pictures("val", [5] * 5), "test": pictures("test", [3] * 5)}
    return Dataset("toy", ("ant", "bee", "cow", "dog", "eel"), **of)


def contents(samples: Sequence[Sample]) -> set[str]:
    return {sample.image.digest() for sample in samples}


@pytest.mark.parametrize("pool", ["balanced", "natural", "natural+off-class"])
@pytest.mark.parametrize("split", ["test", "val", "held-out"])
def test_base_to_new_tunes_on_no_image_that_is_scored(pool: Any, split: Split) -> None:
    splits = base_to_new(dataset(), 2, 1, pool, split)
    assert (splits.classes, splits.new_classes) == (("ant", "bee", "cow"), ("dog", "eel"))
    assert splits.unlabelled is not None
    tuned = contents([*splits.shots, *splits.train, *splits.unlabelled.samples])
    for name, test in splits.tests.items():
        assert contents(test.samples).isdisjoint(tuned), name
        assert {sample.image.name.partition("/")[0] for sample in test.samples} == {
            "train" if split == "held-out" else split
        }
    if split != "held-out":
        each = {"test": 3, "val": 5}[split]
        assert {name: len(test.samples) for name, test in splits.tests.items()} == {"base": 3 * each, "new": 2 * each}
    assert all(sample.label == -1 for sample in splits.unlabelled.samples), "labels are hidden"


def test_base_to_new_draws_the_shots_of_each_class_and_a_balanced_pool() -> None:
    splits = base_to_new(dataset(), 2, 1, "balanced")
    assert sorted(sample.label for sample in splits.shots) == [0, 0, 1, 1, 2, 2]
    assert splits.unlabelled is not None
    assert sorted(splits.unlabelled.true_labels) == [0, 0, 1, 1]
    assert {sample.image.name.split("/")[1] for sample in splits.unlabelled.samples} == {"3", "4"}
    other = base_to_new(dataset(), 2, 2, "balanced")
    assert contents(other.shots) != contents(splits.shots), "the seed decides the draw"


@pytest.mark.parametrize("pool", ["balanced", "natural", "natural+off-class"])
@pytest.mark.parametrize("wanted", [1, 2, 5, 6, 32])
def test_a_large_pool_leaves_training_images_of_the_new_classes_to_score(
    pool: Any, wanted: int, caplog: pytest.LogCaptureFixture
) -> None:
    splits = base_to_new(dataset(), 2, 1, pool, "held-out", wanted)
    before = base_to_new(dataset(), 2, 1, pool, "test", wanted)
    assert splits.unlabelled is not None
    assert before.unlabelled is not None
    scored = contents(splits.tests["new"].samples)
    assert scored.isdisjoint(contents(splits.unlabelled.samples))
    new = [label for label in splits.unlabelled.true_labels if label >= 0]
    assert max(map(new.count, new)) <= 4, "2 of 6 images of a class are left"
    assert len(scored) == 12 - len(new)
    assert len(splits.tests["base"].samples) >= 6, "and of base classes, whose images may be in the pool, too"
    lost = contents(before.unlabelled.samples) - contents(splits.unlabelled.samples)
    assert ("unlabelled images are left out" in caplog.text) == bool(lost)
    if wanted == 1 or (wanted == 2 and pool == "balanced"):
        assert splits.unlabelled == before.unlabelled, "there is room for all"
    if pool == "balanced":
        assert new == [0] * min(wanted, 4) + [1] * min(wanted, 4)


def test_a_pool_of_as_many_images_as_shots_is_left_alone_where_it_leaves_less_than_a_quarter() -> None:
    splits = base_to_new(dataset(), 5, 1, "balanced", "held-out")
    assert splits.unlabelled is not None
    assert (len(splits.unlabelled.samples), len(splits.tests["new"].samples)) == (10, 2)


def test_base_to_new_needs_images_to_score() -> None:
    with pytest.raises(ValueError, match=r"toy/base has no held-out image to score: .* give fewer data\.shots"):
        base_to_new(dataset(), 6, 1, "balanced", "held-out")
    with pytest.raises(ValueError, match="toy/base has no val image"):
        base_to_new(replace(dataset(), val=()), 2, 1, "balanced", "val")


def test_adapt_tunes_on_what_is_labelled_and_recognises_all_names() -> None:
    heap = [Sample(Picture(f"heap/{number}"), -1) for number in range(7)]
    splits = adapt(replace(dataset((6, 0, 1, 6, 0)), unlabelled=heap), 2, 1)
    assert splits.classes == ("ant", "cow", "dog"), "in their order, without the two that have only a name"
    assert sorted(sample.label for sample in splits.shots) == [0, 0, 1, 2, 2], "all of a class that has fewer"
    assert splits.new_classes == ("ant", "bee", "cow", "dog", "eel")
    assert splits.unlabelled is not None
    assert len(splits.unlabelled.samples) == 7
    for name, count in {"val": 25, "test": 15}.items():
        assert splits.tests[name].classes == ("ant", "bee", "cow", "dog", "eel")
        assert len(splits.tests[name].samples) == count
    owners = {int(sample.image.name.split("/")[1]): splits.classes[sample.label] for sample in splits.shots}
    assert owners == {0: "ant", 2: "cow", 3: "dog"}, "labels count among the labelled classes"


def test_adapt_tunes_on_no_image_that_is_scored(caplog: pytest.LogCaptureFixture) -> None:
    toy = dataset()
    twice = replace(toy, train=(*toy.train, Sample(toy.test[0].image, 0)))
    heap = [Sample(sample.image, -1) for sample in (toy.val[3], toy.test[4])] + [Sample(Picture("heap/1"), -1)]
    splits = adapt(replace(twice, unlabelled=heap), 16, 1)
    assert splits.unlabelled is not None
    tuned = contents([*splits.shots, *splits.train, *splits.unlabelled.samples])
    assert tuned == contents(toy.train) | {heap[2].image.digest()}
    assert "1 labelled training images are skipped" in caplog.text
    assert "2 unlabelled images are skipped" in caplog.text


def test_adapt_without_a_heap_has_no_new_stage_to_offer() -> None:
    splits = adapt(dataset(), 2, 1)
    assert splits.unlabelled is None
    assert splits.new_classes == ()


def test_adapt_refuses_what_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="no labelled training image"):
        adapt(replace(dataset(), train=()), 2, 1)
    with pytest.raises(ValueError, match="at least 2"):
        adapt(Dataset("one", ("ant",), train=pictures("train", [3])), 2, 1)


@pytest.mark.parametrize(
    ("base", "new", "zeroshot", "chosen"),
    [
        (60.0, 70.0, 50.0, "new"),
        (70.0, 60.0, 50.0, "base"),
        (50.0, 60.0, 70.0, "zeroshot"),
        (60.0, 60.0, 50.0, "new"),
        (60.0, 60.0, 60.0, "zeroshot"),
    ],
)
def test_adapt_never_chooses_prompts_below_zeroshot_on_validation(
    base: float, new: float, zeroshot: float, chosen: str
) -> None:
    tests = {
        name: {"val": val, "test": 100 - val} for name, val in {"base": base, "new": new, "zeroshot": zeroshot}.items()
    }
    predictors = PROTOCOLS["adapt"].choose(Predictors("base", "new"), tests)
    assert predictors == Predictors(chosen, chosen), "test has no say"


def test_without_validation_images_the_last_prompts_are_used_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    accuracies = {"base": {"test": 60.0}, "new": {"test": 50.0}, "zeroshot": {"test": 70.0}}
    assert PROTOCOLS["adapt"].choose(Predictors("base", "base"), accuracies) == Predictors("new", "new")
    assert "no validation images" in caplog.text


@pytest.mark.parametrize("protocol", ["base-to-new", "cross-dataset", "few-shot"])
def test_whose_prompts_predict_is_the_business_of_the_method(protocol: str) -> None:
    method = Predictors("base", "new")
    worse = {"base": {"all": 1.0}, "new": {"all": 2.0}, "zeroshot": {"all": 9.0}}
    assert PROTOCOLS[protocol].choose(method, worse) == method


def test_base_prompts_predict_lists_of_base_classes_alone() -> None:
    method = Predictors("base", "new")
    assert [method.of(classes, ("ant", "bee")) for classes in (["bee"], ["bee", "ant"], ["ant", "cow"], ["cow"])] == [
        *("base", "base"),
        *("new", "new"),
    ]


def test_h_is_the_harmonic_mean_of_base_and_new() -> None:
    assert PROTOCOLS["base-to-new"].means(base_to_new(dataset(), 2, 1, "balanced"), {"base": 80.0, "new": 40.0}) == {
        "base": 80.0,
        "new": 40.0,
        "h": pytest.approx(2 * 80 * 40 / 120),
    }


@pytest.mark.parametrize("each", [1, 4, 9])
def test_the_number_of_unlabelled_images_of_a_class_is_a_setting_of_its_own(each: int) -> None:
    splits = base_to_new(dataset(), 2, 1, "balanced", unlabelled_shots=each)
    assert splits.unlabelled is not None
    assert sorted(splits.unlabelled.true_labels) == [0] * min(each, 6) + [1] * min(each, 6), (
        "all, where there are fewer"
    )
    assert splits.shots == base_to_new(dataset(), 2, 1, "balanced").shots
    same = base_to_new(dataset(), 2, 1, "balanced", unlabelled_shots=2)
    assert same.unlabelled == base_to_new(dataset(), 2, 1, "balanced").unlabelled
    natural = base_to_new(dataset(), 2, 1, "natural", unlabelled_shots=each).unlabelled
    assert natural is not None
    assert len(natural.samples) == min(each * 2, 12)


@pytest.mark.parametrize("split", ["test", "val", "held-out"])
def test_few_shot_tunes_and_scores_all_classes(split: Split) -> None:
    splits = few_shot(dataset(), 2, 1, split)
    assert (splits.classes, splits.new_classes, splits.new_stage) == (dataset().classes, (), False)
    assert splits.shots == drawn_by_coop(dataset(), 2, 1).train
    test = splits.tests["all"]
    assert test.classes == dataset().classes
    assert contents(test.samples).isdisjoint(contents([*splits.shots, *splits.train]))
    assert len(test.samples) == {"test": 15, "val": 25, "held-out": 20}[split]


def named(name: str, classes: Sequence[str], **changes: Any) -> Dataset:
    """A data set of pictures of its own."""
    splits = {
        split: tuple(Sample(Picture(f"{name}/{s.image.name}"), s.label) for s in pictures(split, [4] * len(classes)))
        for split in ("train", "val", "test")
    }
    return Dataset(name, tuple(classes), **splits, templates=(f"a {name} of a {{}}.",), **changes)


SOURCE = named("photo", ["ant", "bee", "cow"])
TARGETS = [named("sketch", ["cow", "ant"]), named("car", ["bus", "van"]), named("pet", ["cat", "cow", "dog"])]


@pytest.mark.parametrize("split", ["test", "val", "held-out"])
def test_cross_dataset_tunes_on_the_source_alone_and_scores_every_set_among_its_own_classes(split: Split) -> None:
    splits = cross_dataset(SOURCE, TARGETS, 2, 1, split)
    assert (splits.name, splits.classes, splits.new_stage) == ("photo", ("ant", "bee", "cow"), False)
    assert splits.shots == drawn_by_coop(SOURCE, 2, 1).train
    assert splits.new_classes == ()
    for data, (name, test) in zip([SOURCE, *TARGETS], splits.tests.items(), strict=True):
        assert (name, test.classes, test.templates) == (data.name, data.classes, data.templates)
        left = {"test": data.test, "val": data.val, "held-out": [s for s in data.train if s not in splits.shots]}
        assert contents(test.samples) == contents(left[split])
        assert contents(test.samples).isdisjoint(contents([*splits.shots, *splits.train]))
    by_test = {name: Predictors("base", "new").of(test.classes, splits.classes) for name, test in splits.tests.items()}
    assert by_test == {"photo": "base", "sketch": "base", "car": "new", "pet": "new"}


def test_the_average_is_over_the_targets_without_those_that_show_the_classes_of_the_source() -> None:
    accuracy = {"photo": 90.0, "sketch": 10.0, "car": 40.0, "pet": 60.0}
    protocol = PROTOCOLS["cross-dataset"]
    assert protocol.means(cross_dataset(SOURCE, TARGETS, 2, 1), accuracy) == {
        **accuracy,
        "average": 50.0,
    }
    shifted = cross_dataset(SOURCE, TARGETS[:1], 2, 1)
    assert protocol.means(shifted, {"photo": 90.0, "sketch": 10.0}) == {"photo": 90.0, "sketch": 10.0}


def test_cross_dataset_needs_targets_that_can_be_told_apart() -> None:
    with pytest.raises(ValueError, match="no data set to score beside photo"):
        cross_dataset(SOURCE, [], 2, 1)
    with pytest.raises(ValueError, match="photo is there twice"):
        cross_dataset(SOURCE, [SOURCE], 2, 1)
    with pytest.raises(ValueError, match="car has no val image"):
        cross_dataset(SOURCE, [replace(TARGETS[1], val=())], 2, 1, "val")
