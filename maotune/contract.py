"""The interface between prompt learners, MAO and the training loop, which do not import each other.

Letters, used everywhere: B images of a batch, C bound classes, H candidate classes (H <= C), d width of the joint
image-text space. Features are float32 and not normalised; losses are float32 scalars. Learners and MAO meet in three
places: the ``Batch`` (data), the bound classes (vocabulary) and ``Classify`` (candidates of the cross-entropy).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Classify = Callable[[Tensor, Tensor], Tensor]
"""``(logits (B, H), labels) -> scalar``: the cross-entropy, which the stage chooses and a learner adds to its loss.
Labels are (B,) int64, or (B, H) float32 probabilities."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of labelled images, given as pixels, as features of the frozen image tower, or as both."""

    labels: Tensor
    """(B,) int64, indices of the bound classes; or (B, C) float32, their probabilities (soft labels)."""
    images: Tensor | None = None
    """(B, 3, h, w) normalised pixels."""
    features: Tensor | None = None
    """(B, d) features of the same augmented views by the frozen image tower, from the feature bank."""
    unprojected: Tensor | None = None
    """(B, w) these before the projection to the joint space, for learners with ``uses_unprojected_features``."""
    second_images: Tensor | None = None
    """(B, 3, h, w) another augmented view of each image, for learners that compare two (``views = 2``)."""
    names: tuple[str, ...] = ()
    """Names of the images, for error messages."""
    position: int = 0
    """Number of batches before this one in the stage; the training loop sets it."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its tensors on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


@dataclass(frozen=True, slots=True)
class Support:
    """All labelled images of a stage, as features of the frozen image tower."""

    features: Tensor
    """(N, V, d) float32 of N images in V views; (N, V, w) with ``uses_unprojected_features``."""
    labels: Tensor
    """(N,) int64; (N, V) int64, one for each view; or (N, C) float32, probabilities of the bound classes."""

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return (N V, d) features, all views of an image together, and their labels (N V,) or (N V, C)."""
        views = self.features.shape[1]
        one_per_view = self.labels.ndim == 2 and not self.labels.is_floating_point()
        labels = self.labels.flatten() if one_per_view else self.labels.repeat_interleave(views, dim=0)
        return self.features.flatten(0, 1), labels


@dataclass(frozen=True, slots=True)
class Output:
    """The features and scores that a learner computes for a batch."""

    image: Tensor
    """(B, d) image features."""
    text: Tensor
    """(H, d) text features, or (B, H, d) where the text depends on the image."""
    logits: Tensor
    """(B, H) scores of the classes: scaled cosine similarities, unless the learner adds to them."""


def cosine_logits(image: Tensor, text: Tensor, scale: float) -> Tensor:
    """Return (B, H) ``scale`` x cosine similarity of image features (B, d) and text features (H, d) or (B, H, d)."""
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    return scale * image @ text.T if text.ndim == 2 else scale * torch.einsum("bd,bhd->bh", image, text)


class AbstractLearner(nn.Module, ABC):
    """A learner: learnable prompts around a frozen CLIP, or something learned on its features.

    Constructed as ``Learner(clip, classes, *, settings...)``, which binds ``classes`` last. ``parameters()`` and
    ``state_dict()`` hold only what is learned. A class sets the flags below, or its instances where a setting decides.

    A stage calls ``bind``, ``own`` and ``prepare``, then tunes by gradient (unless ``closed_form``).
    """

    tunes_image_tower: bool = False
    """Whether image features depend on the prompts. If not, they are the frozen CLIP's own (feature bank)."""
    uses_frozen_features: bool = True
    """Whether ``Batch.features`` are used: as the image features themselves, or as a teacher's."""
    uses_unprojected_features: bool = False
    """Whether ``Batch.unprojected`` is used."""
    tunes_prompts: bool = True
    """Whether prompts are tuned. If not, the epochs and learning rates that papers give for prompts do not apply."""
    closed_form: bool = False
    """Whether ``prepare`` computes all that is learned, so that a stage has no epochs."""
    prompts_are_parameters: bool = False
    """Whether all that is tuned are prompts, so that two sets of prompts are mixed by mixing the parameters. If not (a
    network makes the prompts, or features are tuned), the features are mixed."""
    varying: tuple[str, ...] = ()
    """Names in ``state_dict()`` of tensors whose shape depends on the images of the stage (a cache of features)."""
    scores_all_classes: bool = False
    """Whether a loss term besides the cross-entropy runs over all bound classes, so that all must be encoded."""
    image_depends_on_classes: bool = False
    """Whether ``image_features`` depend on which classes are bound (MMRL)."""
    text_depends_on_image: bool = False
    """Whether ``text_features`` needs the image features (CoCoOp)."""
    uses_labels: bool = True
    """Whether the loss uses ``Batch.labels``. If not, the learner can be tuned on unlabelled images."""
    learns_from_run: bool = False
    """Whether the constructor takes ``open_run``, which opens the folder of a finished run (PromptKD's teacher)."""
    views: int = 1
    """Augmented views per image in a batch: with 2, ``Batch.second_images`` is filled."""
    lr_factors: Mapping[str, float] = MappingProxyType({})
    """Factors on the learning rate of parameters whose names begin with a prefix (DePT's head); the others have 1."""
    classes: tuple[str, ...] = ()
    """The bound class names."""
    logit_scale: float
    """1 / temperature of the frozen CLIP (100 in OpenAI's models)."""

    @abstractmethod
    def bind(self, classes: Sequence[str]) -> None:
        """Use what is learned with other classes; raise ``ValueError`` for names that do not fit, or none.

        Classes that have no parameters of their own, where the learner has such, are scored as by zero-shot CLIP, or by
        the method's own rule.
        """

    def own(self) -> None:
        """Give the bound classes parameters of their own, where the learner has such; known ones keep their values."""

    def prepare(self, batches: "Batches") -> None:
        """Compute what a stage on the bound classes needs of all of its images: ``batches.support()``."""

    @abstractmethod
    def image_features(self, batch: Batch) -> Tensor:
        """Return (B, d) image features of the batch."""

    @abstractmethod
    def text_features(self, only: Tensor | None = None, image: Tensor | None = None) -> Tensor:
        """Return text features (H, d) of the classes ``only`` ((H,) int64, None: all), or (B, H, d) for each image."""

    def logits(self, image: Tensor, text: Tensor, only: Tensor | None = None) -> Tensor:
        """Return (B, H) scores of image features (B, d) against the text features of the classes ``only``."""
        return cosine_logits(image, text, self.logit_scale)

    def forward(self, batch: Batch, only: Tensor | None = None) -> Output:
        """Return features and scores of a batch over the classes ``only``: no labels, no loss."""
        image = self.image_features(batch)
        text = self.text_features(only, image)
        return Output(image, text, self.logits(image, text, only))

    @abstractmethod
    def losses(self, output: Output, batch: Batch, classify: Classify) -> dict[str, Tensor]:
        """Return the terms of the loss, whose sum is minimised, by name. ``classify`` is the only cross-entropy.

        Unless ``scores_all_classes``, ``output`` may hold H candidates only: then ``batch.labels`` are among these.
        """


class Batches(Protocol):
    """The batches of a stage, a pure function of the seed: a run can be resumed at any. ``len`` is that of an epoch."""

    def __len__(self) -> int: ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch ``index`` (from 0), from batch ``start`` on."""
        ...

    def support(self) -> Support:
        """Return all images of the stage; raise ``ValueError`` where the batches hold no features."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of tuning. A published learner is one stage; MAO is two (base, new)."""

    name: str
    classes: tuple[str, ...]
    batches: Callable[[AbstractLearner], Batches]
    """Called once, when the stage begins, with the learner as the stage before left it."""
    classify: Classify
    epochs: int
    """0 for a learner in closed form."""
    lr: float
    batch_candidates: bool = False
    """Whether ``classify`` uses the batch's own classes only: then learners encode no others, unless they need all."""
    updates: int | None = None
    batch_size: int | None = None
    """Batches per epoch and images per batch, where known before the stage begins: for estimates of its duration."""
    starts_from: str | None = None
    """Name of an earlier stage whose prompts it starts from, once ``batches`` was called; None: the one before."""


@dataclass(frozen=True, slots=True)
class Predictors:
    """Whose prompts predict which classes: names of stages, ``zeroshot``, or mixtures. It stands beside the stages.

    Plain tuning is ``Predictors("plain", "plain")``, MAO is ``Predictors("base", "new")``, DPC is
    ``Predictors("0.8 plain + 0.2 parallel", "plain")``.
    """

    base: str
    """For lists of base classes (those with labelled images) alone."""
    new: str
    """For all other lists of classes."""

    def of(self, classes: Collection[str], base_classes: Collection[str]) -> str:
        """Return whose prompts predict among ``classes``."""
        return self.base if {*classes} <= {*base_classes} else self.new


def name_mixture(weights: Mapping[str, float]) -> str:
    """Name a mixture of the prompts of stages by its weights: ``0.8 plain + 0.2 parallel``; alone: ``plain``."""
    parts = {name: weight for name, weight in weights.items() if weight}
    return " + ".join(f"{weight:.6g} {name}" for name, weight in parts.items()) if len(parts) > 1 else next(iter(parts))


def mixture_weights(prompts: str) -> dict[str, float]:
    """Return the weights of the stages in ``prompts``: invert ``name_mixture``.

    Raises:
        ValueError: a weight is missing, below 0, or the weights do not sum to 1.
    """
    parts = [part.split() for part in prompts.split(" + ")]
    if len(parts) == 1 and len(parts[0]) == 1:
        return {prompts.strip(): 1.0}
    try:
        weights = {name: float(weight) for weight, name in parts}
    except ValueError:
        weights = {}
    if (
        len(weights) < len(parts)
        or any(not weight >= 0 for weight in weights.values())
        or abs(sum(weights.values()) - 1) > 1e-4
    ):
        raise ValueError(
            f"prompts are {prompts!r}: give the name of one stage, or weights that sum to 1, each before its stage: "
            "0.8 plain + 0.2 parallel"
        )
    return weights
