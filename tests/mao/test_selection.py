"""Which images of a labelled pool are learned from, and by which labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.mao.pseudo_labels import PseudoLabels
from maotune.mao.selection import candidate_sets, filled_lists, growing_length, select
from maotune.mao.settings import MaoSettings

LAW = settings(deadline=None, max_examples=60)


def chances(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return (2 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))).softmax(dim=1)


def predicted(probabilities: torch.Tensor) -> PseudoLabels:
    confidence, labels = probabilities.max(dim=1)
    classes = tuple(f"class {number}" for number in range(probabilities.shape[1]))
    return PseudoLabels(labels, confidence, classes, tuple(map(str, range(len(labels)))), probabilities)


@LAW
@given(st.integers(1, 30), st.integers(2, 6), st.integers(1, 6), st.integers(0, 99))
def test_lists_are_filled_from_the_most_probable_pair_down(count: int, classes: int, length: int, seed: int) -> None:
    probabilities = chances(count, classes, seed)
    expected, sizes = [-1] * count, [0] * classes
    pairs = [(float(probabilities[i, c]), i, c) for i in range(count) for c in range(classes)]
    for _, image, label in sorted(pairs, reverse=True):
        if expected[image] < 0 and sizes[label] < length:
            expected[image], sizes[label] = label, sizes[label] + 1
    assert filled_lists(probabilities, length).tolist() == expected


def test_every_class_has_images_where_most_look_like_one() -> None:
    probabilities = chances(40, 4) * torch.tensor([1e6, 1, 1, 1])
    assert bool((probabilities.argmax(1) == 0).all())
    lists = filled_lists(probabilities, 5)
    assert lists[lists >= 0].bincount(minlength=4).tolist() == [5, 5, 5, 5]


def test_equal_probabilities_end() -> None:
    assert filled_lists(torch.full((7, 3), 1 / 3), 2).sort().values.tolist() == [-1, 0, 0, 1, 1, 2, 2]


@LAW
@given(st.integers(2, 30), st.integers(2, 7), st.integers(0, 99))
def test_candidate_sets_are_those_of_the_definition(count: int, classes: int, seed: int) -> None:
    p = chances(count, classes, seed).double()
    highest = sorted(float(row.max()) for row in p)
    enough = highest[int(0.6 * (count - 1) + 1e-9)]
    expected = torch.zeros_like(p)
    for i in range(count):
        total = 0.0
        for c in p[i].argsort(descending=True).tolist():
            if total > enough:
                break
            total += float(p[i, c])
            of_class = sorted(p[:, c].tolist())
            if p[i, c] >= of_class[int((1 - 2 / classes) * (count - 1) + 1e-9)]:
                expected[i, c] = 1
    sets = candidate_sets(p)
    torch.testing.assert_close((sets > 0).double(), expected)
    sums = sets.sum(1)
    assert bool(((sums - 1).abs() < 1e-9).logical_or(sums == 0).all())


def test_soft_labels_and_sets_of_chosen_images() -> None:
    p = chances(60, 5)
    soft = select(predicted(p), MaoSettings(labels="soft", keep="top", top_per_class=3))
    assert soft.labels.shape == (len(soft.images), 5)
    assert torch.equal(soft.labels, p[soft.images])
    hard = select(predicted(p), MaoSettings(top_per_class=3))
    assert torch.equal(hard.images, soft.images)
    assert torch.equal(hard.labels, p.argmax(1)[hard.images])
    sets = select(predicted(p), MaoSettings(labels="candidates"))
    assert torch.equal(sets.labels, candidate_sets(p)[sets.images])
    truth = p.argmax(1)
    assert hard.accuracy(truth) == soft.accuracy(truth) == 1
    assert hard.accuracy(torch.full((60,), -1)) is None


def test_images_without_a_candidate_are_left_out() -> None:
    sure = torch.linspace(0.9, 0.99, 61)[:, None]
    p = torch.cat([sure, ((1 - sure) / 9).expand(-1, 9)], dim=1)
    sets = select(predicted(p), MaoSettings(labels="candidates"))
    assert [image for image in range(61) if image not in sets.images.tolist()] == [*range(13, 48)], "in no top 2/10"
    assert bool((sets.labels > 0).any(1).all())


def test_lists_grow() -> None:
    p = chances(60, 5)
    grown = [select(predicted(p), MaoSettings(keep="growing"), share / 4) for share in (1, 2, 4)]
    assert [len(each.images) for each in grown] == [15, 30, 60]
    assert grown[0].labels.bincount().tolist() == [3] * 5
    assert growing_length(0.3, 10, 1) == 3
    assert growing_length(0.01, 10, 5) == 1


def test_probabilities_that_were_not_kept_are_missed() -> None:
    without = PseudoLabels(torch.zeros(1, dtype=torch.int64), torch.ones(1), ("a", "b"), ("0",))
    with pytest.raises(ValueError, match="saved without the probabilities"):
        select(without, MaoSettings(labels="soft"))
