"""The methods: how prompts can be tuned, as lists of stages, and whose prompts predict which classes."""

from collections.abc import Callable
from typing import NamedTuple

from maotune.contract import Predictors, Stage
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import StageBuilder, Task

ZEROSHOT = "zeroshot"
"""Name of zero-shot CLIP among methods and stages."""


class Method(NamedTuple):
    """A method: its summary, its stages, and whose prompts predict which classes."""

    summary: str
    stages: Callable[[StageBuilder], list[Stage]]
    predictors: Callable[[StageBuilder], Predictors]


def by(base: str, new: str | None = None) -> Callable[[StageBuilder], Predictors]:
    """Let stage ``base`` predict base classes, and stage ``new`` the others; ``base`` all where there is no such stage.

    The paper's Tables 4 and 8 can be read no other way.
    """
    return lambda builder: Predictors(base, new if new and builder.task.new_stage else base)


METHODS: dict[str, Method] = {
    ZEROSHOT: Method("zero-shot CLIP: nothing is tuned", lambda s: [], by(ZEROSHOT)),
    "plain": Method("the learner as published", lambda s: [s.plain()], by("plain")),
    "mao": Method("MAO: a base stage, then a new stage", lambda s: s.then_new(s.base()), by("base", "new")),
    "step-matched": Method(
        "control: plain, over as many updates as MAO (its epochs and schedule stretched)",
        lambda s: [s.plain(s.updates())],
        by("plain"),
    ),
    "base-only": Method("ablation: MAO's base stage, nothing after it", lambda s: [s.base()], by("base")),
    "new-only": Method("ablation: plain, then MAO's new stage", lambda s: s.new(after=s.plain()), by("plain", "new")),
    "random-candidates": Method(
        "control: MAO with random classes in the batches of the base stage",
        lambda s: s.then_new(s.base(hard=False)),
        by("base", "new"),
    ),
    "hard-full": Method(
        "control: MAO with the cross-entropy over all base classes",
        lambda s: s.then_new(s.base(candidates=False)),
        by("base", "new"),
    ),
    "new-full": Method(
        "ablation: MAO with the new stage's cross-entropy over base and new classes together",
        lambda s: s.new(after=s.base(), restricted=False),
        by("base", "new"),
    ),
    "true-labels": Method(
        "upper bound, not a method: MAO with the true labels of the unlabelled images",
        lambda s: s.new(after=s.base(), true_labels=True),
        by("base", "new"),
    ),
    "distill": Method(
        "for learners that look at no label: one stage on the images of all classes, unlabelled",
        lambda s: [s.distill()],
        by("distill"),
    ),
}
"""All methods by name."""


def predictors_of(method: str, task: Task, settings: MaoSettings) -> Predictors:
    """Return whose prompts predict which classes in a run of ``method``; arguments as those of ``build_stages``."""
    return METHODS[method].predictors(StageBuilder(task, settings))


def build_stages(method: str, task: Task, settings: MaoSettings) -> list[Stage]:
    """Return the stages of ``method``, one of ``METHODS``. Nothing is computed before a stage begins.

    Raises:
        ValueError: the method is unknown, or it needs unlabelled images or a second epoch that the task does not have.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method].stages(StageBuilder(task, settings))
