"""TaskRes: a residual on the text feature of each class (Yu et al., Task Residual for Tuning VLMs, CVPR 2023)."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.learners.feature_space import FeatureLearner


@final
class TaskRes(FeatureLearner):
    """A learnable residual x_c on the text feature t_c of each class.

    t'_c = t_c + alpha x_c, with x_c = 0 at the start     (its Eq. 3)
    p(y|z) = softmax over the classes of <t'_c, z> / tau, cosine     (its Eq. 1)

    t_c is not normalised before the residual is added. A class that was not tuned has no residual: it is scored as by
    zero-shot CLIP. The official name of ``residual`` is ``prompt_learner.text_feature_residuals``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        alpha: of the residual; the authors use 1 for Flowers and 0.5 for the other data sets.
    """

    rows_of_classes = ("residual",)
    normalises_text = False

    def __init__(
        self, clip: FrozenCLIP, classes: Sequence[str], *, template: str = "a photo of a {}.", alpha: float = 0.5
    ) -> None:
        super().__init__(clip, template)
        self.alpha = alpha
        self.residual = nn.Parameter(torch.zeros(0, clip.joint_width, device=clip.device))
        self.bind(classes)
        self.own()

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) text features with their residuals."""
        return super().text_features(only) + self.alpha * self.rows("residual", only)
