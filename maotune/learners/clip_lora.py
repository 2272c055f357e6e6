"""CLIP-LoRA: low-rank updates of query, key and value in both towers (Zanella and Ben Ayed, CVPR-W 2024)."""

import math
from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.clip.towers import LowRank
from maotune.contract import AbstractLearner, Batch, Classify, Output
from maotune.learners.base import ClassTexts, frozen_image_features


@final
class CLIPLoRA(AbstractLearner):
    """Updates W + alpha / sqrt(r) B A of the query, key and value weights W in all layers (its Eq. 1).

    As in the released code the scale is alpha / sqrt(r), not alpha / r, and the output projection is not updated. B is
    0 at the start. The texts are hand-written; those of the classes that are scored are encoded anew in every step. The
    updates fit any classes. Settings are the authors' fixed ones, the same for all data sets and shots.

    Official names: ``text_a[l, 0]`` is ``transformer.resblocks.l.attn.q_proj.w_lora_A``, 1 is ``k_proj``, 2 ``v_proj``;
    ``image_a`` is that of ``visual.transformer``.

    Args:
        clip: the frozen model.
        classes: the names to bind first.
        template: text of the classes, ``{}`` for the name.
        rank: r.
        alpha: of the scale.
        dropout: of the inputs of A, while tuned.
        encoder: the towers that are updated; with ``text`` alone, image features come from the bank.
    """

    tunes_prompts = False

    def __init__(
        self,
        clip: FrozenCLIP,
        classes: Sequence[str],
        *,
        template: str = "a photo of a {}.",
        rank: int = 2,
        alpha: float = 1.0,
        dropout: float = 0.25,
        encoder: Literal["both", "text", "vision"] = "both",
    ) -> None:
        super().__init__()
        if rank < 1 or not 0 <= dropout < 1:
            raise ValueError(f"rank is {rank} and dropout {dropout}: give 1 or more, and a share from 0 to below 1")
        self.clip, self.logit_scale = clip, clip.logit_scale
        self.scale, self.dropout = alpha / math.sqrt(rank), dropout
        self.tunes_image_tower = encoder != "text"
        self.uses_frozen_features = encoder == "text"
        sizes = {"text": (clip.text_layers, clip.text_width), "image": (clip.vision_layers, clip.vision_width)}
        self.towers = {"both": ("text", "image"), "text": ("text",), "vision": ("image",)}[encoder]
        for tower in self.towers:
            layers, width = sizes[tower]
            a = torch.empty(layers, 3, rank, width, device=clip.device).uniform_(-(width**-0.5), width**-0.5)
            setattr(self, f"{tower}_a", nn.Parameter(a))
            setattr(self, f"{tower}_b", nn.Parameter(torch.zeros(layers, 3, width, rank, device=clip.device)))
        self.texts = ClassTexts(clip, template)
        self.bind(classes)

    def bind(self, classes: Sequence[str]) -> None:
        """Tokenise the texts of ``classes``. See ``AbstractLearner.bind``."""
        self.classes = self.texts.bind(classes)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) image features by the updated tower."""
        if not self.tunes_image_tower:
            return frozen_image_features(self.clip, batch)
        if batch.images is None:
            raise ValueError("CLIP-LoRA changes the image tower: the batch must hold images")
        return self.clip.encode_image(batch.images, low_rank=self._updates("image"))

    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return (H, d) text features by the updated tower."""
        return self.clip.encode_text(*self.texts.select(only), low_rank=self._updates("text"))

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}

    def _updates(self, tower: str) -> list[LowRank]:
        """Return the update of each layer; none where the tower is not updated."""
        if tower not in self.towers:
            return []
        pairs = zip(getattr(self, f"{tower}_a"), getattr(self, f"{tower}_b"), strict=True)
        return [LowRank(a, b, self.scale, self.dropout if self.training else 0.0) for a, b in pairs]
