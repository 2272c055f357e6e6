"""GDA against the official code, and its rule for new classes against the formula in float64."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from maotune.learners.gda import ALPHAS, GDA
from tests.parity.world import BASE, NEW, Rows, World, close, golden, scores, slices, tune

WORLD: Any = World()


def fitted(**settings: Any) -> GDA:
    learner = GDA(WORLD, BASE, **settings)
    tune(learner, Rows(slices(1, 40)), 1.0)
    return learner


def test_gaussians_of_the_base_classes() -> None:
    learner = fitted(alpha=10.0)
    close("gda_base", "W", learner.weight.T)
    close("gda_base", "b", learner.bias)
    close("gda_base", "precision", learner.precision)
    close("gda_base", "test_logits", scores(learner))


@pytest.mark.parametrize("index", range(7))
def test_scores_for_every_alpha(index: int) -> None:
    close("gda_base", f"val_logits{index}", scores(fitted(alpha=ALPHAS[index]), "val_raw"))


def test_leave_one_out_chooses_an_alpha_that_is_good_on_validation_images() -> None:
    learner = fitted()
    assert float(learner.alpha) in torch.tensor(ALPHAS)
    accuracy = (scores(learner).argmax(1) == golden("world")["test_labels"]).double().mean()
    assert accuracy >= 0.75, "zero-shot has 0.705, the alpha of the authors' search 0.82"


def views() -> torch.Tensor:
    return F.normalize(golden("world")["train_views_raw"].transpose(0, 1).reshape(-1, 96).double(), dim=-1)


def test_new_classes_have_gaussians_of_the_views_nearest_to_their_texts() -> None:
    learner = fitted(alpha=10.0)
    learner.bind(NEW)
    texts = golden("world")["text"][10:].double()
    precisions, means = [], []
    for text in texts:
        near = views()[(views() @ text).topk(64).indices]
        scatter = (near - text).T @ (near - text)
        precisions.append(96 * torch.linalg.inv(scatter + scatter.trace() / 63 * torch.eye(96, dtype=torch.float64)))
        means.append((near.sum(0) + 16 * text) / 80)
    weight = torch.stack(means) @ torch.stack(precisions).mean(0)
    bias = -torch.tensor(10.0).log() - (weight * torch.stack(means)).sum(1) / 2
    image = F.normalize(golden("world")["test_new_raw"].double(), dim=-1)
    expected = 100 * image @ texts.T + 10 * (image @ weight.T + bias)
    torch.testing.assert_close(scores(learner, "test_new_raw"), expected.float(), rtol=0, atol=5e-3)
    learner.bind((BASE[2], *NEW))
    assert torch.isfinite(scores(learner)).all()
    learner.bind(BASE)
    close("gda_base", "test_logits", scores(learner))


def test_covariances_of_each_class() -> None:
    learner = fitted(alpha=1.0, covariance="per-class")
    labels = golden("world")["train_labels"].repeat_interleave(10)
    covariances = [views()[labels == label].T.cov() for label in range(10)]
    means = torch.stack([views()[labels == label].mean(0) for label in range(10)])
    weight = means @ torch.linalg.inv(torch.stack(covariances).mean(0))
    torch.testing.assert_close(learner.weight.double(), weight, rtol=1e-3, atol=1e-2)


def test_one_view_of_one_image_a_class_is_enough() -> None:
    learner = GDA(WORLD, BASE)
    few = Rows(slices(1, 40), views=1)
    first = torch.tensor([int((few.labels == label).nonzero()[0]) for label in range(10)])
    few.views, few.labels = few.views[:, first], few.labels[first]
    tune(learner, few, 1.0)
    assert float(learner.alpha) == pytest.approx(1e-4), "nothing can be left out"
    accuracy = (scores(learner).argmax(1) == golden("world")["test_labels"]).double().mean()
    assert accuracy > 0.7, "zero-shot has 0.705"


def test_without_saved_views_new_classes_are_scored_as_by_zeroshot_clip() -> None:
    learner = fitted(alpha=10.0, new_classes="zero-shot")
    assert learner.state_dict().keys() == {"weight", "bias", "alpha"}
    learner.bind(NEW)
    image = F.normalize(golden("world")["test_new_raw"], dim=-1)
    torch.testing.assert_close(
        scores(learner, "test_new_raw"), 100 * image @ golden("world")["text"][10:].T, rtol=0, atol=1e-4
    )
