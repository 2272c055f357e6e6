"""KgCoOp: a learned context that stays close to a hand-written one (Yao et al., CVPR 2023)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Classify, Output
from maotune.learners.base import TextPromptLearner, initial_context


@final
class KgCoOp(TextPromptLearner):
    """A context as in CoOp, with a loss term that keeps the text features close to those of a hand-written prompt.

    With w_c = g([V]_1 ... [V]_L [CLASS]_c) and w_c^clip = g("a photo of a [CLASS]_c."), both of length 1:

    L_kg = 1/C sum over c of |w_c - w_c^clip|^2     (its section 3.2; in the authors' code 1 - cos, half of it)
    L = L_ce + weight * L_kg, over all bound classes

    The official name of ``context`` is ``prompt_learner.ctx``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: L, tokens of context.
        initial_words: words to start from (their token count must be L); None: normal, standard deviation 0.02.
        template: the hand-written prompt, ``{}`` for the name; the authors use that of the data set, such as
            "a photo of a {}, a type of flower.".
        weight: of L_kg.
    """

    scores_all_classes = True
    prompts_are_parameters = True

    frozen: Tensor
    """(C, d) w^clip, not saved."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        initial_words: str | None = "a photo of a",
        template: str = "a photo of a {}.",
        weight: float = 8.0,
    ) -> None:
        super().__init__(clip)
        self.template = template
        self.weight = weight
        self.context = nn.Parameter(initial_context(clip, context_length, initial_words))
        self.register_buffer("frozen", torch.empty(0, clip.joint_width, device=clip.device), persistent=False)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the context to ``classes`` and encode their hand-written prompts. See ``AbstractLearner.bind``."""
        self.classes = self.names.bind(classes, len(self.context))
        self.frozen = self.clip.zeroshot_text(classes, [self.template])

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        name, eot = self.names.select(only)
        prefix = torch.cat([self.names.start(), self.context])
        return self.clip.encode_text(prefix[None], name, eot)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distance of the text features from the hand-written prompt's."""
        return {
            "cross_entropy": classify(output.logits, batch.labels),
            "knowledge": self.weight * (1 - F.cosine_similarity(output.text, self.frozen, dim=-1).mean()),
        }
