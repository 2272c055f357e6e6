"""TaskRes against the official code: Adam with dassl's weight decay, 10 epochs of 4 updates."""

from typing import Any

import pytest
import torch

from maotune.learners.taskres import TaskRes
from maotune.train.loop import FitSettings
from tests.parity.world import BASE, NEW, Rows, World, check_training, close, golden, scores, slices


@pytest.mark.parametrize("fused", [False, True])
def test_taskres(fused: bool) -> None:
    """``fused`` is one pass over the parameters for an update: the recipe's, for a thousand classes."""
    clip: Any = World()
    learner = check_training(
        "taskres",
        lambda: TaskRes(clip, BASE, alpha=0.5),
        Rows(slices(10, 40)),
        FitSettings("Adam", {"weight_decay": 5e-4, "fused": fused}),
        2e-3,
        {"residual": "residual"},
    )
    close("taskres", "test_logits", scores(learner))


def test_new_classes_are_scored_as_by_zeroshot_clip() -> None:
    clip: Any = World()
    learner = TaskRes(clip, BASE)
    torch.nn.init.normal_(learner.residual)
    tuned = scores(learner)
    learner.bind((*NEW, BASE[3]))
    image = torch.nn.functional.normalize(golden("world")["test_raw"], dim=-1)
    zeroshot = 100 * image @ golden("world")["text"][10:].T
    torch.testing.assert_close(scores(learner)[:, :10], zeroshot, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores(learner)[:, 10], tuned[:, 3], rtol=0, atol=1e-4)
