"""Labelers against the official code, on the made-up world of features."""

import pytest
import torch
import torch.nn.functional as F

from maotune.mao import labelers
from tests.parity.world import close, golden


def pool(name: str = "pool") -> tuple[torch.Tensor, torch.Tensor, float]:
    return F.normalize(golden("world")[f"{name}_raw"], dim=-1), golden("world")["text"][:10], 100.0


def test_transclip() -> None:
    close("transclip_zs", "z", labelers.transclip(*pool()))


def test_stata() -> None:
    close("stata", "z", labelers.stata(*pool()))


def test_zlap() -> None:
    images, text, _ = pool()
    close("zlap", "scores", labelers.zlap_scores(images, text))


def test_sinkhorn() -> None:
    close("inmap", "plabel_sinkhorn", labelers.sinkhorn(*pool()))
    close("inmap", "plabel_sinkhorn_gamma05", labelers.sinkhorn(*pool(), gamma=0.5))


@pytest.mark.parametrize("name", labelers.LABELERS)
def test_rows_are_probabilities_also_for_few_images_of_few_classes(name: str) -> None:
    images, text, scale = pool("ragged")
    for count in (60, 2, 1):
        z = labelers.LABELERS[name](images[:count], text, scale)
        assert z.shape == (count, 10)
        torch.testing.assert_close(z.sum(1), torch.ones(count), rtol=0, atol=1e-4)
        assert bool((z >= 0).all())


def test_stata_does_no_harm_where_few_classes_are_present() -> None:
    images, text, scale = pool("ragged")
    truth = golden("world")["ragged_labels"]
    accuracy = {
        name: float((labeler(images, text, scale).argmax(1) == truth).double().mean())
        for name, labeler in labelers.LABELERS.items()
    }
    assert accuracy["stata"] >= accuracy["foundation"] - 0.005
    assert accuracy["stata"] > accuracy["sinkhorn"], "which spreads the images evenly over all classes"


def slow_transclip(shots: labelers.Shots | None) -> torch.Tensor:
    """TransCLIP as its formulas are written, in float64 with differences of N x C x d."""
    images, text, scale = pool()
    images, text = images.double(), text.double()
    assert shots is not None
    count, width = images.shape
    labelled, labels = shots.images.double(), shots.labels.double()
    y = (scale * images @ text.T).softmax(1)
    rows = torch.cat([images, labelled])
    graph = torch.zeros(len(rows), count, dtype=torch.float64)
    for row, feature in enumerate(rows):
        similar = (images @ feature).sort(descending=True)
        for neighbour, cosine in zip(similar.indices[1:4], similar.values[1:4], strict=True):
            graph[row, neighbour] = cosine
    z, mean, variance = y, F.normalize(labels.T @ labelled, dim=1), torch.full((width,), 1 / width)
    weight = 50 * shots.strength / len(labelled)
    for round_ in range(11):
        density = -0.5 * ((images[:, None] - mean).square() / variance).sum(2) / 50
        for _ in range(5):
            z = (0.5 * y.log() + density + (graph[:count] @ z + graph.T @ torch.cat([z, labels])) / 6).softmax(1)
        if round_ < 10:
            mean = F.normalize(z.T @ images / count + weight * labels.T @ labelled, dim=1)
            spread = (z[..., None] * (images[:, None] - mean).square()).sum((0, 1)) / count
            spread += weight * (labels[..., None] * (labelled[:, None] - mean).square()).sum((0, 1))
            variance = spread / (z.sum() / count + weight * labels.sum())
    return z


@pytest.mark.parametrize("strength", [0.002, 0.2])
def test_transclip_with_shots_as_anchors(strength: float) -> None:
    world = golden("world")
    shots = labelers.Shots(world["train"], F.one_hot(world["train_labels"], 10).float(), strength)
    z = labelers.transclip(*pool(), shots=shots)
    torch.testing.assert_close(z.double(), slow_transclip(shots), rtol=0, atol=2e-4)
    accuracy = float((z.argmax(1) == world["pool_labels"]).double().mean())
    assert accuracy == pytest.approx({0.002: 229 / 300, 0.2: 237 / 300}[strength]), "the official code, rows aligned"


def test_zlap_of_images_that_are_not_in_the_graph() -> None:
    images, text, _ = pool()
    close("zlap", "inductive_test", labelers.zlap_inductive(golden("world")["test"], images, text))
    close("zlap", "sparse_inductive_test", labelers.zlap_inductive(golden("world")["test"], images, text, sparse=True))


def test_class_means_classify_other_images() -> None:
    images, text, scale = pool()
    means = labelers.class_means(images, labelers.transclip(images, text, scale), text)
    world = golden("world")
    right = {
        name: float(((world["test"] @ weights.T).argmax(1) == world["test_labels"]).double().mean())
        for name, weights in {"text": text, "means": means}.items()
    }
    assert right["means"] > right["text"]
    none = torch.zeros(len(images), 10)
    none[:, 3] = 1
    kept = labelers.class_means(images, none, text)
    assert torch.equal(kept[:3], text[:3]), "a class without images keeps its text"
    torch.testing.assert_close(kept[3], F.normalize(images.mean(0), dim=0))
