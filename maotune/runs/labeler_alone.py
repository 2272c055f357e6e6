"""The labeler of MAO's new stage as a classifier of its own, with no tuning: rows beside those of the methods."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.data.sets.dataset import Sample
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.labelers import LABELERS, class_means
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.protocol import Splits, Test
from maotune.recipe.schema import Recipe
from maotune.runs.build import labeler_templates
from maotune.runs.pipeline import Pipeline
from maotune.train.evaluate import Evaluation

TRANSDUCTIVE, INDUCTIVE = "transductive", "inductive"


def score_labeler(
    recipe: Recipe, pipeline: Pipeline, splits: Splits, labels: PseudoLabels, zeroshot: Mapping[str, Evaluation]
) -> dict[str, dict[str, Evaluation]]:
    """Score the labeler of a run on all tests.

    ``transductive``: it labels the images of each test, which are their own pool; not where it is zero-shot CLIP, which
    is there already, or tuned prompts. ``inductive``: the class means of the pool by its labels, for tests among the
    classes of the pool; zero-shot CLIP for others.

    Args:
        recipe: names the labeler.
        pipeline: of the run.
        splits: with a pool.
        labels: of the pool.
        zeroshot: evaluations of zero-shot CLIP, by test.
    """
    kind = recipe.mao.labeler
    model = ZeroShot(pipeline.clip, splits.new_classes, templates=labeler_templates(recipe, splits.templates))
    text = F.normalize(model.text_features(), dim=-1)

    @torch.no_grad()
    def features(samples: Sequence[Sample]) -> Tensor:
        unlabelled = [Sample(sample.image, 0) for sample in samples]
        rows = pipeline.test_batches(model, unlabelled).support().features[:, 0]
        return F.normalize(rows.to(text.device), dim=-1)

    soft = labels.probabilities
    if soft is None:
        soft = F.one_hot(labels.first_view()[0], len(splits.new_classes)).float()
    assert splits.unlabelled is not None
    means = class_means(features(splits.unlabelled.samples), soft.to(text.device), text)
    rows: dict[str, dict[str, Evaluation]] = {INDUCTIVE: {}}
    for name, test in splits.tests.items():
        images = features(test.samples)
        if test.classes == splits.new_classes:
            rows[INDUCTIVE][name] = _evaluation(test, model.logit_scale * images @ means.T)
        else:
            rows[INDUCTIVE][name] = zeroshot[name]
        if kind not in ("foundation", "tuned"):
            model.bind(test.classes)
            among = F.normalize(model.text_features(), dim=-1)
            probabilities = LABELERS[kind](images, among, model.logit_scale)
            rows.setdefault(TRANSDUCTIVE, {})[name] = _evaluation(test, probabilities)
    return rows


def _evaluation(test: Test, scores: Tensor) -> Evaluation:
    highest, predictions = scores.cpu().max(dim=1)
    labels = torch.tensor([sample.label for sample in test.samples])
    return Evaluation(test.classes, labels, predictions, highest)
