"""Which images of a labelled pool the new stage learns from, and by which labels: a class, probabilities, or a set."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maotune.mao.pseudo_labels import PseudoLabels, most_confident
from maotune.mao.settings import MaoSettings

QUANTILE = 0.6
"""Share of the pool whose highest probability is below what a candidate set must reach in all (CPL)."""


class Selection(NamedTuple):
    """The images to learn from, and their labels."""

    images: Tensor
    """(n,) int64 indices into the pool, in order."""
    labels: Tensor
    """(n,) or (n, V) int64 classes; (n, C) float32 probabilities, or equal weights of the candidate classes."""

    def accuracy(self, truth: Tensor) -> float | None:
        """Return the share of images whose label, or likeliest class, is the true one (N; -1: of no class)."""
        true = truth[self.images]
        labels = self.labels.argmax(1) if self.labels.is_floating_point() else self.labels.view(len(true), -1)[:, 0]
        known = true >= 0
        return float((labels == true)[known].double().mean()) if known.any() else None


def label_quality(predicted: PseudoLabels, settings: MaoSettings, truth: Sequence[int]) -> dict[str, float]:
    """Return ``PseudoLabels.report``; where not all images are learned from by their likeliest class, also the share
    ``kept`` and, if true labels are known, its ``kept_accuracy``."""
    figures = predicted.report(truth)
    if settings.keep_in_use != "all" or settings.labels == "candidates":
        selection = select(predicted, settings)
        figures["kept"] = len(selection.images) / len(predicted.images)
        if (accuracy := selection.accuracy(torch.tensor(truth, dtype=torch.int64))) is not None:
            figures["kept_accuracy"] = accuracy
    return figures


def select(predicted: PseudoLabels, settings: MaoSettings, share: float = 1.0) -> Selection:
    """Return the images and labels that ``settings`` keep of what was predicted.

    Args:
        predicted: for the whole pool; with its probabilities, where the settings need them.
        settings: ``keep``, ``top_per_class``, ``labels``.
        share: of the pool, that growing lists hold in this round.

    Raises:
        ValueError: no image is kept.
    """
    count, labels = len(predicted.images), predicted.labels
    images = torch.arange(count)
    if settings.keep_in_use == "top":
        images = predicted.most_confident(settings.list_length)
    elif settings.keep_in_use == "growing":
        labels = filled_lists(_probabilities(predicted), growing_length(share, count, len(predicted.classes)))
        images = (labels >= 0).nonzero()[:, 0]
    if settings.labels != "hard":
        labels = _probabilities(predicted)
    if settings.labels == "candidates":
        labels = candidate_sets(labels)
        images = images[labels[images].any(dim=1)]
        if not len(images):
            raise ValueError(
                f"none of the {count} unlabelled images has a candidate class: give more images, or set mao.labels to "
                "hard or soft"
            )
    return Selection(images, labels[images])


def growing_length(share: float, images: int, classes: int) -> int:
    """Return the images a list of growing lists holds, when all hold ``share`` of the pool together."""
    return max(1, int(share * images / classes + 1e-9))


def filled_lists(probabilities: Tensor, length: int) -> Tensor:
    """Return the class (N,) in whose list of at most ``length`` images each image is, -1 where in none (GRIP).

    An image is in the list of the likeliest of its classes where ``length`` others are not more probable: where its
    first class has no room, in that of the second, and so on, so that every class has images (Menghini et al.,
    NeurIPS 2023). The lists are stable: no image could move to a class that is likelier for it.
    """
    left = probabilities.clone()
    while True:
        confidence, labels = left.max(dim=1)
        kept = torch.zeros(len(left), dtype=torch.bool)
        kept[most_confident(labels, confidence, length, left.shape[1])] = True
        refused = ~kept & (confidence >= 0)
        if not refused.any():
            return torch.where(kept & (confidence >= 0), labels, -1)
        # A full list takes nothing below its least: such images go on to other classes, all at once.
        least = torch.full((left.shape[1],), torch.inf).scatter_reduce_(0, labels[kept], confidence[kept], "amin")
        full = labels[kept].bincount(minlength=left.shape[1]) == length
        left[left < torch.where(full, least, 0)] = -1
        left[refused.nonzero()[:, 0], labels[refused]] = -1


def candidate_sets(probabilities: Tensor) -> Tensor:
    """Return (N, C) equal weights of the candidate classes of each image; a row of zeros where there is none (CPL).

    A class is a candidate where both hold: it is among the fewest likeliest classes of the image whose probabilities
    sum above the 0.6-quantile of the highest probabilities of all images; and the image is in the top 2/C of all for
    the class (Zhang et al., ICML 2024).
    """
    classes = probabilities.shape[1]
    enough = _quantile(probabilities.max(dim=1).values, QUANTILE)
    likeliest, order = probabilities.sort(dim=1, descending=True)
    before = likeliest.cumsum(1) - likeliest
    within = torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, order, before <= enough)
    across = probabilities >= _quantile(probabilities, max(0.0, 1 - 2 / classes))
    sets = (within & across).to(probabilities.dtype)
    return sets / sets.sum(1, keepdim=True).clamp(min=1)


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return the quantile over the first axis: a value that ``share`` of the others are below (any number of them)."""
    return values.kthvalue(1 + int(share * (len(values) - 1) + 1e-9), dim=0).values


def _probabilities(predicted: PseudoLabels) -> Tensor:
    if predicted.probabilities is None:
        raise ValueError("the pseudo-labels were saved without the probabilities that these settings of mao need")
    return predicted.probabilities
