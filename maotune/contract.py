"""The one page that prompt learners, MAO and the training loop share.

Letters, used everywhere: B images of a batch, C bound classes, H candidate classes (H <= C), d width of the joint
image-text space. Features are float32 and not normalised; losses are float32 scalars.

The two sides never import each other: a learner knows nothing of stages and samplers, MAO knows nothing of prompts.
They meet in three places: the ``Batch`` (data), the bound classes (vocabulary) and ``Classify`` (the candidate set of
the cross-entropy).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Classify = Callable[[Tensor, Tensor], Tensor]
"""``(logits (B, C), labels (B,)) -> scalar``: the cross-entropy that the training stage hands to a learner's losses."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images and their labels. At least one of ``images`` and ``features`` is there."""

    labels: Tensor
    """(B,) int64, indices into the bound classes; or (B, C) float32, their probabilities (soft labels)."""
    images: Tensor | None = None
    """(B, 3, h, w) normalised pixels."""
    features: Tensor | None = None
    """(B, d) features of the very same views by the frozen image tower, from the feature bank."""
    second_images: Tensor | None = None
    """(B, 3, h, w) another view of each image, for learners that compare two (``views = 2``)."""
    names: tuple[str, ...] = ()
    """What to call each image in a message."""
    position: int = 0
    """How many batches of the stage came before this one; the training loop sets it."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        tensors = {
            name: value.to(device, non_blocking=True)
            for name in ("labels", "images", "features", "second_images")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True)
class Output:
    """What a learner says of a batch."""

    image: Tensor
    """(B, d) image features."""
    text: Tensor
    """(H, d) text features, or (B, H, d) where the text depends on the image."""
    logits: Tensor
    """(B, H) scaled cosine similarities."""


def cosine_logits(image: Tensor, text: Tensor, scale: float) -> Tensor:
    """(B, H) ``scale`` x cosine similarity of image (B, d) and text features, (H, d) or one set an image (B, H, d)."""
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    if text.ndim == 2:
        return scale * image @ text.T
    return scale * torch.einsum("bd,bhd->bh", image, text)


class AbstractLearner(nn.Module, ABC):
    """A prompt learner: learnable prompts around a frozen CLIP.

    Built as ``Learner(clip, classes, *, settings...)``, which binds ``classes``; ``bind`` turns to others later.
    ``parameters()`` and ``state_dict()`` hold what is tuned and nothing else. The frozen CLIP is a plain attribute.
    The flags below are set by the class (by the instance where a setting, or a learner that it holds, decides).
    """

    tunes_image_tower: bool = False
    """Whether image features depend on the prompts. If not, they are the frozen CLIP's own (feature bank)."""
    uses_frozen_features: bool = True
    """Whether ``Batch.features`` is of use: as the image features themselves, or as a teacher's."""
    scores_all_classes: bool = False
    """Whether a loss term beside the cross-entropy runs over all bound classes, so that all must be encoded."""
    text_depends_on_image: bool = False
    """Whether ``text_features`` needs the image features (CoCoOp)."""
    uses_labels: bool = True
    """Whether the loss looks at ``Batch.labels``. A learner that does not can be tuned on unlabelled images."""
    learns_from_run: bool = False
    """Whether the constructor takes ``open_run``, which opens the folder of a finished run (PromptKD's teacher)."""
    views: int = 1
    """Views of an image that a batch must hold: 2 asks for ``Batch.second_images``."""

    classes: tuple[str, ...] = ()
    """The bound class names."""
    lr_factors: Mapping[str, float] = MappingProxyType({})
    """Multiples of the stage's learning rate for the parameters whose names begin so (DePT's head); the rest have 1."""
    logit_scale: float
    """1 / temperature of the frozen CLIP (100 for OpenAI's)."""

    @abstractmethod
    def bind(self, classes: Sequence[str]) -> None:
        """Point the same prompts at another vocabulary. Builds buffers that are never saved.

        Raises:
            ValueError: a name does not fit into the context (the message names it), or the list is empty.
        """

    @abstractmethod
    def image_features(self, batch: Batch) -> Tensor:
        """(B, d) image features of the batch."""

    @abstractmethod
    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """(H, d) text features of the classes ``only`` ((H,) int64; None: all C).

        (B, H, d) where ``text_depends_on_image``; only then is ``image`` (B, d) looked at.
        """

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """(B, H) scores of image features (B, d) against the text features of the classes ``only``."""
        return cosine_logits(image, text, self.logit_scale)

    def forward(self, batch: Batch, only: Tensor | None = None) -> Output:
        """Features and scores of a batch over the classes ``only``: no labels, no loss."""
        image = self.image_features(batch)
        text = self.text_features(only, image)
        return Output(image, text, self.logits(image, text, only))

    @abstractmethod
    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """The terms of the loss by name; their sum is minimised. The cross-entropy is ``classify`` and nothing else.

        ``output`` may be restricted to H candidates, with ``batch.labels`` counted among them: never where
        ``scores_all_classes``.
        """


class Batches(Protocol):
    """The data of a stage. A pure function of its seed, so that a run can continue at any batch."""

    def __len__(self) -> int:
        """Updates in an epoch."""
        ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``index`` (from 0), beginning with batch ``start``."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """One leg of tuning. A published learner is one stage; MAO is two (base, new)."""

    name: str
    classes: tuple[str, ...]
    batches: Callable[[AbstractLearner], Batches]
    """Called once, when the stage begins, with the learner as the stages before left it."""
    classify: Classify
    epochs: int
    lr: float
    batch_candidates: bool = False
    """``classify`` looks at the classes of the batch alone: learners without a term over all encode only those."""
    updates: int | None = None
    """Batches an epoch as far as they are known before it begins, to tell how long it will take."""
    batch_size: int | None = None
    """Images a batch, likewise."""
