"""Labels for unlabelled images of new classes: the top-1 predictions of a model (paper, Eq. 7)."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner, Batch
from maotune.files import read_json, write_json

PSEUDO_LABELS = "pseudo_labels.json"
"""File of a run's folder that holds its pseudo-labels."""


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """The predictions of a model for the N images of an unlabelled pool."""

    labels: Tensor
    """(N,) int64, the class with the highest score; or (N, V), one per augmented view."""
    confidence: Tensor
    """float32 probability of that class, of the same shape."""
    classes: tuple[str, ...]
    """The C classes to choose from."""
    images: tuple[str, ...]
    """Names of the N images."""

    def save(self, path: Path) -> None:
        """Write everything, exactly, to a JSON file."""
        content = {
            "classes": self.classes,
            "images": self.images,
            "labels": self.labels.tolist(),
            "confidence": self.confidence.tolist(),
        }
        write_json(path, content, indent=None)

    @classmethod
    def load(cls, path: Path) -> "PseudoLabels":
        """Read what ``save`` wrote.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            content = read_json(path)
            labels = torch.tensor(content["labels"], dtype=torch.int64)
            confidence = torch.tensor(content["confidence"], dtype=torch.float32)
            return cls(labels, confidence, tuple(content["classes"]), tuple(content["images"]))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or holds no pseudo-labels ({error}): delete it, and the images are labelled again"
            ) from error

    def most_confident(self, per_class: int) -> Tensor:
        """Return the indices, in order, of the ``per_class`` most confident images per pseudo-label (of view 0)."""
        labels, confidence = self.first_view()
        by_confidence = confidence.argsort(descending=True, stable=True)
        by_class = by_confidence[labels[by_confidence].argsort(stable=True)]
        sizes = labels.bincount(minlength=len(self.classes))
        rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
        return by_class[rank < per_class].sort().values

    def first_view(self) -> tuple[Tensor, Tensor]:
        """Return label and confidence (N,) of each image, by its first view."""
        count = len(self.images)
        return self.labels.view(count, -1)[:, 0], self.confidence.view(count, -1)[:, 0]

    def report(self, truth: Sequence[int] = ()) -> dict[str, float]:
        """Return counts, and figures of quality between 0 and 1.

        ``images``; mean ``confidence``; ``balance``: exp(entropy of the labels' shares) / C, 1 where all classes are
        equally frequent; ``classes_without_image``. With ``truth`` (N; -1: of no class), if any is known: ``accuracy``
        over the images that belong to a class, and ``off_class``, the share of the others.
        """
        shares = self.labels.flatten().bincount(minlength=len(self.classes)).double() / self.labels.numel()
        report = {
            "images": float(len(self.labels)),
            "confidence": float(self.confidence.mean()),
            "balance": float(torch.special.entr(shares).sum().exp() / len(self.classes)),
            "classes_without_image": float((shares == 0).sum()),
        }
        true = torch.tensor(truth, dtype=torch.int64)
        known = true >= 0
        if known.any():
            correct = self.labels[known].reshape(int(known.sum()), -1) == true[known, None]
            report |= {"accuracy": float(correct.double().mean()), "off_class": float((~known).double().mean())}
        return report


@dataclass
class PseudoLabelStore:
    """Keeps the pseudo-labels of one run, so that they are predicted once, also when the run is resumed."""

    path: Path | None = None
    """File to keep them in; None: in memory."""
    labels: PseudoLabels | None = None
    """None until they are predicted or read."""

    def get(self, images: Sequence[str]) -> PseudoLabels | None:
        """Return the labels of the images of these names; None before they are predicted.

        Raises:
            ValueError: those in the file are of other images, or the file is damaged.
        """
        if self.labels is None and self.path is not None and self.path.exists():
            labels = PseudoLabels.load(self.path)
            if _below_common_folder(labels.images) != _below_common_folder(images):
                raise ValueError(
                    f"{self.path} holds pseudo-labels of other images than the {len(images)} of this run: give the "
                    "unlabelled images that the run was started with, or choose another folder"
                )
            self.labels = labels
        return self.labels

    def put(self, labels: PseudoLabels) -> None:
        """Keep ``labels``."""
        if self.path is not None:
            labels.save(self.path)
        self.labels = labels


@torch.no_grad()
def predict_labels(labeler: AbstractLearner, batches: Iterable[Batch], images: Sequence[str]) -> PseudoLabels:
    """Label each image of ``batches`` with the likeliest of the classes bound to ``labeler`` (Eq. 7).

    The paper's labeler is zero-shot CLIP; a tuned learner is its ablation (Table 5).

    Args:
        labeler: left in the mode that it is in.
        batches: the images in order; or all views of the first, all of the second, ...
        images: their N names.

    Raises:
        ValueError: there is no image.
    """
    training = labeler.training
    labeler.eval()
    device = next(chain(labeler.parameters(), labeler.buffers())).device
    text = None if labeler.text_depends_on_image else labeler.text_features()  # once for all batches
    best: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        image = labeler.image_features(batch.to(device))
        logits = labeler.logits(image, labeler.text_features(None, image) if text is None else text)
        confidence, labels = logits.float().softmax(dim=-1).max(dim=-1)
        best.append((labels.cpu(), confidence.cpu()))
    labeler.train(training)
    if not best:
        raise ValueError("there is no unlabelled image to label: give a folder with at least one readable image")
    labels, confidence = (torch.cat(parts) for parts in zip(*best, strict=True))
    if len(labels) > len(images):
        labels, confidence = labels.view(len(images), -1), confidence.view(len(images), -1)
    return PseudoLabels(labels, confidence, tuple(labeler.classes), tuple(images))


@torch.no_grad()
def label_pool(
    zeroshot: AbstractLearner, features: Tensor, images: Sequence[str], labeler: Callable[..., Tensor]
) -> PseudoLabels:
    """Label the images of a pool by a labeler that looks at all of them at once (``LABELERS``).

    Args:
        zeroshot: zero-shot CLIP, bound to the classes.
        features: (N, d) of the frozen image tower.
        images: their N names.
        labeler: from features and texts to probabilities (N, C).

    Raises:
        ValueError: there is no image.
    """
    if not len(features):
        raise ValueError("there is no unlabelled image to label: give a folder with at least one readable image")
    text = F.normalize(zeroshot.text_features(), dim=-1)
    soft = labeler(F.normalize(features.to(text.device), dim=-1), text, zeroshot.logit_scale)
    confidence, labels = soft.max(dim=-1)
    return PseudoLabels(labels.cpu(), confidence.cpu(), tuple(zeroshot.classes), tuple(images))


def _below_common_folder(names: Sequence[str]) -> list[str]:
    """Return the names without the folder that all images are in: it may have been moved."""
    try:
        common = os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # relative and absolute paths
        common = ""
    return [name.removeprefix(common).lstrip(os.sep) for name in names]
