"""Parts that most prompt learners share: class names, initial contexts, frozen image features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maotune.clip import FrozenCLIP
from maotune.clip.class_texts import refuse_same_texts
from maotune.contract import AbstractLearner, Batch, Classify, Output


class ClassNames(nn.Module):
    """The bound class names as token ids; embeddings are looked up for the classes that are needed.

    A prompt is ``[SOS] context name . [EOT]``: here a name is what follows the context, ``name . [EOT]``. Underscores
    count as spaces. Memory is C x S integers, so a step over 30 classes costs the same with 50 or 50,000 bound.
    """

    ids: Tensor
    eot: Tensor
    name_lengths: Tensor

    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__()
        self.clip = clip
        for name in ("ids", "eot", "name_lengths"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64, device=clip.device), persistent=False)

    def bind(self, classes: Sequence[str], context_length: int, words: str = "{}.") -> tuple[str, ...]:
        """Tokenise ``classes``, to follow ``context_length`` context tokens; return them as a tuple.

        ``words`` is what follows the context, with ``{}`` for the name: "person doing {}.", for instance.

        Raises:
            ValueError: no class, two of one text, or a name that leaves no room for the context (the message shows it).
        """
        if not classes:
            raise ValueError("no class names were given: at least one is needed to bind a learner")
        names = [name.replace("_", " ") for name in classes]
        tokens = self.clip.tokenize([words.replace("{}", name) for name in names])
        refuse_same_texts(classes, tokens)
        room = self.clip.context_length - context_length
        if int(tokens.eot.max()) >= room:
            longest = int(tokens.eot.argmax())
            raise ValueError(
                f"class name {classes[longest]!r} has {int(tokens.eot[longest]) - 2} tokens; beside {context_length} "
                f"context tokens a text of {self.clip.context_length} has room for {room - 3}. "
                "Shorten the name (a display name in the class list) or the context."
            )
        self.ids = tokens.ids[:, 1:].to(self.clip.device)
        self.eot = tokens.eot.to(self.clip.device) - 1
        self.name_lengths = self.clip.tokenize(names).eot.to(self.clip.device) - 1
        return tuple(classes)

    def select(self, only: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return embeddings (H, S, W) of ``name . [EOT]`` of the classes ``only`` (None: all), and (H,) its [EOT]."""
        ids, eot = (self.ids, self.eot) if only is None else (self.ids[only], self.eot[only])
        return self.clip.embed(ids[:, : int(eot.max()) + 1]), eot

    def lengths(self, only: Tensor | None) -> Tensor:
        """Return (H,) numbers of tokens of the bare names of the classes ``only``."""
        return self.name_lengths if only is None else self.name_lengths[only]

    def start(self) -> Tensor:
        """Return the (1, W) embedding of [SOS]."""
        return self.clip.embed(self.clip.tokenize([""]).ids[0, :1].to(self.clip.device))


class ClassTexts(nn.Module):
    """The bound classes in a template, as token ids; embeddings are looked up for the classes that are needed.

    Raises:
        ValueError: the template has no ``{}`` for the class name.
    """

    prefix: Tensor
    suffix: Tensor
    eot: Tensor

    def __init__(self, clip: FrozenCLIP, template: str) -> None:
        super().__init__()
        if "{}" not in template:
            raise ValueError(f"the template {template!r} has no {{}} for the class name")
        self.clip, self.template = clip, template
        for name in ("prefix", "suffix", "eot"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64, device=clip.device), persistent=False)

    def bind(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Tokenise the texts of ``classes``; return these as a tuple.

        Raises:
            ValueError: no class, two of one text, or a text that is too long (the message shows it).
        """
        if not classes:
            raise ValueError("no class names were given: at least one is needed to bind a learner")
        texts = [self.template.replace("{}", name.replace("_", " ")) for name in classes]
        refuse_same_texts(classes, self.clip.tokenize(texts))
        self.prefix, self.suffix, self.eot = self.clip.split_texts(texts)
        return tuple(classes)

    def select(self, only: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings (1, P, W) of what all texts begin with, (H, S, W) of the rests, and (H,) ends in these."""
        suffix, eot = (self.suffix, self.eot) if only is None else (self.suffix[only], self.eot[only])
        return self.clip.embed(self.prefix), self.clip.embed(suffix), eot


class TextPromptLearner(AbstractLearner):
    """A learner that does not tune the image tower and whose loss is the cross-entropy."""

    def __init__(self, clip: FrozenCLIP) -> None:
        super().__init__()
        self.clip = clip
        self.logit_scale = clip.logit_scale
        self.names = ClassNames(clip)

    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) features of the frozen image tower; see ``frozen_image_features``."""
        return frozen_image_features(self.clip, batch)

    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"cross_entropy": classify(output.logits, batch.labels)}


def frozen_image_features(clip: FrozenCLIP, batch: Batch) -> Tensor:
    """Return (B, d) features of the frozen image tower: those of the batch (from the feature bank), else computed."""
    if batch.features is not None:
        return batch.features
    if batch.images is None:
        raise ValueError("a batch holds neither images nor features: one of them is needed")
    with torch.no_grad():
        return clip.encode_image(batch.images)


def hard_labels(batch: Batch, learner: str) -> Tensor:
    """Return the labels (B,) int64 of a batch, for a loss that needs one class per image.

    Raises:
        ValueError: the labels are soft; the message names the learner.
    """
    if batch.labels.is_floating_point():
        raise ValueError(
            f"the loss of {learner} needs one class per image, (B,) int64 labels, but the batch has soft labels: "
            "choose another learner, or the most probable class of each image"
        )
    return batch.labels


def initial_context(clip: FrozenCLIP, length: int, words: str | None, shape: tuple[int, ...] = ()) -> Tensor:
    """Return (*shape, L, W) contexts: embeddings of ``words`` ("a photo of a"), or normal, standard deviation 0.02.

    Raises:
        ValueError: ``length`` is below 1, or not the number of tokens of ``words``.
    """
    if length < 1:
        raise ValueError(f"context_length is {length}: at least 1 token is needed")
    if words is None:
        return torch.empty(*shape, length, clip.text_width).normal_(std=0.02).to(clip.device)
    tokens = clip.tokenize([words.replace("_", " ")])
    count = int(tokens.eot[0]) - 1
    if count != length:
        raise ValueError(
            f"initial_words {words!r} are {count} tokens but context_length is {length}: "
            f"set context_length to {count}, or choose other words"
        )
    embedded = clip.embed(tokens.ids[0, 1 : 1 + count].to(clip.device)).detach()
    return embedded.expand(*shape, -1, -1).clone()


def insert(name: Tensor, eot: Tensor, context: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Insert ``context`` (L, W) or (H, L, W) into each row of ``name`` (H, S, W) before position ``at`` (H,)."""
    length = context.shape[-2]
    joined = torch.cat([name, context.expand(len(name), -1, -1)], dim=1)  # (H, S+L, W), context last
    position = torch.arange(joined.shape[1], device=name.device)
    at = at[:, None]
    moved = torch.where(position < at + length, position - at + name.shape[1], position - length)
    order = torch.where(position < at, position, moved)
    return joined.gather(1, order[..., None].expand_as(joined)), eot + length
