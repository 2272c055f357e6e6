"""A frozen CLIP, with prompts as arguments of its two towers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.clip.class_texts import refuse_same_texts
from maotune.clip.preprocess import Preprocess
from maotune.clip.tokenizer import Tokenizer, Tokens
from maotune.clip.towers import (
    ImageOutput,
    LowRank,
    add_low_rank,
    build_image_tower,
    build_text_tower,
    image_pass,
    text_pass,
)


class FrozenCLIP:
    """A frozen CLIP. Not a module: a learner that holds one neither registers nor saves its weights.

    The towers take prompts as arguments; gradients flow to those and to nothing else. Features are float32 and not
    normalised. ``load_clip`` reads one from a file; the constructor freezes any transformers ``CLIPModel``.

    Args:
        model: a transformers ``CLIPModel``, already on its device and in its precision.
        tokenizer: by default OpenAI's.
        preprocess: by default OpenAI's, at the image size of the model.
        name: its name in reports.
        fingerprint: of its weights, where known; by default computed.
        revision: commit of a model of the Hugging Face hub.
        activation_checkpointing: keep only the input of each layer for the backward pass; the rest is computed again.

    Raises:
        ValueError: tokenizer and model have vocabularies of different sizes.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer | None = None,
        preprocess: Preprocess | None = None,
        *,
        name: str = "clip",
        fingerprint: str | None = None,
        revision: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        text, vision = model.config.text_config, model.config.vision_config
        self.model = model.eval().requires_grad_(False)
        self.name, self.revision = name, revision
        self.context_length: int = text.max_position_embeddings
        self.tokenizer = tokenizer or Tokenizer.openai(self.context_length)
        if self.tokenizer.vocabulary_size != text.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocabulary_size} tokens and the text tower {text.vocab_size}: "
                "they do not belong together"
            )
        self.preprocess = preprocess or Preprocess(vision.image_size)
        self.fingerprint = fingerprint or fingerprint_of(model.config, model.state_dict())
        self.device: torch.device = model.text_projection.weight.device
        self.dtype: torch.dtype = model.text_projection.weight.dtype
        activations = {text.hidden_act, vision.hidden_act}
        self.activation: str = activations.pop() if len(activations) == 1 else "auto"
        """Of both towers; ``auto`` where they differ."""
        self.joint_width: int = model.config.projection_dim
        self.text_width: int = text.hidden_size
        self.vision_width: int = vision.hidden_size
        self.text_layers: int = text.num_hidden_layers
        self.vision_layers: int = vision.num_hidden_layers
        self.logit_scale = float(model.logit_scale.float().exp())
        self.activation_checkpointing = activation_checkpointing
        self._text = build_text_tower(model)
        self._image = build_image_tower(model)

    def __repr__(self) -> str:
        return f"FrozenCLIP({self.name!r}, {self.fingerprint[:12]}, {self.device}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenCLIP:
        """Return itself, because its weights never change: copies of a learner share it."""
        return self

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return the token ids of texts, on the device of the model.

        Raises:
            ValueError: a text is longer than the context (the message shows it), or the list is empty.
        """
        tokens = self.tokenizer(texts)
        return Tokens(tokens.ids.to(self.device), tokens.eot.to(self.device))

    def embed(self, ids: Tensor) -> Tensor:
        """Return (..., W) float32 embeddings, without positions, of token ids (...)."""
        table: Tensor = self.model.text_model.embeddings.token_embedding.weight
        return F.embedding(ids, table).float()

    def encode_text(
        self,
        prefix: Tensor,
        suffix: Tensor,
        eot: Tensor,
        layer_prompts: Mapping[int, Tensor] | None = None,
        *,
        inserted: bool = False,
        share: float = 1.0,
        chunk: int | None = None,
        low_rank: Sequence[LowRank] = (),
    ) -> Tensor:
        """Return (G N, d) features of embedded texts; those of a group share a prefix. See ``towers.text_pass``.

        Args:
            prefix: (G, P, W), the positions 0..P-1.
            suffix: (G N, S, W), or (N, S, W) the same in every group: the positions from P on.
            eot: (N,) positions of the end-of-text in the suffix, or (G, N) where they differ between groups. G prefixes
                with one text each (class-specific contexts) are ``eot`` (G, 1).
            layer_prompts: for text layers j >= 1, prompts that replace positions 1..L of the prefix at the input:
                (L, W), (G, L, W) or (G N, L, W).
            inserted: whether those of the first of these layers are inserted after position 0 instead.
            share: of the prompts in what stands where they replace; the rest is what was there.
            chunk: texts (groups, if there are several) per pass; by default as memory allows.
            low_rank: updates of query, key and value of each layer, if any.
        """
        tower = add_low_rank(self._text, low_rank) if low_rank else self._text
        return text_pass(
            tower, prefix, suffix, eot, layer_prompts,
            inserted=inserted, share=share, chunk=chunk, recompute=self.activation_checkpointing,
        ).float()  # fmt: skip

    def encode_image(
        self,
        images: Tensor,
        prompts: Sequence[Tensor] | None = None,
        *,
        projected: bool = True,
        low_rank: Sequence[LowRank] = (),
    ) -> Tensor:
        """Return (B, d) features of images (B, 3, h, w), with prompts (n, V) or (B, n, V) in the first layers.

        Prompts of layer 0 are appended after class token and patches; those of layer j replace them at its input. Not
        ``projected``: (B, V), before the projection to the joint space. ``low_rank``: updates of query, key and value
        of each layer, if any. See ``towers.image_pass``.
        """
        tower = add_low_rank(self._image, low_rank) if low_rank else self._image
        output: ImageOutput = "joint" if projected else "class"
        return image_pass(tower, images, prompts or (), recompute=self.activation_checkpointing, output=output).float()

    def encode_image_tokens(
        self, images: Tensor, prompts: Sequence[Tensor], *, first: int = 0, share: float = 1.0
    ) -> Tensor:
        """Return (B, 1 + n, V) class token and prompts of images as they leave the tower, before the projection.

        Args:
            images: (B, 3, h, w).
            prompts: (n, V) of each layer from ``first`` on: appended there, and replaced in the next layers.
            first: the first layer with prompts.
            share: of the prompts in what stands where they replace; the rest is what was there.
        """
        recompute = self.activation_checkpointing
        return image_pass(
            self._image, images, prompts, first=first, share=share, recompute=recompute, output="tokens"
        ).float()

    def project_image(self, features: Tensor) -> Tensor:
        """Return (B, d) features from (B, V), to the bit what ``encode_image`` would return."""
        return F.linear(features.to(self.dtype), self._image.projection).float()

    @property
    def image_projection(self) -> Tensor:
        """(d, V) float32: the projection of images to the joint space."""
        return self._image.projection.float()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (N, d) features of texts, without gradients. Their common beginning is computed once."""
        prefix, suffix, eot = self.split_texts(texts)
        return self.encode_text(self.embed(prefix), self.embed(suffix), eot)

    def split_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids of the texts' common beginning (1, P) and of their rests (N, S), and (N,) ends in these."""
        tokens = self.tokenize(texts)
        equal = (tokens.ids == tokens.ids[0]).all(dim=0).long().cumprod(0)
        shared = min(int(equal.sum()), int(tokens.eot.min()))  # an end-of-text always stays in the suffix
        return tokens.ids[:1, :shared], tokens.ids[:, shared:], tokens.eot - shared

    def zeroshot_text(self, classes: Sequence[str], templates: Sequence[str], *, normalise: bool = True) -> Tensor:
        """Return (C, d) text features of classes, averaged over templates such as "a photo of a {}.".

        Args:
            classes: names; an underscore stands for a space.
            templates: texts in which ``{}`` stands for the name.
            normalise: whether features are normalised to length 1 before the mean, as in CLIP's and CoOp's ensembles;
                PromptSRC's teacher is the plain mean.

        Raises:
            ValueError: no class, no template, or one without ``{}``; two classes of the same text
            (``class_texts.refuse_same_texts``); or a text is longer than the context.
        """
        if not classes:
            raise ValueError("no class names were given: at least one is needed")
        if isinstance(templates, str) or not templates:
            raise ValueError('templates must be a list of at least one text such as "a photo of a {}."')
        if wrong := [template for template in templates if "{}" not in template]:
            raise ValueError(f"the template {wrong[0]!r} has no {{}} for the class name")
        names = [name.replace("_", " ") for name in classes]
        refuse_same_texts(classes, self.tokenize([templates[0].replace("{}", name) for name in names]))
        total = torch.zeros(len(names), self.joint_width, device=self.device)
        for template in templates:
            features = self.encode_texts([template.replace("{}", name) for name in names])
            total += F.normalize(features, dim=-1) if normalise else features
        return total / len(templates)


def fingerprint_of(config: Any, weights: Mapping[str, Tensor]) -> str:
    """Return the hex SHA-256 of all that features depend on: each weight as float32, heads, activation and epsilon.

    It is the same for the same weights, whatever file and precision they were stored in (fp16 widens exactly).
    """
    digest = hashlib.sha256()
    for part in (config.text_config, config.vision_config):
        digest.update(f"{part.num_attention_heads} {part.hidden_act} {part.layer_norm_eps};".encode())
    for key in sorted(weights):
        value = weights[key].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{key} {tuple(value.shape)};".encode())
        digest.update(value.numpy().reshape(-1).data)
    return digest.hexdigest()
