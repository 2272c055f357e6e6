"""UPT: prompts of both towers that attend to one another (Zang et al., Unified Prompt Tuning, 2022)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch
from maotune.learners.base import ClassNames
from maotune.learners.deep import JointPromptLearner, pixels


@final
class UPT(JointPromptLearner):
    """Tokens U of one lightweight transformer layer, which then are the prompts of both towers.

    U' = LN(U + A(U)),   U'' = U' + W_2 relu(W_1 LN(U'))      A: self-attention over all tokens, of one head
    text: [SOS, U''_1 .. U''_m, name],   image: [CLS, patches, F(U''_{m+1}) .. F(U''_{m+n})], before the first layer
    p(y|x) = softmax over the classes of cos(f(x), g(y)) / tau, tuned by the cross-entropy

    F is a linear layer to the image tower's width. The layer runs once in a forward pass. In the released code the
    tokens are a batch of sequences of one token each, so that none attends to another, and the layer runs twice, with
    other dropout for each tower; here both are as in the paper.

    Official names of the parameters: ``tokens`` is ``prompt_learner.uni_ctx``, ``attention`` is ``self_attn``,
    ``up`` and ``down`` are ``linear1`` and ``linear2``, ``project`` is ``mlp``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: m, tokens before the class name.
        visual_length: n, tokens after the patches.
        dropout: of the attention, inside the feed-forward network and of both residuals, while tuned.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        visual_length: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if context_length < 1 or visual_length < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"context_length is {context_length}, visual_length {visual_length} and dropout {dropout}: give at "
                "least 1 token for each tower, and a share from 0 to below 1"
            )
        self.clip, self.logit_scale = clip, clip.logit_scale
        self.context_length, self.dropout = context_length, dropout
        width = clip.text_width
        self.names = ClassNames(clip)
        self.tokens = nn.Parameter(torch.empty(1, context_length + visual_length, width).normal_(std=0.02))
        self.attention = nn.MultiheadAttention(width, 1, dropout, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.project = nn.Linear(width, clip.vision_width)
        self.to(clip.device)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.names.bind(classes, self.context_length)

    def prompts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the prompts (m, W) of the text and (n, V) of the image, at the input of the towers."""
        attended, _ = self.attention(self.tokens, self.tokens, self.tokens, need_weights=False)
        mixed = self.norm1(self.tokens + self._drop(attended))
        hidden = self._drop(F.relu(self.up(self.norm2(mixed))))
        (mixed,) = mixed + self._drop(self.down(hidden))
        return [mixed[: self.context_length]], [self.project(mixed[self.context_length :])]

    def encode_texts(self, prompts: Sequence[Tensor], only: Tensor | None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        name, eot = self.names.select(only)
        return self.clip.encode_text(torch.cat([self.names.start(), *prompts])[None], name, eot)

    def encode_images(self, prompts: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return (B, d) features of the images."""
        return self.clip.encode_image(pixels(batch), prompts)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
