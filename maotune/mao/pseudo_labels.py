"""Labels for unlabelled images of new classes: the top-1 predictions of a model (paper, Eq. 7)."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner, Batch
from maotune.files import read_json, read_tensors, write_json, write_tensors
from maotune.mao.labelers import Shots

PSEUDO_LABELS = "pseudo_labels.json"
"""File of a run's folder that holds its pseudo-labels; probabilities, where they are kept, are in ``.safetensors``."""


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
    probabilities: Tensor | None = None
    """(N, C) float32 of all classes, where more than the labels is learned from."""

    def save(self, path: Path) -> None:
        """Write everything, exactly, to a JSON file, and the probabilities to a safetensors file beside it."""
        content: dict[str, Any] = {
            "classes": self.classes,
            "images": self.images,
            "labels": self.labels.tolist(),
            "confidence": self.confidence.tolist(),
        }
        if self.probabilities is not None:
            write_tensors(path.with_suffix(".safetensors"), {"probabilities": self.probabilities}, {})
            content["probabilities"] = True
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
            soft = None
            if content.get("probabilities"):
                soft = read_tensors(path.with_suffix(".safetensors")).tensors["probabilities"]
                if soft.dtype != torch.float32 or soft.shape != (len(labels), len(content["classes"])):
                    raise ValueError(f"probabilities are {soft.dtype} of shape {tuple(soft.shape)}")
            return cls(labels, confidence, tuple(content["classes"]), tuple(content["images"]), soft)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or holds no pseudo-labels ({error}): delete it, and the images are labelled again"
            ) from error

    def most_confident(self, per_class: int) -> Tensor:
        """Return the indices, in order, of the ``per_class`` most confident images per pseudo-label (of view 0)."""
        return most_confident(*self.first_view(), per_class, len(self.classes))

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
    """The last; None until they are predicted or read."""
    round: int = 0
    """Number of the round of the last."""

    def get(self, images: Sequence[str], round_: int = 0) -> PseudoLabels | None:
        """Return the labels of the images of these names; None before they are predicted.

        Args:
            images: names.
            round_: number of the round that they are labelled for, 0 for the last.

        Raises:
            ValueError: those in the file are of other images, or the file is damaged.
        """
        if self.round != round_:
            self.labels = None
        self.round, file = round_, self._file(round_)
        if self.labels is None and file is not None and file.exists():
            labels = PseudoLabels.load(file)
            if _below_common_folder(labels.images) != _below_common_folder(images):
                raise ValueError(
                    f"{file} holds pseudo-labels of other images than the {len(images)} of this run: give the "
                    "unlabelled images that the run was started with, or choose another folder"
                )
            self.labels = labels
        return self.labels

    def put(self, labels: PseudoLabels, round_: int = 0) -> None:
        """Keep ``labels`` of a round."""
        if (file := self._file(round_)) is not None:
            labels.save(file)
        self.labels, self.round = labels, round_

    def _file(self, round_: int) -> Path | None:
        return self.path and (self.path.with_stem(f"{self.path.stem}-{round_}") if round_ else self.path)


def most_confident(labels: Tensor, confidence: Tensor, per_class: int, classes: int) -> Tensor:
    """Return the indices, in order, of the ``per_class`` most confident images of each of ``classes``."""
    by_confidence = confidence.argsort(descending=True, stable=True)
    by_class = by_confidence[labels[by_confidence].argsort(stable=True)]
    sizes = labels.bincount(minlength=classes)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    return by_class[rank < per_class].sort().values


@torch.no_grad()
def predict_labels(
    labeler: AbstractLearner, batches: Iterable[Batch], images: Sequence[str], *, probabilities: bool = False
) -> PseudoLabels:
    """Label each image of ``batches`` with the likeliest of the classes bound to ``labeler`` (Eq. 7).

    The paper's labeler is zero-shot CLIP; a tuned learner is its ablation (Table 5).

    Args:
        labeler: left in the mode that it is in.
        batches: the images in order; or all views of the first, all of the second, ...
        images: their N names.
        probabilities: whether those of all classes are kept, too.

    Raises:
        ValueError: there is no image.
    """
    training = labeler.training
    labeler.eval()
    device = next(chain(labeler.parameters(), labeler.buffers())).device
    text = None if labeler.text_depends_on_image else labeler.text_features()  # once for all batches
    best: list[tuple[Tensor, Tensor]] = []
    soft: list[Tensor] = []
    for batch in batches:
        image = labeler.image_features(batch.to(device))
        logits = labeler.logits(image, labeler.text_features(None, image) if text is None else text)
        chances = logits.float().softmax(dim=-1)
        confidence, labels = chances.max(dim=-1)
        best.append((labels.cpu(), confidence.cpu()))
        soft += [chances.cpu()] if probabilities else []
    labeler.train(training)
    if not best:
        raise ValueError("there is no unlabelled image to label: give a folder with at least one readable image")
    labels, confidence = (torch.cat(parts) for parts in zip(*best, strict=True))
    if len(labels) > len(images):
        labels, confidence = labels.view(len(images), -1), confidence.view(len(images), -1)
    return PseudoLabels(labels, confidence, tuple(labeler.classes), tuple(images), torch.cat(soft) if soft else None)


@torch.no_grad()
def label_pool(
    zeroshot: AbstractLearner,
    features: Tensor,
    images: Sequence[str],
    labeler: Callable[..., Tensor],
    prior: Tensor | None = None,
    shots: Shots | None = None,
) -> PseudoLabels:
    """Label the images of a pool by a labeler that looks at all of them at once (``LABELERS``).

    Args:
        zeroshot: zero-shot CLIP, bound to the classes.
        features: (N, d) of the frozen image tower.
        images: their N names.
        labeler: from features and texts to probabilities (N, C).
        prior: (N, C) probabilities of another model, to take for those of zero-shot CLIP.
        shots: labelled images of the classes, for a labeler that takes them; features as those of the pool.

    Raises:
        ValueError: there is no image.
    """
    if not len(features):
        raise ValueError("there is no unlabelled image to label: give a folder with at least one readable image")
    text = F.normalize(zeroshot.text_features(), dim=-1)

    def unit(rows: Tensor) -> Tensor:
        return F.normalize(rows.to(text.device), dim=-1)

    if shots is not None:
        labeler = partial(labeler, shots=Shots(unit(shots.images), shots.labels.to(text.device), shots.strength))
    given = None if prior is None else prior.to(text.device)
    soft = labeler(unit(features), text, zeroshot.logit_scale, given).cpu()
    confidence, labels = soft.max(dim=-1)
    return PseudoLabels(labels, confidence, tuple(zeroshot.classes), tuple(images), soft)


def _below_common_folder(names: Sequence[str]) -> list[str]:
    """Return the names without the folder that all images are in: it may have been moved."""
    try:
        common = os.path.commonpath([os.path.dirname(name) for name in names])
    except ValueError:  # relative and absolute paths
        common = ""
    return [name.removeprefix(common).lstrip(os.sep) for name in names]
