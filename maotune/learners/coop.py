"""CoOp: learn the words around the class name (Zhou et al., Learning to Prompt for Vision-Language Models, 2022)."""

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.learners.base import TextPromptLearner, initial_context, insert


@final
class CoOp(TextPromptLearner):
    """A context of L learnable token embeddings in place of "a photo of a".

    t = [V]_1 ... [V]_L [CLASS]   (its Eq. 2; the MAO paper's Eq. 1)
    t = [V]_1 ... [V]_L/2 [CLASS] [V]_L/2+1 ... [V]_L   (its Eq. 3, ``class_position="middle"``)
    p(y|x) = softmax over the classes of <g(t), f(x)> / tau   (its Eq. 4)

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: L, tokens of context.
        initial_words: words to start from (their token count must be L); None: normal, standard deviation 0.02.
        class_position: position of the name: after, amid or before the context.
        class_specific: one context per class (C, L, W) instead of a shared one (L, W). Such contexts belong to
            ``classes``; later calls of ``bind`` may name only these, in any order.
    """

    prompts_are_parameters = True

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 16,
        initial_words: str | None = None,
        class_position: Literal["end", "middle", "front"] = "end",
        class_specific: bool = False,
    ) -> None:
        super().__init__(clip)
        # Context tokens before the name: only those can be shared by the text passes of the classes.
        self.before = {"end": context_length, "middle": context_length // 2, "front": 0}[class_position]
        self.owners = tuple(classes) if class_specific else None
        shape = (len(classes),) if class_specific else ()
        self.context = nn.Parameter(initial_context(clip, context_length, initial_words, shape))
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the context to ``classes``. See ``AbstractLearner.bind``."""
        if self.owners is not None and (unknown := [name for name in classes if name not in self.owners]):
            raise ValueError(
                f"class-specific contexts were learned for {len(self.owners)} classes, and {unknown[0]!r} is not one "
                "of them: bind to those classes, or tune with class_specific=False, whose context fits any class"
            )
        self.rows = torch.tensor([self.owners.index(name) for name in classes]) if self.owners is not None else None
        self.classes = self.names.bind(classes, self.context.shape[-2])

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the prompts of the classes ``only``."""
        context: Tensor = self.context
        if self.rows is not None:
            rows = self.rows.to(context.device)
            context = context[rows if only is None else rows[only]]  # (H, L, W)
        name, eot = self.names.select(only)
        before, after = context[..., : self.before, :], context[..., self.before :, :]
        groups = context.shape[:-2].numel()  # 1, or H where contexts are class-specific
        before = before.reshape(groups, self.before, before.shape[-1])
        prefix = torch.cat([self.names.start().expand(groups, 1, -1), before], dim=1)
        if after.shape[-2]:
            name, eot = insert(name, eot, after, self.names.lengths(only))
        return self.clip.encode_text(prefix, name, eot.view(groups, -1))
