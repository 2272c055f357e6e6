"""CLAP: prototypes held to their texts as far as zero-shot CLIP can be trusted (Silva-Rodríguez et al., CVPR 2024)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Batches, Classify, Output, cosine_logits
from maotune.learners.feature_space import FeatureLearner


@final
class CLAP(FeatureLearner):
    """A learnable prototype w_c of each class, which starts at the text feature t_c and is held to it.

    p(y|x) = softmax over the classes of <w_c, x> / tau, cosine
    L = L_ce + 1/C sum over c of lambda_c |w_c - t_c|^2     (its Eq. 8)
    lambda_c = mean zero-shot probability of c over the images of c, at the start of the stage; 1 for a class without

    t_c is not normalised. Nothing is chosen on validation images: that is the paper's point. A class that was not
    tuned is scored as by zero-shot CLIP.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        constraint: ``l2``, as above, or ``none``: a linear probe (on cosines) that starts at the texts.
        strength: factor on lambda_c; 1 is the paper's. How much the constraint holds depends on the model: it grows
            with the squared length of t_c, and the gain of turning w_c with the logit scale alone.
    """

    rows_of_classes = ("prototypes",)
    normalises_text = False

    anchors: Tensor
    """(C, d) t_c of the owners, not saved."""
    trust: Tensor
    """(C,) lambda_c of the owners, not saved."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        constraint: Literal["l2", "none"] = "l2",
        strength: float = 1.0,
    ) -> None:
        super().__init__(clip, template)
        self.constraint, self.strength = constraint, strength
        empty = torch.zeros(0, clip.joint_width, device=clip.device)
        self.prototypes = nn.Parameter(empty)
        self.register_buffer("anchors", empty.clone(), persistent=False)
        self.register_buffer("trust", empty[:, 0].clone(), persistent=False)
        self.bind(classes)
        self.own()

    def initial_rows(self, name: str) -> Tensor:
        """Return the (C, d) text features."""
        return self.text

    def own(self) -> None:
        """Give the bound classes prototypes. See ``AbstractLearner.own``."""
        super().own()
        self.anchors = self.text.clone()
        self.trust = torch.ones_like(self.text[:, 0])

    def prepare(self, batches: Batches) -> None:
        """Measure how far zero-shot CLIP can be trusted on the images of each class."""
        features, labels = (tensor.to(self.text.device) for tensor in batches.support().rows())
        chances = cosine_logits(features, self.text, self.logit_scale).softmax(dim=1)  # (n, C)
        if not labels.is_floating_point():
            labels = F.one_hot(labels, len(self.classes)).to(chances.dtype)
        count = labels.sum(0)
        self.trust = torch.where(count > 0, (labels * chances).sum(0) / count.clamp(min=1e-12), 1)

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) prototypes of the classes ``only``."""
        return self.rows("prototypes", only)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the constraint."""
        terms = super().losses(output, batch, classify)
        if self.constraint == "l2":
            terms["constraint"] = self.strength * (self.trust * (self.prototypes - self.anchors).square().sum(1)).mean()
        return terms
