"""Gaussians of classes with one covariance, as a linear classifier: the formulas of GDA (Wang et al., ICLR 2024)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maotune.learners.feature_space import class_sums

Covariance = Literal["shared", "per-class"]

CONSTANT = 1e-6
"""Mean squared distance from the class mean below which views do not differ."""


class Gaussians(NamedTuple):
    """Gaussians of C classes with one covariance; scores are x.weight + bias."""

    weight: Tensor
    """(C, d) P mu_c."""
    bias: Tensor
    """(C,) -log C - 1/2 mu_c' P mu_c."""
    precision: Tensor
    """(d, d) P."""


class Neighbours(NamedTuple):
    """How the mean of a class without images is found from its text (d,): the views nearest to it, and the text."""

    views: int = 64
    """Number of views, at most."""
    copies: int = 16
    """Weight of the text beside them."""

    def of(self, text: Tensor, views: Tensor) -> Tensor:
        """Return those of ``views`` (n, d) that are nearest to a text."""
        return views[(views @ text).topk(min(self.views, len(views))).indices]

    def means(self, texts: Tensor, views: Tensor) -> Tensor:
        """Return (K, d) means of the classes with the texts (K, d)."""
        sums = [(near := self.of(text, views)).sum(0) / (len(near) + self.copies) for text in texts]
        share = self.copies / (min(self.views, len(views)) + self.copies)
        return torch.stack(sums) + share * texts

    def gaussians(self, texts: Tensor, views: Tensor, precision: Tensor | None) -> Gaussians:
        """Return the Gaussians of classes without images; ``precision`` None: the mean of theirs, about the texts."""
        if precision is None:
            parts = []
            for text in texts:
                near = self.of(text, views) - text
                parts.append(shrunk_precision((near.T @ near).double(), len(near)))
            precision = torch.stack(parts).mean(0)
        return linear_classifier(self.means(texts, views), precision.double())


def fit_gaussians(
    views: Tensor, labels: Tensor, texts: Tensor, covariance: Covariance, neighbours: Neighbours
) -> Gaussians:
    """Return the Gaussians of C classes.

    Args:
        views: (n, d) of length 1.
        labels: (n,) int64, or (n, C) probabilities, which weigh the means.
        texts: (C, d); classes without images have means found by ``neighbours``.
        covariance: of all views around their class means, shrunk (around the mean of all, where no class has two
            views); or the mean of the classes' own, not shrunk.
        neighbours: rule for classes without images.

    Raises:
        ValueError: too few views for covariances that are not shrunk, or soft labels there.
    """
    center = views.mean(0)
    centred = views - center  # the covariance is the same, and float32 suffices
    sums, counts = class_sums(centred, labels, len(texts))
    means = sums / counts.clamp(min=1e-12)[:, None]
    if covariance == "shared":
        total = centred.T @ centred
        scatter = total - (means.T * counts) @ means
        if scatter.trace() < CONSTANT * len(views):
            scatter = total
        precision = shrunk_precision(scatter.double(), len(views))
    else:
        precision = torch.linalg.inv(_mean_covariance(centred, labels, means, counts))
    means = torch.where(counts[:, None] > 0, means + center, 0)
    absent = counts == 0
    if absent.any():
        means[absent] = neighbours.means(texts[absent], views)
    return linear_classifier(means, precision)


def shrunk_precision(scatter: Tensor, count: int) -> Tensor:
    """Return d [ (n - 1) S + tr(S) I ]^-1 for (n - 1) S (d, d) of n rows."""
    ridge = (
        max(float(scatter.trace()), CONSTANT)
        / max(1, count - 1)
        * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    )
    inverse: Tensor = torch.linalg.inv(scatter + ridge)
    return len(scatter) * inverse


def linear_classifier(means: Tensor, precision: Tensor) -> Gaussians:
    """Return weight and bias of classes with the means (C, d)."""
    mu = means.to(precision.dtype)
    weight = mu @ precision
    bias = -0.5 * (weight * mu).sum(1) - torch.tensor(float(len(mu))).log()
    return Gaussians(weight.float(), bias.float(), precision.float())


def _mean_covariance(centred: Tensor, labels: Tensor, means: Tensor, counts: Tensor) -> Tensor:
    """Return the (d, d) mean of the covariances of the classes."""
    if labels.is_floating_point():
        raise ValueError("covariance per-class needs one class per image, and the labels are soft: use shared")
    if len(centred) - len(counts) < centred.shape[1]:
        raise ValueError(
            f"{len(centred)} views of {len(counts)} classes do not determine a covariance of {centred.shape[1]} "
            "dimensions: set covariance to shared, or use more images or views"
        )
    rows = (centred - means[labels]) / (counts[labels, None] - 1).clamp(min=1).sqrt()
    return (rows.T @ rows).double() / len(counts)
