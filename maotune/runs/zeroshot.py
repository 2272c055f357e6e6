"""Zero-shot CLIP on a data set: all of its classes, and its base and new halves, each among itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maotune.clip import FrozenCLIP
from maotune.data.draw import base_new
from maotune.data.sets.dataset import Dataset, Sample
from maotune.learners.zeroshot import ZeroShot
from maotune.protocols.protocol import Test
from maotune.recipe.schema import Recipe
from maotune.runs.build import load_readable, templates_of
from maotune.runs.events import Callback
from maotune.runs.pipeline import Pipeline
from maotune.train.evaluate import harmonic_mean


@dataclass(frozen=True, slots=True)
class ZeroShotScores:
    """Accuracies in percent."""

    dataset: str
    classes: int
    images: int
    all: float
    base: float
    new: float
    mean_per_class: float
    """Mean of the accuracies of all classes, each of which counts alike."""

    @property
    def h(self) -> float:
        """Harmonic mean of base and new."""
        return harmonic_mean(self.base, self.new)


def embed_zeroshot(
    recipe: Recipe,
    clip: FrozenCLIP,
    samples: Sequence[Sample],
    classes: Sequence[str],
    callback: Callback = lambda event: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the features (N, d) of images, and the probabilities (N, C) of ``classes``, if there are any."""
    pipeline = Pipeline(clip, recipe, callback)
    learner = ZeroShot(clip, classes or ("image",), templates=templates_of(recipe, Dataset("", ()).templates))
    features = pipeline.embed(learner, samples).numpy()
    return features, pipeline.logits(learner, samples).softmax(dim=1).numpy() if classes else None


def score_zeroshot(
    recipe: Recipe, clip: FrozenCLIP, split: str, callback: Callback = lambda event: None
) -> ZeroShotScores:
    """Score one data set (``recipe.data``) without tuning anything; unreadable images are skipped.

    Raises:
        ValueError: no such data set, or no image in that split, or in one half of its classes.
    """
    dataset = load_readable(recipe, split)
    base, new = base_new(dataset)
    for part in (dataset, base, new):
        if not getattr(part, split):
            raise ValueError(f"{part.name} has no {split} image to score")
    pipeline = Pipeline(clip, recipe, callback)
    learner = ZeroShot(clip, dataset.classes, templates=templates_of(recipe, dataset.templates))
    scored = [pipeline.score(learner, Test(part.classes, getattr(part, split))) for part in (dataset, base, new)]
    every, of_base, of_new = (each.accuracy for each in scored)
    images, mean = len(getattr(dataset, split)), scored[0].mean_per_class
    return ZeroShotScores(dataset.name, len(dataset.classes), images, every, of_base, of_new, mean)
