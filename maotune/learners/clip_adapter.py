"""CLIP-Adapter: a small network after the image tower (Gao et al., IJCV 2023)."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch
from maotune.learners.feature_space import FeatureLearner


@final
class CLIPAdapter(FeatureLearner):
    """A two-layer bottleneck on the image feature x, mixed with it.

    x' = ratio relu(relu(x A') B') + (1 - ratio) x, scored by cosine with the text features     (its Eq. 5 and 7)

    x is not normalised; A and B have no biases. The adapter is the same for all classes, so it is also used for those
    that were not tuned. Official names: A is ``adapter.fc.0.weight``, B ``adapter.fc.2.weight``. No settings of the
    training are released; those of the recipe are CoOp's.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of the classes, ``{}`` for the name.
        ratio: share of the adapter; the authors use 0.2 (0.6 and 0.8 on some data sets).
        reduction: d / width of the bottleneck.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        ratio: float = 0.2,
        reduction: int = 4,
    ) -> None:
        super().__init__(clip, template)
        self.ratio = ratio
        width = clip.joint_width
        self.down = nn.Linear(width, max(1, width // reduction), bias=False, device=clip.device)
        self.up = nn.Linear(self.down.out_features, width, bias=False, device=clip.device)
        self.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) image features after the adapter."""
        image = super().image_features(batch)
        return self.ratio * torch.relu(self.up(torch.relu(self.down(image)))) + (1 - self.ratio) * image
