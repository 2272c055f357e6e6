"""The learning rate of an epoch, as in Dassl (the training framework of CoOp and its successors)."""

import math
from typing import Literal

Decay = Literal["cosine", "constant"]


def learning_rate(
    base: float, epoch: int, epochs: int, *, warmup_epochs: int = 1, warmup_lr: float = 1e-5, decay: Decay = "cosine"
) -> float:
    """Return the learning rate of epoch ``epoch`` (from 0) of ``epochs``.

    A constant warm-up, then a cosine from ``base``. The cosine begins after the warm-up but has the length of the whole
    stage, so after a warm-up of w epochs it ends at its value at ``epochs - w - 1``, above zero.
    Dassl nests its two schedulers in this way, and published numbers depend on it. The warm-up rate is absolute: the
    same for every parameter group, whatever the group's factor.
    """
    if epoch < warmup_epochs:
        return warmup_lr
    if decay == "constant":
        return base
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - warmup_epochs) / epochs))
