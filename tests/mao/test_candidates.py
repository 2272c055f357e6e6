import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from maotune.mao.candidates import candidate_cross_entropy, per_image_cross_entropy

LAW = settings(deadline=None, max_examples=50)
LABELS = st.lists(st.integers(0, 11), min_size=1, max_size=10).map(torch.tensor)


def scores(labels: torch.Tensor) -> torch.Tensor:
    return 5 * torch.randn(len(labels), 12, generator=torch.Generator().manual_seed(len(labels)))


@LAW
@given(LABELS)
def test_it_is_the_cross_entropy_with_the_other_classes_impossible(labels):
    logits = scores(labels)
    absent = torch.ones(12, dtype=torch.bool)
    absent[labels] = False
    expected = F.cross_entropy(logits.masked_fill(absent, -torch.inf), labels)
    torch.testing.assert_close(candidate_cross_entropy(logits, labels), expected)


@LAW
@given(LABELS)
def test_a_learner_may_score_the_candidates_alone(labels):
    logits = scores(labels).requires_grad_()
    candidates, positions = torch.unique(labels, return_inverse=True)
    for loss in (candidate_cross_entropy, per_image_cross_entropy):
        everything, restricted = loss(logits, labels), loss(logits[:, candidates], positions)
        assert torch.equal(everything, restricted)
        whole, part = (torch.autograd.grad(value, logits)[0] for value in (everything, restricted))
        assert torch.equal(whole, part)
        assert not whole[:, [c for c in range(12) if c not in labels]].any()


@LAW
@given(st.permutations(range(12)))
def test_over_all_classes_it_is_the_plain_cross_entropy(order):
    labels = torch.tensor(order)
    torch.testing.assert_close(candidate_cross_entropy(scores(labels), labels), F.cross_entropy(scores(labels), labels))
    torch.testing.assert_close(per_image_cross_entropy(scores(labels), labels), F.cross_entropy(scores(labels), labels))


@LAW
@given(LABELS)
def test_classes_may_be_renumbered(labels):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(int(labels.sum())))
    renumbered = order.argsort()[labels]
    torch.testing.assert_close(
        candidate_cross_entropy(scores(labels), labels), candidate_cross_entropy(scores(labels)[:, order], renumbered)
    )


@LAW
@given(LABELS)
def test_the_released_way_is_never_below_and_differs_only_by_duplicates(labels):
    paper, released = (loss(scores(labels), labels) for loss in (candidate_cross_entropy, per_image_cross_entropy))
    if len(labels.unique()) == len(labels):
        torch.testing.assert_close(paper, released)
    else:
        assert released > paper


def test_one_image_alone_has_nothing_to_be_told_from():
    logits = torch.randn(1, 12, requires_grad=True)
    loss = candidate_cross_entropy(logits, torch.tensor([4]))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [candidate_cross_entropy, per_image_cross_entropy])
def test_soft_labels_are_refused(loss):
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and type torch.float32.*one class per image.*hard-full"):
        loss(torch.zeros(2, 3), torch.full((2, 3), 1 / 3))


def test_a_label_outside_the_classes_is_an_error():
    with pytest.raises(IndexError):
        candidate_cross_entropy(torch.zeros(1, 3), torch.tensor([3]))
