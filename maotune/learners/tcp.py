"""TCP: class-aware prompts from the frozen text features of the class (Yao et al., CVPR 2024)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import Batch, Classify, Output
from maotune.learners.base import TextPromptLearner, initial_context


@final
class TCP(TextPromptLearner):
    """A shared context, replaced in the text tower by tokens that a small network makes for each class.

    With w_c^clip = g("a photo of a [CLASS]_c."), normalised:

    T_c = up(quick_gelu(down(w_c^clip))), L tokens: the textual knowledge embedding     (its section 3.2)
    F_l = text layer l of F_(l-1), from F_0 = [SOS] [V]_1 ... [V]_L [CLASS]_c; before layer ``layer``, T_c takes the
    place of the L tokens of context
    L = L_ce + weight * (1 - mean over c of cos(w_c, w_c^clip)), over all bound classes     (KgCoOp's term)

    Official names: ``context`` is ``prompt_learner.ctx``, ``down`` and ``up`` are ``linear1`` and ``linear2`` of
    ``prompt_learner.meta_net``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: L, tokens of the context and of T_c.
        initial_words: words to start from (their token count must be L); None: normal, standard deviation 0.02, as in
            the authors' runs.
        template: the hand-written prompt, ``{}`` for the name; the authors use that of the data set.
        words: the text after the context in the tuned prompt, ``{}`` for the name; the authors use the end of the data
            set's prompt, such as "{}, a type of flower.".
        layer: the text layer, from 0, before which T_c is inserted; default: after two thirds, 8 of 12 layers.
        reduction: ratio of the width of the text features to that of the hidden layer.
        weight: of the last term.
    """

    scores_all_classes = True

    frozen: Tensor
    """(C, d) w^clip, not saved."""

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 4,
        initial_words: str | None = None,
        template: str = "a photo of a {}.",
        words: str = "{}.",
        layer: int | None = None,
        reduction: int = 4,
        weight: float = 8.0,
    ) -> None:
        super().__init__(clip)
        self.layer = 2 * clip.text_layers // 3 if layer is None else layer
        if not 1 <= self.layer < clip.text_layers:
            raise ValueError(
                f"layer is {self.layer}, but the text tower of this CLIP has {clip.text_layers} layers: the prompts of "
                f"the classes can be inserted before layer 1 to {clip.text_layers - 1}, counted from 0"
            )
        if not 1 <= reduction <= clip.joint_width:
            raise ValueError(
                f"reduction is {reduction}: text features of {clip.joint_width} allow 1 to {clip.joint_width}"
            )
        if "{}" not in words:
            raise ValueError(f"words is {words!r}, which has no {{}} for the class name")
        self.template, self.words = template, words
        self.weight = weight
        hidden = clip.joint_width // reduction
        self.context = nn.Parameter(initial_context(clip, context_length, initial_words))
        self.down = nn.Linear(clip.joint_width, hidden, device=clip.device)
        self.up = nn.Linear(hidden, context_length * clip.text_width, device=clip.device)
        self.register_buffer("frozen", torch.empty(0, clip.joint_width, device=clip.device), persistent=False)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes`` and compute their frozen text features. See ``AbstractLearner.bind``."""
        self.classes = self.names.bind(classes, len(self.context), self.words)
        self.frozen = self.clip.zeroshot_text(classes, [self.template])

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        hidden = self.down(self.frozen if only is None else self.frozen[only])
        own = self.up(hidden * torch.sigmoid(1.702 * hidden)).unflatten(-1, self.context.shape)  # (H, L, W)
        name, eot = self.names.select(only)
        prefix = torch.cat([self.names.start(), self.context])
        return self.clip.encode_text(prefix[None], name, eot, {self.layer: own})

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the distance of the text features from the hand-written prompt's."""
        return {
            "cross_entropy": classify(output.logits, batch.labels),
            "knowledge": self.weight * (1 - F.cosine_similarity(output.text, self.frozen, dim=-1).mean()),
        }
