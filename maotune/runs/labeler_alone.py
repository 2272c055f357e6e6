"""The labeler of MAO's new stage as a classifier of its own, with no tuning: rows beside those of the methods."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from maotune.data.sets.dataset import Sample
from maotune.learners.zeroshot import ZeroShot
from maotune.mao.labelers import class_means
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.protocol import Splits
from maotune.recipe.schema import Recipe
from maotune.runs.build import labeler_templates
from maotune.runs.pipeline import Pipeline, evaluation_of
from maotune.runs.transduce import label_together
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

    def features(samples: Sequence[Sample]) -> Tensor:
        return pipeline.embed(model, samples).to(text.device)

    soft = labels.probabilities
    if soft is None:
        soft = F.one_hot(labels.first_view()[0], len(splits.new_classes)).float()
    assert splits.unlabelled is not None
    means = class_means(features(splits.unlabelled.samples), soft.to(text.device), text)
    rows: dict[str, dict[str, Evaluation]] = {INDUCTIVE: {}}
    for name, test in splits.tests.items():
        images = features(test.samples)
        if test.classes == splits.new_classes:
            rows[INDUCTIVE][name] = evaluation_of(test, model.logit_scale * images @ means.T)
        else:
            rows[INDUCTIVE][name] = zeroshot[name]
        if kind not in ("foundation", "tuned"):
            model.bind(test.classes)
            rows.setdefault(TRANSDUCTIVE, {})[name] = evaluation_of(test, label_together(kind, model, images))
    return rows
