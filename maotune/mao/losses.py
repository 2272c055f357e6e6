"""Classification losses of pseudo-labels: of one class, of probabilities, or of a set of candidates."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import Classify

Loss = Literal["cross-entropy", "gce", "mae"]

POWER = 0.7
"""r of the generalised cross-entropy (1 - q^r) / r (Zhang and Sabuncu, NeurIPS 2018)."""

PENALTIES: dict[Loss, Callable[[Tensor], Tensor]] = {
    "cross-entropy": lambda log_q: -log_q,
    "gce": lambda log_q: (1 - (POWER * log_q).exp()) / POWER,
    "mae": lambda log_q: 1 - log_q.exp(),
}
"""Loss -> what a class of log-probability log q costs."""


def pseudo_label_loss(loss: Loss, *, sets: bool = False) -> Classify:
    """Return the loss, as a mean over the images.

    Labels (B,) int64 cost the penalty of their class; probabilities (B, C) the mean penalty by their weights; with
    ``sets``, (B, C) weights above 0 say which classes are candidates, and the penalty is that of their probability in
    all. The three are the same where a row has one class. Cross-entropy of sets: CPL's "cc"; MAE: NLPrompt.
    """
    if loss == "cross-entropy" and not sets:
        return F.cross_entropy
    penalty = PENALTIES[loss]

    def classify(logits: Tensor, labels: Tensor) -> Tensor:
        log_q = logits.log_softmax(dim=1)
        if not labels.is_floating_point():
            return penalty(log_q.gather(1, labels[:, None])).mean()
        if sets:
            return penalty(log_q.masked_fill(labels == 0, -torch.inf).logsumexp(dim=1)).mean()
        return (labels * penalty(log_q)).sum(dim=1).mean()

    return classify
