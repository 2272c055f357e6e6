"""A linear probe that starts at the class texts, with texts as further rows (Lin et al., Cross-Modal, CVPR 2023)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Classify, Output
from maotune.learners.feature_space import FeatureLearner


@final
class LinearProbe(FeatureLearner):
    """A linear classifier of the image features x, of length 1, without bias.

    logits_c = s w_c.x, where w_c starts at the text feature t_c, of length 1, and is not normalised

    With ``cross_modal``, the batch is followed by the text features of its images' classes as further rows with the
    same labels. In the authors' code the texts of a batch are drawn independently of its images.

    The authors choose rate, decay and the best step on validation images; here they are those of the recipe, and the
    last step counts. A class that was not tuned is scored as by zero-shot CLIP.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of t_c, ``{}`` for the name.
        start: ``text``, or ``zero``: a probe that knows nothing of the texts.
        cross_modal: whether texts are further rows of each batch.
        wise_ft: share of t_c in the classifier when images are scored (WiSE-FT): (1 - share) w_c + share t_c, not
            normalised again; the authors use 0.5.
    """

    rows_of_classes = ("weight",)

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        start: Literal["text", "zero"] = "text",
        cross_modal: bool = False,
        wise_ft: float = 0.0,
    ) -> None:
        super().__init__(clip, template)
        if not 0 <= wise_ft <= 1:
            raise ValueError(f"wise_ft is {wise_ft}: it is the share of the text weights, from 0 to 1")
        self.start, self.wise_ft = start, wise_ft
        self.scores_all_classes = cross_modal
        self.weight = nn.Parameter(torch.zeros(0, clip.joint_width, device=clip.device))
        self.bind(classes)
        self.own()

    def initial_rows(self, name: str) -> Tensor:
        """Return the (C, d) text features; zeros, with ``start: zero``, for classes that are about to be tuned."""
        return self.text

    def own(self) -> None:
        """Give the bound classes weights. See ``AbstractLearner.own``."""
        fresh = None if self.index is None else self.index < 0
        super().own()
        if self.start == "zero" and fresh is not None:
            self.weight.data[fresh] = 0

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) weights of the classes ``only``."""
        weight = self.rows("weight", only)
        if self.training or not self.wise_ft:
            return weight
        return (1 - self.wise_ft) * weight + self.wise_ft * super().text_features(only)

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores of image features (B, d) by the weights (H, d), which are not normalised."""
        return self.logit_scale * F.normalize(image, dim=-1) @ text.T

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, over images and texts with ``cross_modal``."""
        if not self.scores_all_classes:
            return super().losses(output, batch, classify)
        labels = batch.labels
        named = labels.argmax(dim=1) if labels.is_floating_point() else labels
        of_texts = F.one_hot(named, len(self.classes)).to(labels.dtype) if labels.is_floating_point() else labels
        logits = torch.cat([output.logits, self.logits(self.text[named], output.text)])
        return {"cross_entropy": classify(logits, torch.cat([labels, of_texts]))}
