"""The methods: how prompts can be tuned, as lists of stages."""

from collections.abc import Callable
from typing import NamedTuple

from maotune.contract import Stage
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import StageBuilder, Task

ZEROSHOT = "zeroshot"
"""Name of zero-shot CLIP among methods and stages."""


class Method(NamedTuple):
    """A method: its summary, and its stages."""

    summary: str
    stages: Callable[[StageBuilder], list[Stage]]


METHODS: dict[str, Method] = {
    ZEROSHOT: Method("zero-shot CLIP: nothing is tuned", lambda s: []),
    "plain": Method("the learner as published", lambda s: [s.plain()]),
    "mao": Method("MAO: a base stage, then a new stage", lambda s: [s.base(), *s.new_if_any()]),
    "step-matched": Method(
        "control: plain, over as many updates as MAO (its epochs and schedule stretched)",
        lambda s: [s.plain(s.updates())],
    ),
    "base-only": Method("ablation: MAO's base stage, nothing after it", lambda s: [s.base()]),
    "new-only": Method("ablation: plain, then MAO's new stage", lambda s: [s.plain(), s.new()]),
    "random-candidates": Method(
        "control: MAO with random classes in the batches of the base stage",
        lambda s: [s.base(hard=False), *s.new_if_any()],
    ),
    "hard-full": Method(
        "control: MAO with the cross-entropy over all base classes",
        lambda s: [s.base(candidates=False), *s.new_if_any()],
    ),
    "new-full": Method(
        "ablation: MAO with the new stage's cross-entropy over base and new classes together",
        lambda s: [s.base(), s.new(restricted=False)],
    ),
    "true-labels": Method(
        "upper bound, not a method: MAO with the true labels of the unlabelled images",
        lambda s: [s.base(), s.new(true_labels=True)],
    ),
    "distill": Method(
        "for learners that look at no label: one stage on the images of all classes, unlabelled",
        lambda s: [s.distill()],
    ),
}
"""All methods by name."""


def build_stages(method: str, task: Task, settings: MaoSettings) -> list[Stage]:
    """Return the stages of ``method``, one of ``METHODS``. Nothing is computed before a stage begins.

    Raises:
        ValueError: the method is unknown, or it needs unlabelled images or a second epoch that the task does not have.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method].stages(StageBuilder(task, settings))
