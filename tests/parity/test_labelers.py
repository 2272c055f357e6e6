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
