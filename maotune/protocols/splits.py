"""Which images are tuned on, which are scored, and by whose prompts: what a protocol is."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from maotune.data.draw import UnlabelledPool
from maotune.data.sets.dataset import Dataset, Sample

Split = Literal["test", "val", "held-out"]
"""What can be scored; ``held-out`` are the training images that nothing is tuned on, which look like the shots where
the other splits may not."""

Accuracies = Mapping[str, Mapping[str, float]]
"""By prompts (the stages in their order, then ``zeroshot``, which is always there and always last), then by test."""


def by_last(accuracies: Accuracies) -> dict[str, str]:
    """Every test by the prompts of the last stage."""
    *stages, zeroshot = accuracies
    return dict.fromkeys(accuracies[zeroshot], stages[-1] if stages else zeroshot)


@dataclass(frozen=True, slots=True)
class Test:
    """Labelled images that nothing is chosen by, and the classes to choose from."""

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    templates: tuple[str, ...] = ()
    """Zero-shot prompts of its own, where it is of another data set."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The data of one run."""

    name: str
    """Of the data set."""
    classes: tuple[str, ...]
    """The classes with labelled images (the base classes)."""
    shots: Sequence[Sample]
    """Their few labelled images."""
    train: Sequence[Sample]
    """The whole training split of these classes."""
    new_classes: tuple[str, ...] = ()
    """The classes of the new stage."""
    unlabelled: UnlabelledPool | None = None
    """Its images."""
    new_stage: bool = True
    """Whether the protocol has new classes at all: if not, MAO is its base stage."""
    tests: Mapping[str, Test] = field(default_factory=dict)
    """By name: ``base`` and ``new``, or ``val`` and ``test``."""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """The data set's own zero-shot prompts."""
    choose: Callable[[Accuracies], dict[str, str]] = by_last
    """Whose prompts score which test."""
    means: Callable[[Mapping[str, float]], dict[str, float]] = dict
    """The accuracies by test, and what sums them up: ``h``, ``average``."""

    def fingerprint(self) -> str:
        """Hex SHA-256 of all that is tuned on and scored: images by content, their order, labels and class names."""
        found = sha256()
        parts = [("shots", self.classes, self.shots)]
        parts += [(name, test.classes, test.samples) for name, test in self.tests.items()]
        if self.unlabelled is not None:
            parts.append(("unlabelled", self.new_classes, self.unlabelled.samples))
        for name, classes, samples in parts:
            found.update("\n".join((name, *classes, "")).encode())
            for sample in samples:
                found.update(f"{sample.label} {sample.image.digest()}\n".encode())
        return found.hexdigest()


def scored(dataset: Dataset, split: Split, tuned: Collection[str]) -> Sequence[Sample]:
    """The images of ``split`` to score; ``tuned`` are the names of those that are tuned on.

    Raises:
        ValueError: there is none.
    """
    if split == "held-out":
        samples: Sequence[Sample] = [sample for sample in dataset.train if sample.image.name not in tuned]
    else:
        samples = getattr(dataset, split)
    if not samples:
        raise ValueError(f"{dataset.name} has no {split} image to score")
    return samples


def left_to_train(drawn: Dataset, dataset: Dataset, split: Split) -> Sequence[Sample]:
    """The training split, as far as it is not scored."""
    return drawn.train if split == "held-out" else dataset.train
