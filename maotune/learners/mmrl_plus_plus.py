"""MMRL++: MMRL with far fewer parameters and layers that pass their tokens on (Guo and Gu, IJCV 2026)."""

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.learners.representation import RepresentationLearner


def low_rank(rows: int, columns: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return X (rows, r) and Y (r, columns), whose product starts at zero."""
    x = torch.empty(rows, rank)
    nn.init.kaiming_uniform_(x, a=math.sqrt(5))
    return nn.Parameter(x), nn.Parameter(torch.zeros(rank, columns))


class SharedProjections(nn.Module):
    """A linear map for each layer: one weight A for all, and X_j Y_j and a bias of each layer's own."""

    def __init__(self, width: int, to: int, layers: int, rank: int) -> None:
        super().__init__()
        start = nn.Linear(width, to)
        self.weight = nn.Parameter(start.weight.detach().clone())
        factors = [low_rank(to, width, rank) for _ in range(layers)]
        self.x, self.y = (nn.ParameterList(part) for part in zip(*factors, strict=True))
        self.bias = nn.ParameterList(nn.Parameter(start.bias.detach().clone()) for _ in range(layers))

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Map tokens (n, width) to those of each layer (n, to)."""
        layers = zip(self.x, self.y, self.bias, strict=True)
        return [F.linear(tokens, self.weight + x @ y, bias) for x, y, bias in layers]


@final
class MMRLPlusPlus(RepresentationLearner):
    """Representation tokens, with projections that layers share, and tokens that are passed on from layer to layer.

    ``RepresentationLearner`` has the formulas. What differs from MMRL:

    A_j = A + X_j Y_j of rank r, with a bias of its own for each layer; B_j likewise
    tokens of all layers but the first: beta V_j + (1 - beta) V', where V' is what the layer before made of its tokens
    projection of the tokens to the joint space: W_c + X Y, where W_c is CLIP's, of rank q

    Every Y starts at zero. Official names of the parameters: ``tokens`` is
    ``representation_learner.compound_rep_tokens``, ``to_image.weight`` is ``...srra_r2vproj.weight``, and ``x.J``,
    ``y.J`` and ``bias.J`` of it are ``...srra_r2vproj.srra.J.A``, ``B`` and ``bias``; ``to_text`` likewise
    (``srra_r2tproj``); ``projection_x`` and ``projection_y`` are ``image_encoder.A`` and ``B``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of the classes, ``{}`` for the name.
        length: tokens.
        width: of the tokens in their own space.
        first_layer: first layer with tokens, counted from 1.
        last_layer: last layer with tokens of its own; None: the last that both towers have.
        rank: r.
        projection_rank: q.
        class_share: a, share of the class token in loss and prediction.
        new_share: beta, share of a layer's own tokens. The authors choose one for each data set, from 0.1 to 0.9; the
            default is the median of these.
        weight: lambda. Theirs are from 0.01 to 7; the default is the median of these.
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
        rank: int = 4,
        projection_rank: int = 64,
        class_share: float = 0.7,
        new_share: float = 0.7,
        weight: float = 3.0,
    ) -> None:
        super().__init__(clip, template, length, width, (first_layer, last_layer), class_share, weight)
        if rank < 1 or projection_rank < 1 or not 0 <= new_share <= 1:
            raise ValueError(
                f"rank is {rank}, projection_rank {projection_rank} and new_share {new_share}: give ranks of at least "
                "1, and a share from 0 to 1"
            )
        self.mixed_share = new_share
        self.to_image = SharedProjections(width, clip.vision_width, self.depth, rank)
        self.to_text = SharedProjections(width, clip.text_width, self.depth, rank)
        self.projection_x, self.projection_y = low_rank(clip.vision_width, clip.joint_width, projection_rank)
        self.to(clip.device)
        self.bind(classes)
        self.own()

    def prompts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tokens (n, W) of each text layer, and (n, V) of each image layer."""
        return self.to_text(self.tokens), self.to_image(self.tokens)

    def token_projection(self) -> Tensor:
        """Return (V, d)."""
        return self.clip.image_projection.T + self.projection_x @ self.projection_y
