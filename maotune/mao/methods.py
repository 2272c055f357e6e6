"""The methods: how prompts can be tuned, as lists of stages, and whose prompts predict which classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from maotune.contract import AbstractLearner, Predictors, Stage, name_mixture
from maotune.mao.settings import MaoSettings
from maotune.mao.stages import StageBuilder, Task

ZEROSHOT = "zeroshot"
"""Name of zero-shot CLIP among methods and stages."""


class Method(NamedTuple):
    """A method: its summary, its stages, whose prompts predict which classes, and what it asks of a learner."""

    summary: str
    stages: Callable[[StageBuilder], list[Stage]]
    predictors: Callable[[StageBuilder], Predictors]
    check: Callable[[AbstractLearner], None] = lambda learner: None
    """Raises ``ValueError`` for a learner that the method cannot tune; the message says why."""


def by(base: str, new: str | None = None) -> Callable[[StageBuilder], Predictors]:
    """Let stage ``base`` predict base classes, and stage ``new`` the others; ``base`` all where there is no such stage.

    The paper's Tables 4 and 8 can be read no other way.
    """
    return lambda builder: Predictors(base, new if new and builder.task.new_stage else base)


def by_dpc(builder: StageBuilder) -> Predictors:
    """Let a mixture of DPC's two stages predict base classes, and (the paper: with a share of 0) others."""
    dpc = builder.task.dpc
    base, new = (1.0 if dpc.reading == "released" else dpc.weight), dpc.new_weight
    return Predictors(*(name_mixture({"plain": 1 - share, "parallel": share}) for share in (base, new)))


def by_dpc_and_mao(builder: StageBuilder) -> Predictors:
    """Let DPC's mixture predict base classes, and MAO's new stage, where there is one, the others."""
    predictors = by_dpc(builder)
    return replace(predictors, new="new") if builder.task.new_stage else predictors


def check_labels_are_not_needed(learner: AbstractLearner) -> None:
    """Refuse a learner that learns from labels, which ``distill`` hides."""
    if learner.uses_labels:
        raise ValueError(
            f"the method distill hides all labels, and {type(learner).__name__} learns from labels: choose "
            "another method, or a learner that needs none (promptkd, with label_weight 0)"
        )


def check_tunes_on(learner: AbstractLearner) -> None:
    """Refuse a learner that does not go on from its first stage in a second one, or would not use DPC's loss there."""
    name, other = type(learner).__name__, "choose the method plain or mao, or another learner"
    if learner.closed_form:
        raise ValueError(f"DPC goes on tuning by gradient from what was learned, and {name} has a closed form: {other}")
    if learner.varying:
        raise ValueError(
            f"DPC mixes what two stages learn, and what {name} learns belongs to the images of one stage "
            f"({', '.join(learner.varying)}): {other}"
        )
    if not learner.uses_labels:
        raise ValueError(
            f"DPC's loss compares images with the classes of their labels, and {name} looks at no label: {other}, or "
            "give promptkd a learner.label_weight above 0"
        )


METHODS: dict[str, Method] = {
    ZEROSHOT: Method("zero-shot CLIP: nothing is tuned", lambda s: [], by(ZEROSHOT)),
    "plain": Method("the learner as published", lambda s: [s.plain()], by("plain")),
    "mao": Method("MAO: a base stage, then a new stage", lambda s: s.then_new(s.base()), by("base", "new")),
    "step-matched": Method(
        "control: plain, over as many updates as MAO (its epochs and schedule stretched)",
        lambda s: [s.plain(s.updates())],
        by("plain"),
    ),
    "dpc": Method(
        "DPC: plain, then parallel prompts for base classes, on the classes that plain takes an image for",
        lambda s: [s.plain(), s.parallel()],
        by_dpc,
        check_tunes_on,
    ),
    "dpc-mao": Method(
        "DPC for base classes, MAO's new stage for new ones, over as many updates as MAO",
        lambda s: s.parallel_then_new(),
        by_dpc_and_mao,
        check_tunes_on,
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
        check_labels_are_not_needed,
    ),
}
"""All methods by name."""


def check_learner(method: str, learner: AbstractLearner) -> None:
    """Check that ``method`` can tune ``learner``.

    Raises:
        ValueError: it cannot; the message says why.
    """
    METHODS[method].check(learner)


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
