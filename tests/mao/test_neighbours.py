"""Embeddings of class names, and the table of hard negatives."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.files import read_tensors, write_tensors
from maotune.mao.name_encoder import find_encoder
from maotune.mao.neighbours import hard_negatives, nearest_classes

LAW = settings(deadline=None, max_examples=50)
FLOWERS = ["rose", "tiger lily", "fire lily", "sunflower", "moon_orchid", "corn poppy", "moon orchid", "water lily"]


def embedded(classes: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(classes, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_names_that_mean_alike_are_neighbours_and_a_class_is_its_own_first():
    table = hard_negatives(FLOWERS, 3)
    assert table.shape == (8, 3)
    assert table[:, 0].tolist() == list(range(8))
    assert set(table[1].tolist()) == {1, 2, 7}, "the lilies"
    assert table[4, 1] == 6
    assert table[6, 1] == 4, "an underscore is a space"


def test_more_neighbours_than_classes_are_all_classes():
    assert hard_negatives(FLOWERS[:3], 8).sort().values.tolist() == [[0, 1, 2]] * 3


def test_the_released_reading_of_underscores_parts_equal_names():
    assert hard_negatives(FLOWERS, 2)[4, 1] == 6
    similarity = find_encoder().encode(["moon orchid"]) @ find_encoder().encode(FLOWERS).T
    assert similarity[0, 4] < 0.99 < similarity[0, 6]
    assert hard_negatives(FLOWERS, 8, underscores="query-only").tolist() != hard_negatives(FLOWERS, 8).tolist()


def test_the_table_is_kept_by_content(tmp_path):
    table = hard_negatives(FLOWERS, 4, cache=tmp_path / "tables")
    (kept,) = (tmp_path / "tables").iterdir()
    content = read_tensors(kept)
    assert torch.equal(content.tensors["table"], table)
    swapped = torch.cat([table[:, :1], table[:, 1:].flip(1)], 1)  # shows that it is read, not made again
    write_tensors(kept, {"table": swapped}, content.texts)
    assert torch.equal(hard_negatives(FLOWERS, 4, cache=tmp_path / "tables"), swapped)
    assert hard_negatives(FLOWERS[::-1], 4, cache=tmp_path / "tables").tolist() != swapped.tolist()
    assert hard_negatives(FLOWERS, 3, cache=tmp_path / "tables").shape == (8, 3)


@pytest.mark.parametrize(("names", "k", "message"), [([], 3, "no class names"), (["rose"], 0, "k is 0")])
def test_a_table_of_nothing_is_refused(names, k, message):
    with pytest.raises(ValueError, match=message):
        hard_negatives(names, k)


@LAW
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 9), st.randoms(use_true_random=False))
def test_permuted_classes_permute_the_table(classes, k, seed, random):
    embedding = embedded(classes, seed)
    order = torch.tensor(random.sample(range(classes), classes))
    permuted = nearest_classes(embedding[order], embedding[order], k)
    assert torch.equal(order[permuted], nearest_classes(embedding, embedding, k)[order])


def test_the_table_is_a_stable_sort_of_the_similarities_also_across_blocks_of_rows():
    embedding = embedded(2600, 3)[torch.arange(2600) // 2]  # pairs of equal classes; two blocks of rows
    similarity = F.normalize(embedding.double(), dim=-1) @ F.normalize(embedding.double(), dim=-1).T
    similarity.fill_diagonal_(2)
    expected = similarity.mul(1e9).round().argsort(dim=-1, descending=True, stable=True)[:, :6]
    assert torch.equal(nearest_classes(embedding, embedding, 6), expected)
