"""CoCoOp: a context per image (Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.learners.base import TextPromptLearner, initial_context


@final
class CoCoOp(TextPromptLearner):
    """A context as in CoOp, shifted for each image by the output of a small network.

    v_m(x) = v_m + pi, with pi = h(x) = up(relu(down(f(x)))), f(x) of length 1     (its section 3.2)
    t_c(x) = v_1(x) ... v_L(x) [CLASS]_c
    p(y|x) = softmax over the classes of cos(f(x), g(t_c(x))) / tau                (its Eq. 3)

    Each image has its own texts of all classes. They are encoded as one batch, in which the texts of an image share the
    pass over its context.

    Official names: ``context`` is ``prompt_learner.ctx``, ``down`` and ``up`` are ``linear1`` and ``linear2`` of
    ``prompt_learner.meta_net``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: L, tokens of context.
        initial_words: words to start from (their token count must be L); None: normal, standard deviation 0.02.
        reduction: ratio of the width of the image features to that of the hidden layer of h.
    """

    text_depends_on_image = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        initial_words: str | None = "a photo of a",
        reduction: int = 16,
    ) -> None:
        super().__init__(clip)
        if not 1 <= reduction <= clip.joint_width:
            raise ValueError(
                f"reduction is {reduction}: image features of {clip.joint_width} allow 1 to {clip.joint_width}"
            )
        hidden = clip.joint_width // reduction
        self.context = nn.Parameter(initial_context(clip, context_length, initial_words))
        self.down = nn.Linear(clip.joint_width, hidden, device=clip.device)
        self.up = nn.Linear(hidden, clip.text_width, device=clip.device)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the context to ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.names.bind(classes, len(self.context))

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (B, H, d) features of the prompts of the classes ``only`` for each image.

        Raises:
            ValueError: no image features.
        """
        if image is None:
            raise ValueError("CoCoOp's texts depend on the image: text_features needs the image features, (B, d)")
        shift = self.up(F.relu(self.down(F.normalize(image, dim=-1))))  # (B, W)
        context = self.context + shift[:, None]  # (B, L, W)
        prefix = torch.cat([self.names.start().expand(len(image), 1, -1), context], dim=1)
        name, eot = self.names.select(only)
        return self.clip.encode_text(prefix, name, eot).view(len(image), len(eot), -1)
