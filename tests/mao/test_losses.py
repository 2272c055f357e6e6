"""Losses of pseudo-labels against their definitions."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from maotune.mao.losses import Loss, pseudo_label_loss

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
DEFINITIONS = {
    "cross-entropy": lambda q: -math.log(q),
    "gce": lambda q: (1 - q**0.7) / 0.7,
    "mae": lambda q: 1 - q,
}


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("sets", [False, True])
def test_of_one_class_by_number_and_by_row(loss: Loss, sets: bool) -> None:
    q = LOGITS.double().softmax(1)
    expected = sum(DEFINITIONS[loss](float(q[i, c])) for i, c in enumerate(LABELS.tolist())) / len(LABELS)
    classify = pseudo_label_loss(loss, sets=sets)
    assert float(classify(LOGITS, LABELS)) == pytest.approx(expected, abs=1e-6)
    assert float(classify(LOGITS, F.one_hot(LABELS, 4).float())) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_of_sets_and_of_probabilities(loss: Loss) -> None:
    q, penalty = LOGITS.double().softmax(1), DEFINITIONS[loss]
    rows = torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0, 0.25, 0.25, 0.5]])
    sets = sum(penalty(float(q[i][rows[i] > 0].sum())) for i in range(3)) / 3
    soft = sum(float(rows[i, c]) * penalty(float(q[i, c])) for i in range(3) for c in range(4)) / 3
    assert float(pseudo_label_loss(loss, sets=True)(LOGITS[:3], rows)) == pytest.approx(sets, abs=1e-6)
    assert float(pseudo_label_loss(loss)(LOGITS[:3], rows)) == pytest.approx(soft, abs=1e-6)


def test_gradients_are_finite_where_a_class_is_impossible() -> None:
    for loss in get_args(Loss):
        logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
        pseudo_label_loss(loss, sets=True)(logits, torch.tensor([[0.0, 0.5, 0.5]])).backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())
