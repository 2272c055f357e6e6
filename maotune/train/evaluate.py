"""Score learners: accuracy on labelled images, scores of any images."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from maotune.contract import AbstractLearner, Batch, Batches
from maotune.train.device import device_of

TEXTS_AT_ONCE = 4096
"""Class texts encoded in one call; bounds the memory with many classes, and where the text depends on the image."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a learner for N labelled images. Accuracies are in percent."""

    classes: tuple[str, ...]
    labels: Tensor
    """(N,) int64, the true classes."""
    predictions: Tensor
    """(N,) int64, the class of the highest score."""
    highest: Tensor
    """(N,) float32, that score."""
    rivals: Mapping[str, Tensor] = field(default_factory=dict)
    """Other list of classes -> (N,) float32, the highest score among these."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of correct images (CoOp's measure), not the mean over classes."""
        return 100.0 * int((self.predictions == self.labels).sum()) / len(self)

    @property
    def mean_per_class(self) -> float:
        """Mean of the accuracies of the classes that have images, as Caltech101, Pets and Flowers report it."""
        by_class = [value for value in self.per_class.values() if not math.isnan(value)]
        return sum(by_class) / len(by_class)

    @property
    def per_class(self) -> dict[str, float]:
        """Accuracy per class; NaN for a class without images."""
        counts = self.confusion.double()
        return dict(zip(self.classes, (100 * counts.diagonal() / counts.sum(dim=1)).tolist(), strict=True))

    @property
    def confusion(self) -> Tensor:
        """(C, C) int64: number of images of the row's class that were predicted as the column's."""
        count = len(self.classes)
        return torch.bincount(self.labels * count + self.predictions, minlength=count * count).view(count, count)


def evaluate(
    learner: AbstractLearner,
    batches: Batches,
    on_batch: Callable[[int], None] = lambda images: None,
    rivals: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Evaluation:
    """Classify the images of the first epoch of ``batches`` among the learner's bound classes.

    Text features are computed once per list of classes, unless they depend on the image, and image features once,
    unless they depend on the classes.

    Args:
        learner: is bound to the same classes afterwards.
        batches: of labelled images.
        on_batch: called with the number of images done so far.
        rivals: other lists of classes, for what a joint vocabulary would predict.

    Raises:
        ValueError: no image, soft labels, or a label outside the bound classes.
        ArithmeticError: scores that are not finite; the message names the images.
    """
    classes = learner.classes
    labels, predictions, highest, images = [], [], [], []
    for batch, image, logits in _scores(learner, batches, on_batch):
        _check_labels(batch.labels, len(classes))
        labels.append(batch.labels.cpu())
        predictions.append(logits.argmax(dim=1).cpu())
        highest.append(logits.amax(dim=1).float().cpu())
        images += [image] if rivals and not learner.image_depends_on_classes else []
    elsewhere = {name: _highest(learner, others, images or batches) for name, others in rivals.items()}
    if rivals:
        learner.bind(classes)
    return Evaluation(classes, torch.cat(labels), torch.cat(predictions), torch.cat(highest), elsewhere)


def score_images(
    learner: AbstractLearner, batches: Batches, on_batch: Callable[[int], None] = lambda images: None
) -> Tensor:
    """Return the scores (N, C) float32 of the images of the first epoch for the bound classes; labels are ignored.

    Raises:
        ValueError: no image.
        ArithmeticError: scores that are not finite; the message names the images.
    """
    return torch.cat([logits.float().cpu() for _, _, logits in _scores(learner, batches, on_batch)])


def harmonic_mean(base: float, new: float) -> float:
    """Return H = 2 base new / (base + new), in the unit of its arguments; 0 where both are 0.

    The H of an average over data sets is that of the two averages, not the average of H.
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def _scores(
    learner: AbstractLearner, batches: Batches, on_batch: Callable[[int], None]
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield each batch of the first epoch with its image features (B, d) and its logits (B, C)."""
    device, done = device_of(learner), 0
    with _evaluating(learner):
        score = _scorer(learner, device)
        for batch in (batch.to(device) for batch in batches.epoch(0)):
            image = learner.image_features(batch)
            logits = score(image)
            if not bool(torch.isfinite(logits).all()):
                raise ArithmeticError(_not_finite(batch.names, torch.isfinite(logits).all(dim=1).tolist()))
            yield batch, image, logits
            done += len(batch)
            on_batch(done)
    if not done:
        raise ValueError("there is no image to score: give at least one")


def _not_finite(names: Sequence[str], finite: Sequence[bool]) -> str:
    """Say for which images of a batch scores are not finite, and what is to be suspected, the likeliest first."""
    bad = [name for name, fine in zip(names, finite, strict=False) if not fine]
    weights = (
        "the weights of the CLIP or the prompts are damaged (load or download them again), or the range of fp16 is too "
        "small (try bf16 or fp32)"
    )
    some = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    of = "all" if not any(finite) else f"{len(finite) - sum(finite)} of"
    return (
        f"scores are not finite for {of} {len(finite)} images of a batch: {weights}. The images: {some or 'not named'}"
    )


def _highest(learner: AbstractLearner, classes: Sequence[str], images: Sequence[Tensor] | Batches) -> Tensor:
    """Return the highest score (N,) of each image among ``classes``, from image features (B, d) or from the images.

    The learner is left bound to ``classes``.
    """
    learner.bind(classes)
    if not isinstance(images, Sequence):
        return torch.cat([logits.amax(dim=1).float().cpu() for *_, logits in _scores(learner, images, lambda _: None)])
    with _evaluating(learner):
        score = _scorer(learner, device_of(learner))
        return torch.cat([score(image).amax(dim=1).float().cpu() for image in images])


@contextmanager
def _evaluating(learner: AbstractLearner) -> Iterator[None]:
    """Compute in evaluation mode and without gradients."""
    training = learner.training
    learner.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        learner.train(training)


def _scorer(learner: AbstractLearner, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function from image features to logits over the bound classes, whose texts are encoded once."""
    if learner.text_depends_on_image:
        return lambda image: _image_dependent_logits(learner, image)
    text = _text_features(learner, device)
    return lambda image: learner.logits(image, text)


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.is_floating_point():
        raise ValueError("soft labels have no accuracy: give one class per image, (N,) int64")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the learner is bound to {classes} "
            f"classes (0 to {classes - 1}): bind it to the classes of these images"
        )


def _text_features(learner: AbstractLearner, device: torch.device) -> Tensor:
    count = len(learner.classes)
    if count <= TEXTS_AT_ONCE:
        return learner.text_features()
    chunks = torch.split(torch.arange(count, device=device), TEXTS_AT_ONCE)
    return torch.cat([learner.text_features(only) for only in chunks])


def _image_dependent_logits(learner: AbstractLearner, image: Tensor) -> Tensor:
    """Return the logits (B, C), computed for a few classes at a time."""
    chunk = max(1, TEXTS_AT_ONCE // max(1, len(image)))
    classes = torch.arange(len(learner.classes), device=image.device)
    parts = [learner.logits(image, learner.text_features(only, image), only) for only in torch.split(classes, chunk)]
    return torch.cat(parts, dim=1)
