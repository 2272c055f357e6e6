"""Cross-entropies over the classes of the batch only: MAO's Alterable Regularization (paper, Eq. 6), DPC's loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


def candidate_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the H distinct classes among ``labels`` (Eq. 6: duplicates are removed).

    Args:
        logits: (B, C) scores; columns of classes outside the batch are ignored and get no gradient.
        labels: (B,) int64.

    Raises:
        ValueError: soft labels, which name no candidates.
    """
    _check(labels)
    candidates, positions = torch.unique(labels, return_inverse=True)
    return F.cross_entropy(logits[:, candidates], positions)


def per_image_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over one column per image, as in the released code; arguments as above.

    A class that occurs twice is its own negative. If none does, the loss is that of ``candidate_cross_entropy``.
    """
    _check(labels)
    return F.cross_entropy(logits[:, labels], torch.arange(len(labels), device=labels.device))


def symmetric_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return DPC's loss: the mean of ``per_image_cross_entropy`` over a batch's classes, and over its images.

    S_ij is the score of image i for the class of image j:  1/2 [ CE(S, 1..B) + CE(S^T, 1..B) ]
    """
    _check(labels)
    scores, own = logits[:, labels], torch.arange(len(labels), device=labels.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def _check(labels: Tensor) -> None:
    if labels.is_floating_point() or labels.ndim != 1:
        raise ValueError(
            f"the candidate cross-entropy got labels of shape {tuple(labels.shape)} and type {labels.dtype}: it needs "
            "one class per image, (B,) int64; for soft labels choose a method without candidates, such as hard-full"
        )
