"""Representation tokens: what MMRL and MMRL++ share."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.base import ClassTexts, frozen_image_features
from maotune.learners.deep import pixels


@dataclass(frozen=True, slots=True)
class RepresentationOutput(Output):
    """Features and scores, and the two scores of the loss."""

    class_token: Tensor
    """(B, d) features by the class token, of length 1."""
    by_class: Tensor
    """(B, H) scores of these."""
    by_tokens: Tensor
    """(B, H) scores of the features by the representation tokens."""


class RepresentationLearner(AbstractLearner):
    """Tokens R in a space of their own, projected into the upper layers of both towers; texts are hand-written.

    The tokens of layer j are R A_j + a_j in the image tower, R B_j + b_j in the text tower. In the first of the layers
    they are inserted after the start (class) token, in the next ones they replace what came of them.

    f = image feature by the class token with CLIP's own projection,  r = by the mean of the tokens with one of its own
    l_c = s f.w,   l_r = s r.w     (f, r and the text features w have length 1, s is CLIP's own scale)
    L = a CE(l_c) + (1 - a) CE(l_r) + lambda (1 - mean cos(f, f_0)) + lambda (1 - mean cos(w, w_0))

    f_0 and w_0 are frozen CLIP's, w_0 of the same text. Classes that the stage tunes are predicted by
    a l_c + (1 - a) l_r, as long as no other class is among those to choose from; else l_c alone predicts, which knows
    more of frozen CLIP. As a l_c + (1 - a) l_r = s (a f + (1 - a) r).w, the image feature is a f + (1 - a) r or f.

    Args:
        clip: the frozen model.
        template: text of the classes, ``{}`` for the name.
        length: tokens.
        width: of R.
        layers: the first layer with tokens, and the last one or None (the last that both towers have), counted from 1.
        class_share: a, the class token's share.
        weight: lambda.
    """

    tunes_image_tower = True
    tunes_prompts = False
    scores_all_classes = True
    image_depends_on_classes = True
    mixed_share = 1.0
    """Share of the tokens in what stands where they replace; the rest is what was there."""

    def __init__(
        self,
        clip: FrozenCLIP,
        template: str,
        length: int,
        width: int,
        layers: tuple[int, int | None],
        class_share: float,
        weight: float,
    ) -> None:
        super().__init__()
        first, last = layers[0], layers[1] or min(clip.text_layers, clip.vision_layers)
        if not 2 <= first <= last <= min(clip.text_layers, clip.vision_layers):
            raise ValueError(
                f"first_layer is {first} and last_layer {last}, but the towers of this CLIP have {clip.text_layers} "
                f"and {clip.vision_layers} layers: choose 2 to {min(clip.text_layers, clip.vision_layers)}"
            )
        if length < 1 or width < 1 or not 0 <= class_share <= 1:
            raise ValueError(
                f"length is {length}, width {width} and class_share {class_share}: give at least 1 token of width 1, "
                "and a share from 0 to 1"
            )
        self.clip, self.logit_scale = clip, clip.logit_scale
        self.first, self.depth = first - 1, last - first + 1  # layers counted from 0
        self.class_share, self.weight = class_share, weight
        self.texts = ClassTexts(clip, template)
        self.tokens = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
        self.owners: tuple[str, ...] = ()
        """Classes of the stage that was tuned last."""
        self.mixes = True
        """Whether the tokens' scores count, because all bound classes were tuned."""
        self.frozen_text: Tensor | None = None
        """(C, d) w_0, computed when the loss needs it."""

    @abstractmethod
    def prompts(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the tokens (n, W) of each text layer, and (n, V) of each image layer."""

    @abstractmethod
    def token_projection(self) -> Tensor:
        """Return (V, d), which projects the mean of the tokens to the joint space."""

    def bind(self, classes: Sequence[str]) -> None:
        """Tokenise the texts of ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.texts.bind(classes)
        self.mixes = {*classes} <= {*self.owners}
        self.frozen_text = None

    def own(self) -> None:
        """Predict the bound classes, and no others, by the tokens too. See ``AbstractLearner.own``."""
        self.owners, self.mixes = self.classes, True

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) features of the texts of the classes ``only``, with the tokens in the upper layers."""
        tokens = dict(enumerate(self.prompts()[0], start=self.first))
        return self.clip.encode_text(*self.texts.select(only), tokens, inserted=True, share=self.mixed_share)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the images, which are scored as they are, without normalising them."""
        return self._mix(*self._encode(batch))

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores of image features (B, d), of any length, by text features (H, d)."""
        return self.logit_scale * image @ F.normalize(text, dim=-1).T

    def forward(self, batch: Batch, only: Tensor | None = None) -> RepresentationOutput:
        """Return features and scores, with those by the class token and by the tokens apart."""
        text = self.text_features(only)
        class_token, tokens = self._encode(batch)
        image = self._mix(class_token, tokens)
        scores = [self.logits(feature, text, only) for feature in (image, class_token, tokens)]
        return RepresentationOutput(image, text, scores[0], class_token, *scores[1:])

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return both weighted cross-entropies, and the weighted distances from frozen CLIP.

        Raises:
            TypeError: ``output`` is not of this learner's own ``forward``.
        """
        if not isinstance(output, RepresentationOutput):
            raise TypeError(f"the losses of {type(self).__name__} need the output of its own forward")
        if self.frozen_text is None:
            self.frozen_text = self.clip.zeroshot_text(self.classes, [self.texts.template])
        image = F.cosine_similarity(output.class_token, frozen_image_features(self.clip, batch), dim=1)
        text = F.cosine_similarity(output.text, self.frozen_text, dim=1)
        return {
            "cross_entropy": self.class_share * classify(output.by_class, batch.labels),
            "token_cross_entropy": (1 - self.class_share) * classify(output.by_tokens, batch.labels),
            "image": self.weight * (1 - image.mean()),
            "text": self.weight * (1 - text.mean()),
        }

    def _encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return f and r, (B, d) of length 1."""
        rows = self.clip.encode_image_tokens(pixels(batch), self.prompts()[1], first=self.first, share=self.mixed_share)
        class_token, tokens = self.clip.project_image(rows[:, 0]), rows[:, 1:].mean(dim=1) @ self.token_projection()
        return F.normalize(class_token, dim=-1), F.normalize(tokens, dim=-1)

    def _mix(self, class_token: Tensor, tokens: Tensor) -> Tensor:
        return self.class_share * class_token + (1 - self.class_share) * tokens if self.mixes else class_token
