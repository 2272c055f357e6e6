"""Classify a folder as a whole: its images are their own unlabelled pool, any learner's probabilities are the prior."""

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner
from maotune.mao.labelers import LABELERS
from maotune.recipe.schema import choose

TRANSDUCERS = tuple(name for name in LABELERS if name != "foundation")
"""Labelers that look at all images at once."""


def check_transducer(name: str) -> None:
    """Raise ``RecipeError`` for a name that is none of ``TRANSDUCERS``."""
    choose("labeler", name, TRANSDUCERS)


@torch.no_grad()
def label_together(name: str, learner: AbstractLearner, images: Tensor, probabilities: Tensor | None = None) -> Tensor:
    """Return the probabilities (N, C) that a labeler gives the bound classes, looking at all images at once.

    Args:
        name: one of ``TRANSDUCERS``. Only ``stata`` does not collapse where classes have no image.
        learner: gives the class texts; where they depend on the image, those of the mean image are taken.
        images: (N, d) image features by the learner.
        probabilities: (N, C), the prior; default: those of the texts, as of zero-shot CLIP.
    """
    device = next((tensor.device for tensor in (*learner.parameters(), *learner.buffers())), images.device)
    images, prior = images.to(device), None if probabilities is None else probabilities.to(device)
    if learner.text_depends_on_image:
        text = learner.text_features(None, images.mean(0, keepdim=True))[0]
    else:
        text = learner.text_features()
    labelled = LABELERS[name](F.normalize(images, dim=-1), F.normalize(text, dim=-1), learner.logit_scale, prior)
    return labelled.cpu()
