"""The stages that methods are made of: MAO's two, the learner as published, and the controls between the two."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner, Batches, Classify, Stage
from maotune.data.batches import RandomSampler, Sampler
from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Sample
from maotune.mao.candidates import candidate_cross_entropy, per_image_cross_entropy
from maotune.mao.neighbours import hard_negatives
from maotune.mao.pseudo_labels import PseudoLabelStore, predict_labels
from maotune.mao.sampler import (
    EveryViewSampler,
    HardNegativeSampler,
    RandomCandidateSampler,
    StretchedSampler,
    table_width,
)
from maotune.mao.settings import MaoSettings


def hard_draws(
    classes: Sequence[str],
    shots: Sequence[Sample],
    train: Sequence[Sample],
    settings: MaoSettings,
    *,
    views: int,
    seed: int,
    cache: Path | None = None,
) -> tuple[list[Sample], HardNegativeSampler]:
    """The images that MAO's base stage draws from, and how it draws (Eq. 4).

    Args:
        classes: the base classes.
        shots: their few labelled images, which are the queries.
        train: the whole training split, for ``pool: train``.
        settings: of MAO.
        views: augmented views of each image.
        seed: of the draws.
        cache: a folder for hard-negative tables.
    """
    b, k = settings.b_and_k(len(classes))
    samples = list(shots)
    if settings.pool == "train":
        few = {sample.image.name for sample in samples}
        samples += [sample for sample in train if sample.image.name not in few]
    width = table_width(len(classes), b, k, settings.fill)
    table = hard_negatives(classes, width, underscores=settings.underscores, cache=cache)
    sampler = HardNegativeSampler(
        _labels(samples), table, b=b, k=k, views=views, seed=seed, fill=settings.fill, queries=range(len(shots))
    )
    return samples, sampler


class MakeBatches(Protocol):
    """Turns draws into batches, of what the learner looks at: features from the bank, pixels, or both."""

    def __call__(
        self, samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        """``labels`` (N,), or (N, V) one a view; ``training``: augmented views, else the one upright and whole."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What there is to learn from, and with what means."""

    classes: tuple[str, ...]
    """The base classes."""
    shots: Sequence[Sample]
    """Their few labelled images."""
    new_classes: tuple[str, ...] = ()
    """The new classes."""
    unlabelled: UnlabelledPool | None = None
    """Images for the new stage."""
    new_stage: bool = True
    """Whether the protocol has one: where not (cross-dataset, few-shot), MAO is its base stage over all epochs."""
    train: Sequence[Sample] = ()
    """The whole training split of the base classes, for ``pool: train``."""
    make_batches: MakeBatches
    foundation: Callable[[], AbstractLearner]
    """Makes zero-shot CLIP, bound to the new classes."""
    epochs: int = 20
    """Epochs of the published learner; MAO splits them evenly between its stages."""
    lr: float = 0.002
    """Learning rate of the published learner."""
    batch_size: int = 32
    """Images a batch outside MAO's base stage."""
    views: int = 1
    """Different augmented views of each image."""
    seed: int = 1
    cache: Path | None = None
    """A folder for hard-negative tables."""
    pseudo_labels: PseudoLabelStore = field(default_factory=PseudoLabelStore)
    """Keeps the labels of the pool's images; those in it are used, not predicted again."""


class StageBuilder:
    """The stages that methods are made of."""

    def __init__(self, task: Task, settings: MaoSettings) -> None:
        self.task, self.settings = task, settings
        self.b, self.k = settings.b_and_k(len(task.classes))
        halved = task.new_stage and task.new_classes
        self.base_epochs = math.ceil(task.epochs / 2) if halved else task.epochs
        self.new_epochs = task.epochs - self.base_epochs

    def plain(self, updates: int = 0) -> Stage:
        """The learner as published; with at least so many updates in all, if given."""
        task = self.task
        sampler: Sampler = RandomSampler(len(task.shots), task.batch_size, task.views, task.seed)
        if updates:
            sampler = StretchedSampler(sampler, math.ceil(updates / task.epochs))
        batches = task.make_batches(task.shots, _labels(task.shots), sampler, training=True)
        size = min(task.batch_size, len(task.shots))
        return Stage(
            "plain", task.classes, batches, F.cross_entropy, task.epochs, task.lr,
            updates=len(sampler), batch_size=size,
        )  # fmt: skip

    def base(self, *, hard: bool = True, candidates: bool = True) -> Stage:
        """Hard-negative batches and candidate cross-entropy (Eq. 4 to 6), or without one of the two."""
        task, settings = self.task, self.settings

        def batches(learner: AbstractLearner) -> Batches:
            samples, sampler = hard_draws(
                task.classes, task.shots, task.train, settings, views=task.views, seed=task.seed, cache=task.cache
            )
            drawn = sampler if hard else RandomCandidateSampler(sampler)
            return task.make_batches(samples, _labels(samples), drawn, training=True)(learner)

        over_batch = candidate_cross_entropy if settings.candidates == "unique" else per_image_cross_entropy
        classify: Classify = over_batch if candidates else F.cross_entropy
        size = min(self.b * self.k, len(task.classes))
        return Stage(
            "base", task.classes, batches, classify, self.base_epochs, settings.lr, candidates,
            updates=self.base_updates, batch_size=size,
        )  # fmt: skip

    def after(self, **how: bool) -> list[Stage]:
        """The new stage, where the protocol has one."""
        return [self.new(**how)] if self.task.new_stage else []

    def new(self, *, true_labels: bool = False, restricted: bool = True) -> Stage:
        """Pseudo-labelled batches of new classes, cross-entropy over all of these (Eq. 7 and 8).

        Not ``restricted``: over base and new classes together. That is how we read Table 4 (c), new-class data without
        Alterable Regularization, for in section 3.3 the regularization is that the new-class candidates supersede the
        base-class ones.
        """
        task = self.task
        pool = self.pool()
        truth = torch.tensor(pool.true_labels)
        if true_labels and (truth < 0).all():
            raise ValueError("the method true-labels needs the true labels of the unlabelled images, and none is known")

        def batches(learner: AbstractLearner) -> Batches:
            labels, kept = (truth, (truth >= 0).nonzero()[:, 0]) if true_labels else self.label(pool, learner)
            samples = [pool.samples[index] for index in kept.tolist()]
            sampler = RandomSampler(len(samples), task.batch_size, task.views, task.seed)
            return task.make_batches(samples, labels[kept], sampler, training=True)(learner)

        classes = task.new_classes  # these first, for the labels count among them
        if not restricted:
            classes += tuple(name for name in task.classes if name not in set(task.new_classes))
        size = min(task.batch_size, len(pool.samples))
        return Stage(
            "new", classes, batches, F.cross_entropy, self.new_epochs, self.settings.lr,
            updates=self.new_updates, batch_size=size,
        )  # fmt: skip

    def distill(self) -> Stage:
        """All images without their labels, all classes bound: for learners whose loss looks at no label.

        The labelled images of the base classes and the unlabelled ones are what MAO sees, too.
        """
        task = self.task
        samples = [*task.shots, *(task.unlabelled.samples if task.unlabelled else ())]
        sampler = RandomSampler(len(samples), task.batch_size, task.views, task.seed)
        hidden = torch.zeros(len(samples), dtype=torch.int64)

        def batches(learner: AbstractLearner) -> Batches:
            if learner.uses_labels:
                raise ValueError(
                    f"the method distill hides all labels, and {type(learner).__name__} learns from labels: choose "
                    "another method, or a learner that needs none (promptkd, with label_weight 0)"
                )
            return task.make_batches(samples, hidden, sampler, training=True)(learner)

        classes = tuple(dict.fromkeys((*task.classes, *task.new_classes)))
        size = min(task.batch_size, len(samples))
        return Stage(
            "distill", classes, batches, F.cross_entropy, task.epochs, task.lr, updates=len(sampler), batch_size=size
        )

    def label(self, pool: UnlabelledPool, learner: AbstractLearner) -> tuple[Tensor, Tensor]:
        """Return the pseudo-labels of the pool's images, (N,) or (N, V), and the indices of the images to keep."""
        task, top = self.task, self.settings.top_per_class
        images = [sample.image.name for sample in pool.samples]
        labels = task.pseudo_labels.get(images)
        if labels is None:
            labeler = task.foundation() if self.settings.labeler == "foundation" else learner
            each_view = self.settings.label_views == "each"
            sampler = EveryViewSampler(len(images), task.views if each_view else 1, task.batch_size)
            unknown = torch.zeros(len(images), dtype=torch.int64)
            batches = task.make_batches(pool.samples, unknown, sampler, training=each_view)(labeler)
            labels = predict_labels(labeler, batches.epoch(0), images)
            task.pseudo_labels.put(labels)
        return labels.labels, torch.arange(len(images)) if top is None else labels.most_confident(top)

    def pool(self) -> UnlabelledPool:
        """The unlabelled images."""
        pool, classes = self.task.unlabelled, self.task.new_classes
        if not self.task.new_stage:
            raise ValueError(
                "this protocol tunes on all classes and has none that are new, so MAO's new stage has nothing to do: "
                "choose the method mao, which is its base stage here"
            )
        if not classes or pool is None or not pool.samples:
            raise ValueError(
                f"MAO's new stage needs new classes and unlabelled images; there are {len(classes)} classes and "
                f"{len(pool.samples) if pool else 0} images. Give a folder of unlabelled images (data.unlabelled, "
                "--unlabelled), or choose the method base-only"
            )
        if not self.new_epochs:
            raise ValueError("1 epoch cannot be split between MAO's stages: give 2 or more, or the method base-only")
        return pool

    @property
    def base_updates(self) -> int:
        """Updates an epoch of the base stage."""
        return max(1, len(self.task.shots) // self.b)

    @property
    def new_updates(self) -> int:
        """Updates an epoch of the new stage (at most: ``top_per_class`` may find fewer images)."""
        count = len(self.pool().samples)
        if self.settings.top_per_class:
            count = min(count, self.settings.top_per_class * len(self.task.new_classes))
        return max(1, count // self.task.batch_size)

    def updates(self) -> int:
        """Updates of MAO in all."""
        new = self.new_epochs * self.new_updates if self.task.new_stage else 0
        return self.base_epochs * self.base_updates + new


def _labels(samples: Sequence[Sample]) -> Tensor:
    return torch.tensor([sample.label for sample in samples], dtype=torch.int64)
