"""PromptSRC: deep prompts regularised by the frozen CLIP (Khattak et al., Self-regulating Prompts, ICCV 2023)."""

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor

from maotune.clip import FrozenCLIP
from maotune.clip.ensembles import SIXTY
from maotune.contract import Batch, Classify, Output, cosine_logits
from maotune.learners.base import frozen_image_features
from maotune.learners.deep import DeepPromptLearner, TextPrompts, VisualPrompts


@final
class PromptSRC(DeepPromptLearner):
    """Independent deep prompts in both towers, kept close to the frozen CLIP by three loss terms.

    With f_p, g_p the prompted image and text features and f, g the frozen ones, all of length 1 (its section 3.2.1; |.|
    is the mean over all entries, as in the code, and lambda_1 = 10, lambda_2 = 25):

    L = L_CE + lambda_1 L_image + lambda_2 L_text + L_logits
    L_image = |f_p - f|,   L_text = |g_p - g|
    L_logits = 1 / (B C) sum over images and classes of q (log q - log p)
    p = softmax of cos(f_p, g_p) / tau,   q = softmax of cos(f, g) / tau

    g is the mean over 60 templates (its section 3.2.3), normalised after the mean. All terms but L_CE run over all
    bound classes. Its third part (section 3.2.2), the Gaussian-weighted average of the prompts over the epochs, is a
    setting of the training loop, ``train.average``.

    Official names of the parameters: ``text.prompts.0`` is ``prompt_learner.ctx``, ``text.prompts.J`` is
    ``text_encoder.transformer.resblocks.J.VPT_shallow``, ``visual.prompts.0`` is ``image_encoder.VPT`` and
    ``visual.prompts.J`` is ``image_encoder.transformer.resblocks.J.VPT_shallow``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: tokens before the class name.
        text_depth: text layers with tokens of their own; 1: at the input only.
        initial_words: initial words of the tokens of the first layer; None: normal, standard deviation 0.02, as all
            others. Words beyond ``context_length`` tokens stay in the text, frozen.
        visual_length: tokens after the patches.
        visual_depth: image layers with tokens of their own.
        text_weight: lambda_2.
        image_weight: lambda_1.
        logits_weight: of L_logits.
        templates: of the frozen text features; ``{}`` stands for the class name.
    """

    uses_frozen_features = True
    scores_all_classes = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        text_depth: int = 9,
        initial_words: str | None = "a photo of a",
        visual_length: int = 4,
        visual_depth: int = 9,
        text_weight: float = 25.0,
        image_weight: float = 10.0,
        logits_weight: float = 1.0,
        templates: tuple[str, ...] = SIXTY,
    ) -> None:
        text = TextPrompts(clip, context_length, text_depth, initial_words, setting="text_depth")
        visual = VisualPrompts(clip, visual_length, visual_depth, setting="visual_depth")
        super().__init__(clip, text, visual)
        self.text_weight = text_weight
        self.image_weight = image_weight
        self.logits_weight = logits_weight
        self.templates = templates
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``."""
        super().bind(classes)
        # Only the loss uses it: 60 texts per class need not be encoded to predict.
        self._teacher_text: Tensor | None = None

    def teacher_text(self) -> Tensor:
        """Return (C, d) frozen text features, averaged over the templates, not normalised; computed once per ``bind``.

        Raises:
            ValueError: a name does not fit into a template.
        """
        if self._teacher_text is None:
            self._teacher_text = self.clip.zeroshot_text(self.classes, self.templates, normalise=False)
        return self._teacher_text

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy and the three weighted terms."""
        frozen_image, frozen_text = frozen_image_features(self.clip, batch), self.teacher_text()
        frozen_logits = cosine_logits(frozen_image, frozen_text, self.logit_scale)
        divergence = F.kl_div(
            F.log_softmax(output.logits, dim=1), F.log_softmax(frozen_logits, dim=1), reduction="sum", log_target=True
        )
        return {
            "cross_entropy": classify(output.logits, batch.labels),
            "text": self.text_weight * _distance(output.text, frozen_text),
            "image": self.image_weight * _distance(output.image, frozen_image),
            "logits": self.logits_weight * divergence / output.logits.numel(),
        }


def _distance(features: Tensor, frozen: Tensor) -> Tensor:
    """Return the mean absolute difference of two sets of features (N, d), normalised first."""
    return F.l1_loss(F.normalize(features, dim=-1), F.normalize(frozen, dim=-1))
