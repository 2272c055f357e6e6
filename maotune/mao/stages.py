"""Stages, of which methods are lists: MAO's two, the learner as published, DPC's, and controls between them."""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.contract import AbstractLearner, Batches, Classify, Stage
from maotune.data.batches import RandomSampler, Sampler, SequentialSampler
from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Sample
from maotune.mao.candidates import candidate_cross_entropy, per_image_cross_entropy, symmetric_cross_entropy
from maotune.mao.labelers import LABELERS, Shots
from maotune.mao.losses import pseudo_label_loss
from maotune.mao.neighbours import hard_negatives
from maotune.mao.pseudo_labels import PseudoLabels, PseudoLabelStore, label_pool, predict_labels
from maotune.mao.sampler import (
    HardNegativeSampler,
    RandomCandidateSampler,
    RankedNegativeSampler,
    StretchedSampler,
    mean_candidates,
    table_width,
)
from maotune.mao.selection import Selection, growing_length, select
from maotune.mao.settings import DpcSettings, MaoSettings

log = logging.getLogger(__name__)


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
    """Return the images of MAO's base stage, and the sampler that draws from them (Eq. 4).

    Args:
        classes: the base classes.
        shots: their few labelled images, which are the queries.
        train: the whole training split, for ``pool: train``.
        settings: of MAO.
        views: augmented views per image.
        seed: of the draws.
        cache: folder of hard-negative tables.
    """
    b, k = settings.b_and_k(len(classes))
    samples = images_to_draw(shots, train, settings)
    table = hard_negative_table(classes, settings, cache)
    sampler = HardNegativeSampler(
        _labels(samples), table, b=b, k=k, views=views, seed=seed, fill=settings.fill, queries=range(len(shots))
    )
    return samples, sampler


def images_to_draw(shots: Sequence[Sample], train: Sequence[Sample], settings: MaoSettings) -> list[Sample]:
    """Return the images that hard negatives are drawn from: the shots first, then the others of ``pool: train``."""
    if settings.pool == "few-shot":
        return list(shots)
    names = {sample.image.name for sample in shots}
    return [*shots, *(sample for sample in train if sample.image.name not in names)]


def hard_negative_table(classes: Sequence[str], settings: MaoSettings, cache: Path | None = None) -> Tensor:
    """Return the (C, W) nearest classes of each class by name, itself first; W is what batches need, at least K."""
    b, k = settings.b_and_k(len(classes))
    width = table_width(len(classes), b, k, settings.fill)
    return hard_negatives(classes, width, underscores=settings.underscores, encoder=settings.name_encoder, cache=cache)


def count_candidates(
    classes: Sequence[str], shots: Sequence[Sample], settings: MaoSettings, cache: Path | None = None
) -> float:
    """Return H, the mean number of candidates in a batch of MAO's base stage; warn where it is over half of C.

    The loss over most of the classes is close to the one over all of them: the base stage then regularizes little. The
    warning names the largest batches, with no larger b and K, that avoid this. Arguments as those of ``hard_draws``.
    """
    b, k = settings.b_and_k(len(classes))
    sizes = _labels(shots).bincount(minlength=len(classes)).tolist()
    table, half = hard_negative_table(classes, settings, cache), len(classes) / 2

    def mean(b: int, k: int) -> float:
        return mean_candidates(sizes, table, b=b, k=k, fill=settings.fill)

    count = mean(b, k)
    if count > half:
        usable = [pair for pair in itertools.product(range(1, b + 1), range(2, k + 1)) if mean(*pair) <= half]
        remedy = "no smaller b and K avoid this; the method hard-full shows what the batches do without the candidates"
        if usable:
            best = max(usable, key=lambda pair: (pair[0] * pair[1], pair[1]))
            remedy = f"with mao.b={best[0]} mao.k={best[1]} it holds {mean(*best):.1f}"
        log.warning(
            "a batch of MAO's base stage (b = %d, K = %d, mao.fill=%s) holds %.1f of the %d classes on average, more "
            "than half: its candidates restrict the loss little; %s",
            *(b, k, settings.fill, count, len(classes), remedy),
        )
    return count


class MakeBatches(Protocol):
    """Returns a function from a learner to its batches: features from the bank, pixels, or both."""

    def __call__(
        self, samples: Sequence[Sample], labels: Tensor, sampler: Sampler, *, training: bool
    ) -> Callable[[AbstractLearner], Batches]:
        """``labels`` (N,), (N, V), one per view, or (N, C); ``training``: augmented views, else the test view."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data of a run, and the means to use them."""

    classes: tuple[str, ...]
    """The base classes."""
    shots: Sequence[Sample]
    """Their few labelled images."""
    new_classes: tuple[str, ...] = ()
    """The new classes."""
    unlabelled: UnlabelledPool | None = None
    """Images for the new stage."""
    new_stage: bool = True
    """Whether the protocol has a new stage; if not (cross-dataset, few-shot), MAO is its base stage over all epochs."""
    train: Sequence[Sample] = ()
    """The whole training split of the base classes, for ``pool: train``."""
    make_batches: MakeBatches
    foundation: Callable[[], AbstractLearner]
    """Returns zero-shot CLIP, bound to the new classes."""
    epochs: int = 20
    """Epochs of the published learner; MAO splits them evenly between its stages. 0: it is computed in closed form."""
    lr: float = 0.002
    """Learning rate of the published learner."""
    batch_size: int = 32
    """Images per batch outside MAO's base stage."""
    views: int = 1
    """Different augmented views per image."""
    seed: int = 1
    cache: Path | None = None
    """Folder of hard-negative tables."""
    pseudo_labels: PseudoLabelStore = field(default_factory=PseudoLabelStore)
    """Keeps the pseudo-labels; those that it has are not predicted again."""
    dpc: DpcSettings = field(default_factory=DpcSettings)
    """Settings of DPC."""


class StageBuilder:
    """Builds the stages of a task."""

    def __init__(self, task: Task, settings: MaoSettings) -> None:
        self.task, self.settings = task, settings
        self.b, self.k = settings.b_and_k(len(task.classes))
        has_new_stage = task.new_stage and task.new_classes
        self.base_epochs = math.ceil(task.epochs / 2) if has_new_stage else task.epochs
        self.new_epochs = task.epochs - self.base_epochs

    def plain(self, updates: int = 0, epochs: int | None = None) -> Stage:
        """Return the stage of the learner as published; with ``updates``: of at least so many updates in all."""
        task = self.task
        epochs = task.epochs if epochs is None else epochs
        sampler: Sampler = RandomSampler(len(task.shots), task.batch_size, task.views, task.seed)
        if updates and epochs:
            sampler = StretchedSampler(sampler, math.ceil(updates / epochs))
        batches = task.make_batches(task.shots, _labels(task.shots), sampler, training=True)
        size = min(task.batch_size, len(task.shots))
        return Stage(
            "plain", task.classes, batches, F.cross_entropy, epochs, task.lr,
            updates=len(sampler), batch_size=size,
        )  # fmt: skip

    def parallel(self, updates: int = 0, epochs: int | None = None) -> Stage:
        """Return DPC's stage: queries, images of the classes that the learner took them for, and a symmetric loss.

        Args:
            updates: at least so many in all; 0: each labelled image is a query once an epoch.
            epochs: default: those of the settings.
        """
        task, dpc = self.task, self.task.dpc
        b, k = dpc.b_and_k(len(task.classes))
        epochs = epochs or dpc.epochs or task.epochs
        per_epoch = max(1, len(task.shots) // b)
        stretched = math.ceil(updates / epochs) if updates else per_epoch
        views = min(task.views, math.ceil(epochs * stretched / per_epoch))  # in which queries are used

        def batches(learner: AbstractLearner) -> Batches:
            order = SequentialSampler(len(task.shots), task.batch_size, views)
            queries = task.make_batches(task.shots, _labels(task.shots), order, training=True)(learner)
            names = [sample.image.name for sample in task.shots]
            predicted = predict_labels(learner, queries.epoch(0), names, probabilities=True)
            assert predicted.probabilities is not None
            ranked = predicted.probabilities.topk(min(k, len(task.classes)), dim=1).indices
            samples = images_to_draw(task.shots, task.train, self.settings)
            sampler: Sampler = RankedNegativeSampler(
                _labels(samples),
                len(task.classes),
                ranked.view(len(task.shots), views, -1),
                b=b,
                views=task.views,
                seed=task.seed,
                at_least=2 if dpc.reading == "released" else 0,
            )
            sampler = StretchedSampler(sampler, stretched) if updates else sampler
            return task.make_batches(samples, _labels(samples), sampler, training=True)(learner)

        lr = dpc.lr or task.lr
        return Stage(
            "parallel", task.classes, batches, symmetric_cross_entropy, epochs,
            lr / dpc.weight if dpc.reading == "released" else lr, True,
            updates=stretched, batch_size=min(b * k, len(task.classes)),
        )  # fmt: skip

    def parallel_then_new(self) -> list[Stage]:
        """Return DPC's two stages, which share the updates of MAO's base stage, and the new stage after the first."""
        first = math.ceil(self.base_updates / 2)
        second = max(1, self.base_updates - first)
        epochs = self.base_epochs
        plain, parallel = self.plain(first * epochs, epochs), self.parallel(second * epochs, epochs)
        if not self.task.new_stage:
            return [plain, parallel]
        _, *rounds = self.new(after=plain)
        return [plain, parallel, *(replace(stage, starts_from=plain.name) for stage in rounds)]

    def base(self, *, hard: bool = True, candidates: bool = True) -> Stage:
        """Return MAO's base stage: hard-negative batches and candidate cross-entropy (Eq. 4 to 6), or one of them."""
        task, settings = self.task, self.settings

        def batches(learner: AbstractLearner) -> Batches:
            samples, sampler = hard_draws(
                task.classes, task.shots, task.train, settings, views=task.views, seed=task.seed, cache=task.cache
            )
            chosen = sampler if hard else RandomCandidateSampler(sampler)
            return task.make_batches(samples, _labels(samples), chosen, training=True)(learner)

        over_batch = candidate_cross_entropy if settings.candidates == "unique" else per_image_cross_entropy
        classify: Classify = over_batch if candidates else F.cross_entropy
        size = self.b * self.k if settings.fill == "repeat" else min(self.b * self.k, len(task.classes))
        return Stage(
            "base", task.classes, batches, classify, self.base_epochs, settings.lr, candidates,
            updates=self.base_updates, batch_size=size,
        )  # fmt: skip

    def then_new(self, first: Stage) -> list[Stage]:
        """Return the stage ``first``, and the new stage after it where the protocol has one."""
        return self.new(after=first) if self.task.new_stage else [first]

    def new(self, *, after: Stage, true_labels: bool = False, restricted: bool = True) -> list[Stage]:
        """Return ``after`` and MAO's new stage, or its rounds: pseudo-labelled batches of all new classes (Eq. 7, 8).

        Not ``restricted``: over base and new classes together. This is our reading of Table 4 (c), new-class data
        without Alterable Regularization: in section 3.3 the regularization is that new-class candidates replace the
        base-class ones.
        """
        pool, last = self.pool(), self.rounds
        classes = self.task.new_classes  # these first: labels index them
        if not restricted:
            classes += tuple(name for name in self.task.classes if name not in set(self.task.new_classes))
        if true_labels:
            if max(pool.true_labels) < 0:
                raise ValueError(
                    "the method true-labels needs the true labels of the unlabelled images, and none is known"
                )
            return [after, self._new("new", classes, lambda _: self._truth(pool))]
        rounds = [
            self._new(
                "new" if number == last else f"new-{number}",
                classes,
                partial(self._labels_of_round, pool, number),
                images=self.kept_images(number / last),
                starts_from=after.name if number > 1 else None,
            )
            for number in range(1, last + 1)
        ]
        return [after, *rounds]

    def _new(
        self,
        name: str,
        classes: tuple[str, ...],
        label: Callable[[AbstractLearner], Selection],
        images: int | None = None,
        starts_from: str | None = None,
    ) -> Stage:
        """Return a stage on images of the pool with the labels that ``label`` gives them; ``images``: how many."""
        task, settings, samples = self.task, self.settings, self.pool().samples

        def batches(learner: AbstractLearner) -> Batches:
            kept, labels = label(learner)
            if labels.is_floating_point():
                labels = F.pad(labels, (0, len(classes) - labels.shape[1]))
            sampler = RandomSampler(len(kept), task.batch_size, task.views, task.seed)
            return task.make_batches([samples[i] for i in kept.tolist()], labels, sampler, training=True)(learner)

        return Stage(
            name, classes, batches, pseudo_label_loss(settings.loss, sets=settings.labels == "candidates"),
            self.new_epochs, settings.lr, updates=max(1, (images or len(samples)) // task.batch_size),
            batch_size=min(task.batch_size, len(samples)), starts_from=starts_from,
        )  # fmt: skip

    def distill(self) -> Stage:
        """Return a stage on the images of MAO without labels, over all classes: for learners that need no label."""
        task = self.task
        samples = [*task.shots, *(task.unlabelled.samples if task.unlabelled else ())]
        sampler = RandomSampler(len(samples), task.batch_size, task.views, task.seed)
        hidden = torch.zeros(len(samples), dtype=torch.int64)

        batches = task.make_batches(samples, hidden, sampler, training=True)
        classes = tuple(dict.fromkeys((*task.classes, *task.new_classes)))
        size = min(task.batch_size, len(samples))
        return Stage(
            "distill", classes, batches, F.cross_entropy, task.epochs, task.lr, updates=len(sampler), batch_size=size
        )

    def _truth(self, pool: UnlabelledPool) -> Selection:
        truth = torch.tensor(pool.true_labels)
        known = (truth >= 0).nonzero()[:, 0]
        return Selection(known, truth[known])

    def _labels_of_round(self, pool: UnlabelledPool, number: int, learner: AbstractLearner) -> Selection:
        """Return what the round ``number``, from 1, learns from; ``learner``: as the stage before left it."""
        store, last = self.task.pseudo_labels, self.rounds
        images = [sample.image.name for sample in pool.samples]
        key = 0 if number == last else number
        predicted = store.get(images, key)
        if predicted is None:
            predicted = self._predict(pool, images, learner, first=number == 1)
            store.put(predicted, key)
        return select(predicted, self.settings, number / last)

    def _predict(
        self, pool: UnlabelledPool, images: Sequence[str], learner: AbstractLearner, *, first: bool
    ) -> PseudoLabels:
        """Label the pool by the labeler; after the ``first`` round with the learner's probabilities as the prior."""
        kind, soft = self.settings.labeler, self.settings.needs_probabilities
        each_view = self.settings.label_views == "each"
        sampler = SequentialSampler(len(images), self.task.batch_size, views=self.task.views if each_view else 1)
        unknown = torch.zeros(len(images), dtype=torch.int64)
        batches = self.task.make_batches(pool.samples, unknown, sampler, training=each_view)
        predicted = None
        if not first or kind in ("foundation", "tuned"):
            model = self.task.foundation() if first and kind == "foundation" else learner
            predicted = predict_labels(model, batches(model).epoch(0), images, probabilities=soft)
        if kind in ("foundation", "tuned"):
            assert predicted is not None
            return predicted
        zeroshot, prior = self.task.foundation(), predicted.probabilities if predicted else None
        features, shots = batches(zeroshot).support().features[:, 0], None
        if kind == "transclip":
            shots = self._shots(zeroshot)
        labelled = label_pool(zeroshot, features, images, LABELERS[kind], prior, shots)
        return labelled if soft else replace(labelled, probabilities=None)

    def _shots(self, zeroshot: AbstractLearner) -> Shots | None:
        """Return the labelled images, where the pool's classes hold theirs."""
        task, place = self.task, {name: number for number, name in enumerate(self.task.new_classes)}
        if not {*task.classes} <= place.keys():
            return None
        labels = torch.tensor([place[task.classes[sample.label]] for sample in task.shots])
        sampler = SequentialSampler(len(labels), task.batch_size)
        support = task.make_batches(task.shots, labels, sampler, training=False)(zeroshot).support()
        return Shots(support.features[:, 0], F.one_hot(labels, len(place)).float())

    def pool(self) -> UnlabelledPool:
        """Return the unlabelled images.

        Raises:
            ValueError: the task cannot have a new stage; the message says why.
        """
        pool, classes = self.task.unlabelled, self.task.new_classes
        if not self.task.new_stage:
            raise ValueError(
                "this protocol tunes on all classes and has no new ones, so MAO has no new stage: choose the method "
                "mao, which is its base stage here"
            )
        if not classes or pool is None or not pool.samples:
            raise ValueError(
                f"MAO's new stage needs new classes and unlabelled images; there are {len(classes)} classes and "
                f"{len(pool.samples) if pool else 0} images. Give a folder of unlabelled images (data.unlabelled, "
                "--unlabelled), or choose the method base-only"
            )
        if self.task.epochs == 1:
            raise ValueError("1 epoch cannot be split between MAO's stages: give 2 or more, or the method base-only")
        return pool

    @property
    def base_updates(self) -> int:
        """Updates per epoch of the base stage."""
        return max(1, len(self.task.shots) // self.b)

    @property
    def rounds(self) -> int:
        """Rounds of the new stage."""
        return self.settings.rounds if self.settings.keep_in_use == "growing" else 1

    def kept_images(self, share: float) -> int:
        """Return the images of the pool that a round keeps, at most, whose lists hold ``share`` of it."""
        count, classes = len(self.pool().samples), len(self.task.new_classes)
        most = {
            "all": count,
            "top": self.settings.list_length * classes,
            "growing": growing_length(share, count, classes) * classes,
        }
        return min(count, most[self.settings.keep_in_use])

    def updates(self) -> int:
        """Return the number of MAO's updates in all."""
        stages = self.then_new(self.base())
        return sum(stage.epochs * (stage.updates or 0) for stage in stages)


def _labels(samples: Sequence[Sample]) -> Tensor:
    return torch.tensor([sample.label for sample in samples], dtype=torch.int64)
