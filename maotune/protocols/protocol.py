"""The interface of protocols: which images are tuned on, and which are scored."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from maotune.contract import Predictors
from maotune.data.draw import PoolMode, UnlabelledPool
from maotune.data.sets.dataset import Dataset, Sample, Skipped

Split = Literal["test", "val", "held-out"]
"""The split that is scored. ``held-out``: the training images that are not tuned on. In the shipped sets these show the
drawings that are tuned on, in other compositions."""

Accuracies = Mapping[str, Mapping[str, float]]
"""Accuracy by prompts (stages and mixtures of them in order, then always ``zeroshot``), then by test."""


@dataclass(frozen=True, slots=True)
class Test:
    """Labelled images to score, and the classes to choose from."""

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    templates: tuple[str, ...] = ()
    """Its own zero-shot prompts, where it comes from another data set."""


CROSS_VALIDATED = "cv"
"""Name of the test that is scored by cross-validation over the labelled images."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The data of one run."""

    name: str
    """Name of the data set."""
    classes: tuple[str, ...]
    """Classes with labelled images (the base classes)."""
    shots: Sequence[Sample]
    """The few labelled images of these classes."""
    train: Sequence[Sample]
    """The whole training split of these classes."""
    new_classes: tuple[str, ...] = ()
    """Classes of the new stage."""
    unlabelled: UnlabelledPool | None = None
    """Images of the new stage."""
    new_stage: bool = True
    """Whether the protocol has new classes at all; if not, MAO is its base stage."""
    tests: Mapping[str, Test] = field(default_factory=dict)
    """By name: ``base`` and ``new``, or ``val`` and ``test``, ..."""
    averaged: tuple[str, ...] = ()
    """Names of the tests that the protocol's average is taken over, where it has one."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """The data set's own zero-shot prompts."""
    left_out: tuple[Skipped, ...] = ()
    """Images that are not tuned on because they are scored."""
    folds: tuple[int, ...] = ()
    """Fold of each of the ``shots`` in the cross-validation, -1 for those that are always tuned on. The images of the
    test ``cv`` are those with a fold, fold by fold."""

    def without_fold(self, fold: int) -> "Splits":
        """Return the data of a run that is tuned without the images of a fold, and scored on them."""
        whole, sizes = self.tests[CROSS_VALIDATED], Counter(self.folds)
        start = sum(sizes[before] for before in range(fold))
        held = whole.samples[start : start + sizes[fold]]
        names = {sample.image.name for sample in held}
        shots, train = ([s for s in samples if s.image.name not in names] for samples in (self.shots, self.train))
        return replace(self, shots=shots, train=train, tests={CROSS_VALIDATED: replace(whole, samples=held)}, folds=())


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Settings that a protocol draws the images of a run by."""

    shots: int
    """Labelled images per class."""
    seed: int
    """Seed of the draws."""
    split: Split = "test"
    """The split that is scored."""
    pool: PoolMode = "balanced"
    """How unlabelled images are drawn, where the protocol draws them."""
    pool_shots: int | None = None
    """Unlabelled images per new class; default: ``shots``."""
    folds: int = 0
    """Folds of a cross-validation, where the protocol has one; 0: none."""


class Protocol(ABC):
    """A way of choosing the images to tune on and to score. A new one is a file beside these and a line in the list."""

    name: str
    summary: str
    settings: Mapping[str, Any] = MappingProxyType({})
    """Settings of the recipe with dotted keys: under a recipe file that names the protocol, over one that does not."""
    measures: tuple[str, ...]
    """The scores of a run, the one that it is judged by first."""
    takes_unlabelled: bool = False
    """Whether the user gives the unlabelled images; if not, the protocol draws what it needs."""
    takes_targets: bool = False
    """Whether other data sets are scored beside the source."""
    cross_validates: bool = False
    """Whether images that come without splits are all tuned on, and scored by cross-validation."""
    joint: bool = False
    """Whether the classes of all tests together are a vocabulary, for which the scores of a run are recorded, too."""

    @abstractmethod
    def draw(self, datasets: Sequence[Dataset], settings: DrawSettings) -> Splits:
        """Draw the images of a run.

        Args:
            datasets: the source, then the targets where ``takes_targets``.
            settings: how many, and with which seed.

        Raises:
            ValueError: the data do not fit the protocol.
        """

    def choose(self, predictors: Predictors, accuracies: Accuracies) -> Predictors:
        """Return whose prompts predict: here the ``predictors`` of the method, whatever the accuracies."""
        return predictors

    def means(self, splits: Splits, accuracy: Mapping[str, float]) -> dict[str, float]:
        """Return the accuracies by test, with what sums them up (``h``, ``average``)."""
        return dict(accuracy)

    def known_classes(self, tuned: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """Return the classes to predict among by default, from the classes of the stages in order."""
        return tuned[0]


def scored(dataset: Dataset, split: Split, tuned: Collection[str]) -> Sequence[Sample]:
    """Return the images of ``split`` to score; ``tuned`` holds the names of the images that are tuned on.

    Raises:
        ValueError: there are none.
    """
    if split == "held-out":
        samples: Sequence[Sample] = [sample for sample in dataset.train if sample.image.name not in tuned]
    else:
        samples = getattr(dataset, split)
    if not samples:
        all_tuned = split == "held-out" and dataset.train
        why = ": all its training images are tuned on; give fewer data.shots, or score another data.split"
        raise ValueError(f"{dataset.name} has no {split} image to score{why if all_tuned else ''}")
    return samples


def tunable(drawn: Dataset, dataset: Dataset, split: Split) -> Sequence[Sample]:
    """Return the training split without images that are scored."""
    return drawn.train if split == "held-out" else dataset.train
