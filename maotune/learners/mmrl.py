"""MMRL: representation tokens, projected into the upper layers of both towers (Guo and Gu, CVPR 2025)."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.learners.representation import RepresentationLearner


@final
class MMRL(RepresentationLearner):
    """Representation tokens, with independent projections of each layer, and one of the tokens to the joint space.

    ``RepresentationLearner`` has the formulas. The projection of the tokens to the joint space starts at random, as in
    the released code, not at CLIP's.

    Official names of the parameters: ``tokens`` is ``representation_learner.compound_rep_tokens``, ``to_image.J`` and
    ``to_text.J`` are ``...compound_rep_tokens_r2vproj.J`` and ``...r2tproj.J``, ``projection`` is
    ``image_encoder.proj_rep``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of the classes, ``{}`` for the name.
        length: tokens.
        width: of the tokens in their own space. The authors use 2048 on EuroSAT.
        first_layer: first layer with tokens, counted from 1.
        last_layer: last layer with tokens of its own; None: the last that both towers have.
        class_share: a, share of the class token in loss and prediction.
        weight: lambda. The authors choose one for each data set, from 0.01 to 7; the default is the median of these.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        length: int = 5,
        width: int = 512,
        first_layer: int = 6,
        last_layer: int | None = None,
        class_share: float = 0.7,
        weight: float = 4.0,
    ) -> None:
        super().__init__(clip, template, length, width, (first_layer, last_layer), class_share, weight)
        self.to_image = nn.ModuleList(nn.Linear(width, clip.vision_width) for _ in range(self.depth))
        self.to_text = nn.ModuleList(nn.Linear(width, clip.text_width) for _ in range(self.depth))
        start = torch.empty(clip.vision_width, clip.joint_width).normal_(std=clip.vision_width**-0.5)
        self.projection = nn.Parameter(start)
        self.to(clip.device)
        self.bind(classes)
        self.own()

    def prompts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tokens (n, W) of each text layer, and (n, V) of each image layer."""
        return [layer(self.tokens) for layer in self.to_text], [layer(self.tokens) for layer in self.to_image]

    def token_projection(self) -> Tensor:
        """Return (V, d)."""
        return self.projection
