"""From images to batches."""

from pathlib import Path

import torch
from torch import Tensor

from maotune.data.sets.catalog import load_dataset
from maotune.recipe import load_recipe
from maotune.runs.pipeline import Pipeline
from tests.toys import paint_photos, toy_clip


def test_augmented_views_depend_on_the_seed_unless_they_are_shared(tmp_path: Path) -> None:
    photos = paint_photos(tmp_path)
    samples = load_dataset(str(photos)).train

    def features(seed: int, *, shared: bool, training: bool = True) -> Tensor:
        given = {"data.source": str(photos), "seed": seed, "data.shared_views": shared}
        pipeline = Pipeline(toy_clip(), load_recipe(None, given), keep=False)
        view = pipeline.train_view if training else pipeline.test_view
        return pipeline.bank.features(samples, view, views=2)

    assert torch.equal(features(1, shared=False), features(1, shared=False))
    assert (features(1, shared=False) != features(2, shared=False)).any(dim=2).all()
    assert torch.equal(features(1, shared=True), features(2, shared=True))
    assert torch.equal(features(1, shared=False, training=False), features(2, shared=True, training=False))
