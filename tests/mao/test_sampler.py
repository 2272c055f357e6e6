"""MAO's samplers."""

from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.mao.neighbours import nearest_classes
from maotune.mao.sampler import Fill, HardNegativeSampler, RandomCandidateSampler, mean_candidates, table_width

FILLS = get_args(Fill)
LAW = settings(deadline=None, max_examples=50)


def embedded(classes: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(classes, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def sampler(classes=40, per_class=5, b=4, k=8, fill: Fill = "repeat", seed=1, views=3, **more) -> HardNegativeSampler:
    labels = torch.arange(classes).repeat_interleave(per_class)
    table = nearest_classes(*[embedded(classes, 0)] * 2, table_width(classes, b, k, fill))  # type: ignore[call-arg]
    return HardNegativeSampler(labels, table, b=b, k=k, views=views, seed=seed, fill=fill, **more)


@LAW
@given(
    classes=st.integers(3, 60),
    per_class=st.integers(1, 4),
    b=st.integers(1, 6),
    k=st.integers(1, 9),
    fill=st.sampled_from(FILLS),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 20),
)
def test_laws_of_a_batch(classes, per_class, b, k, fill, seed, epoch):
    drawn = sampler(classes, per_class, b, k, fill, seed)
    batches = drawn.epoch(epoch)
    assert len(batches) == len(drawn) == max(1, classes * per_class // b)
    assert batches == sampler(classes, per_class, b, k, fill, seed).epoch(epoch), "a function of seed and epoch"
    labels, table, b = drawn.labels, drawn.table, drawn.b
    for batch in batches:
        images = np.array([image for image, _ in batch])
        held = Counter(labels[images].tolist())
        queries = Counter(labels[images[:b]].tolist())
        near = Counter(table[labels[images[:b]], :k].ravel().tolist())
        assert all(0 <= view < 3 for _, view in batch)
        if fill == "repeat":
            assert held == near, "the lists of the queries, no more and no less"
        elif fill == "distinct":
            assert len(batch) == min(b * k, classes + b - len(queries)), "filled up"
            assert all(held[name] == max(1, queries[name]) for name in held), "all queries, others once"
        else:
            assert held == Counter({name: max(1, queries[name]) for name in near}), "one of each, and all queries"


@LAW
@given(fill=st.sampled_from(FILLS), per_class=st.integers(1, 6), b=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_class_that_occurs_again_brings_another_image_while_it_has_one(fill, per_class, b, seed):
    drawn = sampler(12, per_class, b, 8, fill, seed)
    for batch in drawn.epoch(0):
        images = [image for image, _ in batch]
        held = Counter(drawn.labels[images].tolist())
        different = Counter(drawn.labels[sorted(set(images))].tolist())
        assert different == Counter({name: min(count, per_class) for name, count in held.items()})


@pytest.mark.parametrize("fill", FILLS)
def test_two_queries_of_a_class_are_both_in_the_batch(fill):
    drawn = sampler(4, 5, b=4, k=2, fill=fill)
    together = 0
    for epoch in range(3):
        shown = [image for batch in drawn.epoch(epoch) for image, _ in batch[:4]]
        assert sorted(shown) == list(range(20)), "an epoch uses every query image once"
        together += sum(len(set(drawn.labels[[image for image, _ in batch[:4]]])) < 4 for batch in drawn.epoch(epoch))
    assert together


@LAW
@given(seed=st.integers(0, 99), k=st.integers(1, 9))
def test_a_filled_batch_takes_the_nearest_of_all_queries_before_their_next_nearest(seed, k):
    drawn = sampler(per_class=1, k=k, seed=seed, fill="distinct")  # all queries of a batch are of different classes
    order = nearest_classes(*[embedded(40, 0)] * 2, 40).tolist()  # type: ignore[call-arg]
    for batch in drawn.epoch(0):
        held = drawn.labels[[image for image, _ in batch]].tolist()
        rank = {c: min(order[query].index(c) for query in held[:4]) for c in range(40)}
        farthest = max(rank[c] for c in held)
        assert {c for c in rank if rank[c] < max(k, farthest)} <= set(held)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("classes", "b", "k"), [(40, 4, 8), (12, 5, 3), (6, 4, 8), (9, 1, 1)])
def test_the_mean_number_of_candidates_is_that_of_the_batches(fill, classes, b, k):
    sizes = np.random.default_rng(0).integers(1, 7, classes)
    labels = torch.arange(classes).repeat_interleave(torch.from_numpy(sizes))
    table = nearest_classes(*[embedded(classes, 0)] * 2, table_width(classes, b, k, fill))  # type: ignore[call-arg]
    drawn = HardNegativeSampler(labels, table, b=b, k=k, views=1, seed=0, fill=fill)
    batches = [batch for epoch in range(300) for batch in drawn.epoch(epoch)]
    counted = [len(set(drawn.labels[[image for image, _ in batch]])) for batch in batches]
    expected = mean_candidates(sizes.tolist(), table, b=b, k=k, fill=fill)
    assert expected == pytest.approx(np.mean(counted), abs=0.05 if classes > 9 else 0.03)


def test_an_epoch_takes_every_query_once_in_the_view_of_the_epoch():
    drawn = sampler(fill="short")
    for epoch in range(4):
        queries = [draw for batch in drawn.epoch(epoch) for draw in batch[:4]]
        assert sorted(queries) == [(image, epoch % 3) for image in range(200)]
    assert drawn.epoch(0) != drawn.epoch(3)


def test_images_of_other_classes_are_drawn_evenly_from_all_their_images_and_views():
    drawn = sampler(fill="short")
    others = [draw for epoch in range(60) for batch in drawn.epoch(epoch) for draw in batch[4:]]
    images = np.bincount([image for image, _ in others], minlength=200).reshape(40, 5)
    views = np.bincount([view for _, view in others])
    assert (images.std(axis=1) / images.mean(axis=1)).mean() < 0.1
    assert views.std() / views.mean() < 0.02


def test_queries_may_be_few_of_many_images_and_classes_without_an_image_are_passed_over():
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 1, 1])  # classes 8 to 19 have none
    table = nearest_classes(*[embedded(20, 0)] * 2, 20)  # type: ignore[call-arg]
    drawn = HardNegativeSampler(labels, table, b=2, k=4, views=1, seed=0, fill="distinct", queries=[0, 1, 2, 3])
    batches = [batch for epoch in range(50) for batch in drawn.epoch(epoch)]
    assert {image for batch in batches for image, _ in batch[:2]} == {0, 1, 2, 3}
    assert {image for batch in batches for image, _ in batch} == set(range(10))


@pytest.mark.parametrize("change", [{"b": 0}, {"k": 0}, {"views": 0}, {"per_class": 0}])
def test_numbers_below_1_are_refused(change):
    with pytest.raises(ValueError, match="1 or more are needed"):
        sampler(**change)


@pytest.mark.parametrize(("fill", "width"), [("repeat", 8), ("distinct", 32), ("short", 8)])
def test_too_narrow_a_table_is_refused_and_the_right_width_named(fill, width):
    table = torch.zeros(50, width - 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"hard_negatives\(names, {width}\)"):
        HardNegativeSampler(torch.arange(50), table, b=4, k=8, views=1, seed=0, fill=fill)


@pytest.mark.parametrize("fill", FILLS)
def test_the_random_control_has_the_same_queries_and_sizes_but_other_classes(fill):
    hard = sampler(fill=fill)
    control = RandomCandidateSampler(hard)
    assert len(control) == len(hard)
    counts = np.zeros(40)
    for epoch in range(10):
        for ours, theirs in zip(control.epoch(epoch), hard.epoch(epoch), strict=True):
            held, near = (hard.labels[[image for image, _ in batch]].tolist() for batch in (ours, theirs))
            assert ours[:4] == theirs[:4]
            assert sorted(Counter(held).values()) == sorted(Counter(near).values()), "as many images of as many classes"
            counts += np.bincount([name for name in held[4:] if name not in held[:4]], minlength=40)
    assert counts.std() / counts.mean() < 0.1, "any class, equally often"
    assert control.epoch(2) == RandomCandidateSampler(sampler(fill=fill)).epoch(2)


def test_an_epoch_reads_the_rows_of_its_queries_only():
    table = (torch.arange(50_000)[:, None] + torch.arange(32)) % 50_000
    drawn = HardNegativeSampler(torch.arange(100), table, b=4, k=8, views=1, seed=0)
    expected = drawn.epoch(0)
    drawn.table = drawn.table[:100]
    assert drawn.epoch(0) == expected
