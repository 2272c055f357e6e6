"""From images to batches and scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batches
from maotune.data.batches import PixelSource, SampleBatches, Sampler, SequentialSampler
from maotune.data.cache import default_folder
from maotune.data.feature_bank import FeatureBank
from maotune.data.images.views import TestView, TrainView
from maotune.data.sets.dataset import Sample
from maotune.protocols.protocol import Test
from maotune.recipe.schema import Recipe
from maotune.runs.events import Callback, Progress
from maotune.train.evaluate import Evaluation, evaluate, score_images


def evaluation_of(test: Test, scores: Tensor) -> Evaluation:
    """Return the evaluation of the scores (N, C) of the images of a test, wherever they come from."""
    labels = torch.tensor([sample.label for sample in test.samples])
    scores = scores.float().cpu()
    return Evaluation(test.classes, labels, scores.argmax(dim=1), scores.amax(dim=1))


@dataclass
class Pipeline:
    """From images to batches: the frozen model, the feature bank, and the views."""

    clip: FrozenCLIP
    recipe: Recipe
    callback: Callback = lambda event: None
    keep: bool = True
    """Whether the feature bank may keep features on disk, where the recipe wants that."""
    bank: FeatureBank = field(init=False)

    def __post_init__(self) -> None:
        data = self.recipe.data
        self.bank = FeatureBank(self.clip, default_folder() if data.bank and self.keep else None)
        self.test_view = TestView(self.clip.preprocess)
        seed = None if data.shared_views else self.recipe.seed
        self.train_view = TrainView(self.clip.preprocess, data.crop_scale, data.flip, seed)
        self.views = data.views or self.recipe.epochs

    def make_batches(
        self, samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        """Return a function from a learner to its batches: features from the bank, pixels, or both."""
        view = self.train_view if training else self.test_view

        def batches(learner: AbstractLearner) -> Batches:
            def from_bank(projected: bool) -> Tensor:
                views, progress = self.views if training else 1, self._progress("features")
                return self.bank.features(samples, view, views, progress, projected=projected)

            return SampleBatches(
                samples,
                labels,
                sampler,
                features=from_bank(projected=True) if learner.uses_frozen_features else None,
                unprojected=from_bank(projected=False) if learner.uses_unprojected_features else None,
                pixels=PixelSource(samples, view) if learner.tunes_image_tower else None,
                pairs=learner.views == 2,
            )

        return batches

    def test_batches(self, learner: AbstractLearner, samples: Sequence[Sample]) -> Batches:
        """Return batches of the test view of each image, in order."""
        sampler = SequentialSampler(len(samples), 64 if learner.tunes_image_tower else 256)
        labels = torch.tensor([sample.label for sample in samples])
        return self.make_batches(samples, labels, sampler, training=False)(learner)

    def logits(self, learner: AbstractLearner, samples: Sequence[Sample]) -> Tensor:
        """Return the scores (N, C) of each image for the bound classes; labels are ignored."""
        batches = self.test_batches(learner, [Sample(sample.image, 0) for sample in samples])
        progress = self._progress("scoring")
        return score_images(learner, batches, lambda done: progress(done, len(samples)))

    def embed(self, learner: AbstractLearner, samples: Sequence[Sample]) -> Tensor:
        """Return the image features (N, d) of each image, of length 1."""
        batches = self.test_batches(learner, [Sample(sample.image, 0) for sample in samples])
        with torch.no_grad():
            features = [learner.image_features(batch.to(self.clip.device)) for batch in batches.epoch(0)]
        return F.normalize(torch.cat(features).float(), dim=1).cpu()

    def score(
        self, learner: AbstractLearner, test: Test, rivals: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> Evaluation:
        """Classify the images of ``test``; the learner is left bound to its classes. ``rivals`` as in ``evaluate``."""
        learner.bind(test.classes)
        batches = self.test_batches(learner, test.samples)
        progress = self._progress("scoring")
        return evaluate(learner, batches, lambda done: progress(done, len(test.samples)), rivals)

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.callback(Progress(what, done, total))
