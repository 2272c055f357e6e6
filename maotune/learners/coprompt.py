"""CoPrompt: coupled prompts and adapters, kept consistent with frozen CLIP (Roy and Etemad, ICLR 2024)."""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.deep import Couplings, TextPrompts
from maotune.learners.descriptions import Descriptions


class Adapter(nn.Module):
    """share * relu(B relu(A x)) + (1 - share) * x, where A reduces the width to a quarter; without biases."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.down = nn.Linear(width, width // 4, bias=False)
        self.up = nn.Linear(width // 4, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to features (..., d)."""
        return self.share * F.relu(self.up(F.relu(self.down(features)))) + (1 - self.share) * features


@final
class CoPrompt(AbstractLearner):
    """MaPLe's coupled deep prompts with an adapter after each tower, and a consistency constraint on both.

    f' = a A(f(x)) + (1 - a) f(x) for the image, g' with an adapter of its own for the text
    p(y|x) = softmax over the classes of cos(f'(x), g'(y)) / tau
    L_cc = (1 - cos(f'(x), f_0(x'))) + (1 - cos(g'(y), g_0(s_y)))
    L = cross-entropy + lambda L_cc

    f_0 and g_0 are the frozen CLIP, x and x' two views of an image, s_y a sentence that describes the class y; the
    terms are means over the images of the batch and over all bound classes. The released code draws one description of
    each class at every step; here the cosine is averaged over all descriptions: the expectation of the same loss,
    without its noise (equal with one description per class). Classes without a description cannot be bound.

    Official names of the parameters: ``text.prompts.0`` is ``prompt_learner.ctx``, ``text.prompts.J`` is
    ``prompt_learner.compound_prompts_text.(J-1)``, ``couplings.0`` is ``prompt_learner.proj``, ``couplings.J`` is
    ``prompt_learner.compound_prompt_projections.(J-1)``; ``down`` and ``up`` of ``adapter_image`` and ``adapter_text``
    are ``fc.0`` and ``fc.2``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        context_length: tokens in each prompted layer of either tower.
        depth: layers with tokens of their own in both towers.
        initial_words: initial words of the tokens of the first layer; None: normal, standard deviation 0.02, as all
            others. Words beyond ``context_length`` tokens stay in the text, frozen.
        weight: lambda. The released code has 0.1 to 8, chosen per data set.
        adapters: whether to use adapters (2 d^2 / 4 weights each).
        image_share: a, the adapter's share of the image feature.
        text_share: the same for the text feature.
        descriptions: ``icons-11``, shipped for the shipped sets; a JSON file ``{class: [description, ...]}``; or such
            a mapping itself.
    """

    tunes_image_tower = True
    uses_frozen_features = False
    scores_all_classes = True
    views = 2

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        context_length: int = 2,
        depth: int = 9,
        initial_words: str | None = "a photo of a",
        weight: float = 8.0,
        adapters: bool = True,
        image_share: float = 0.1,
        text_share: float = 0.2,
        descriptions: str | dict[str, list[str]] = "icons-11",
    ) -> None:
        super().__init__()
        self.clip, self.weight = clip, weight
        self.logit_scale = clip.logit_scale
        self.text = TextPrompts(clip, context_length, depth, initial_words)
        self.couplings = Couplings(clip, depth)
        self.adapter_image = Adapter(clip.joint_width, image_share) if adapters else nn.Identity()
        self.adapter_text = Adapter(clip.joint_width, text_share) if adapters else nn.Identity()
        self.descriptions = Descriptions(clip, descriptions)
        self.to(clip.device)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Bind the prompts to ``classes``. See ``AbstractLearner.bind``; each class needs a description."""
        self.descriptions.check(classes)
        self.classes = self.text.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) adapted features of the images, with visual prompts projected from the textual ones."""
        adapted: Tensor = self.adapter_image(self.couplings.encode(batch, self.text))
        return adapted

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) adapted features of the prompts of the classes ``only``."""
        adapted: Tensor = self.adapter_text(self.text.encode(only))
        return adapted

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy, and the weighted consistency of both towers with the frozen ones.

        Raises:
            ValueError: the batch has no second view.
        """
        if batch.second_images is None:
            raise ValueError("CoPrompt compares two views of an image, but the batch has no second_images (views = 2)")
        with torch.no_grad():
            teacher = self.clip.encode_image(batch.second_images)  # (B, d)
            described = self.descriptions.features(self.classes)  # (C, d), means of features of length 1
        image = 1 - F.cosine_similarity(output.image, teacher, dim=1).mean()
        text = 1 - (F.normalize(output.text, dim=1) * described).sum(dim=1).mean()
        return {
            "cross_entropy": classify(output.logits, batch.labels),
            "image_consistency": self.weight * image,
            "text_consistency": self.weight * text,
        }
