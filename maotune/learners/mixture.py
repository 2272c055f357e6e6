"""Mixture: two sets of prompts predict together where mixing what is tuned would not mix the prompts."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from maotune.contract import AbstractLearner, Batch, Classify, Output


@final
class Mixture(AbstractLearner):
    """Learners of one kind, bound to the same classes, whose features are mixed.

    f(x) = sum_i w_i f_i(x) and t_c = sum_i w_i t_ic of the features as the learners give them, not normalised.
    Scores are sum_i w_i l_i(f(x), t), with l_i the rule of learner i: for most, the cosine of the mixed features.

    To first order in the difference of the prompts, this is the learner with the mixed prompts.

    Args:
        parts: the learners, tuned.
        weights: w_i, which sum to 1.
    """

    def __init__(self, parts: Sequence[AbstractLearner], weights: Sequence[float]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.members, self.weights = tuple(parts), tuple(weights)
        first = parts[0]
        for flag in ("tunes_image_tower", "uses_frozen_features", "uses_unprojected_features", "tunes_prompts",
                     "scores_all_classes", "image_depends_on_classes", "text_depends_on_image", "logit_scale",
                     "classes"):  # fmt: skip
            setattr(self, flag, getattr(first, flag))

    def bind(self, classes: Sequence[str]) -> None:
        """Bind all of the learners. See ``AbstractLearner.bind``."""
        for part in self.members:
            part.bind(classes)
        self.classes = self.members[0].classes

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) mixed image features."""
        return self._mix([part.image_features(batch) for part in self.members])

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) or (B, H, d) mixed text features."""
        return self._mix([part.text_features(only, image) for part in self.members])

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores of mixed features by the rules of the learners, mixed."""
        return self._mix([part.logits(image, text, only) for part in self.members])

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy; a mixture predicts, and is not tuned further."""
        return {"cross_entropy": classify(output.logits, batch.labels)}

    def _mix(self, values: Sequence[Tensor]) -> Tensor:
        return torch.stack([weight * value for weight, value in zip(self.weights, values, strict=True)]).sum(0)
