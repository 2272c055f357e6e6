"""Draw few-shot images, and split classes into base and new: exactly as in CoOp's code, for every seed."""

import logging
import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from maotune.data.sets.dataset import Dataset, Sample

log = logging.getLogger(__name__)

PoolMode = Literal["balanced", "natural", "natural+off-class"]


def few_shot(dataset: Dataset, shots: int, seed: int | random.Random) -> Dataset:
    """Draw ``shots`` training images per class, and min(``shots``, 4) validation images from the same stream.

    CoOp's draw: one Python ``random`` stream; classes in the order in which they first occur in the split; all images
    of a class that has fewer. Draw before splitting into base and new classes (``base_new(few_shot(...))``), as CoOp
    does. A ``random.Random`` instead of a seed continues its stream. The test split and unlabelled images stay.

    Raises:
        ValueError: ``shots`` < 1, or a class without any training image.
    """
    if shots < 1:
        raise ValueError(f"shots is {shots}: give the number of training images per class, 1 or more")
    present = {sample.label for sample in dataset.train}
    if missing := [name for label, name in enumerate(dataset.classes) if label not in present]:
        raise ValueError(
            f"{dataset.name}: {_names(missing)} without any training image; "
            "add images for it to the training split, or take the name out of the class list"
        )
    stream = seed if isinstance(seed, random.Random) else random.Random(seed)
    train = _draw(dataset.train, shots, stream)
    return replace(dataset, train=train, val=_draw(dataset.val, min(shots, 4), stream))


def _draw(samples: Sequence[Sample], shots: int, stream: random.Random) -> tuple[Sample, ...]:
    by_label: dict[int, list[Sample]] = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample)
    drawn: list[Sample] = []
    for items in by_label.values():
        drawn += stream.sample(items, shots) if len(items) >= shots else items
    return tuple(drawn)


def base_new(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split into the base half, the first ceil(C/2) labels, and the new half, the rest; both labelled from 0.

    Images without a label are in both.

    Raises:
        ValueError: fewer than 2 classes.
    """
    count = len(dataset.classes)
    if count < 2:
        raise ValueError(f"{dataset.name}: {count} classes cannot be split into base and new; 2 are the least")
    half = math.ceil(count / 2)
    return (
        _only(dataset, range(half), f"{dataset.name}/base"),
        _only(dataset, range(half, count), f"{dataset.name}/new"),
    )


def _only(dataset: Dataset, labels: Collection[int], name: str) -> Dataset:
    relabel: Mapping[int, int] = {label: position for position, label in enumerate(sorted(labels))} | {-1: -1}

    def relabelled(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(Sample(sample.image, relabel[sample.label]) for sample in samples if sample.label in relabel)

    return replace(
        dataset,
        name=name,
        classes=tuple(dataset.classes[label] for label in sorted(labels)),
        train=relabelled(dataset.train),
        val=relabelled(dataset.val),
        test=relabelled(dataset.test),
        unlabelled=relabelled(dataset.unlabelled),
    )


@dataclass(frozen=True, slots=True)
class UnlabelledPool:
    """Unlabelled images for MAO's new stage."""

    samples: tuple[Sample, ...]
    """The images, all with label -1."""
    true_labels: tuple[int, ...]
    """The hidden labels, only to report the accuracy of pseudo-labels: -1 where unknown or of no new class."""
    mode: str
    """How they were drawn (``PoolMode``)."""


def draw_unlabelled_pool(
    new: Dataset,
    shots: int,
    seed: int,
    mode: PoolMode = "balanced",
    off_class: Dataset | None = None,
) -> UnlabelledPool:
    """Draw unlabelled images of the classes of ``new`` from its training split.

    ``balanced``: ``shots`` of each true class, as in the paper: the hidden labels choose (the same images where ``new``
    is a few-shot set already). ``natural``: ``shots`` x C images whatever their class: no label is used.
    ``natural+off-class``: as many, from the training splits of ``new`` and ``off_class`` together, so that some belong
    to no new class. Unlabelled images of the data set's own are part of the natural pools.

    Raises:
        ValueError: an unknown mode; no images; ``off_class`` given or missing against the mode.
    """
    if mode not in ("balanced", "natural", "natural+off-class"):
        raise ValueError(f"unlabelled pool {mode!r} is unknown; there are balanced, natural, natural+off-class")
    if (off_class is None) == (mode == "natural+off-class"):
        raise ValueError("an off-class data set goes with the pool natural+off-class, and only with it")
    if mode == "balanced":
        drawn = few_shot(new, shots, seed).train
    else:
        outside = () if off_class is None else tuple(Sample(sample.image, -1) for sample in off_class.train)
        candidates = (*new.train, *new.unlabelled, *outside)
        drawn = tuple(random.Random(seed).sample(candidates, min(shots * len(new.classes), len(candidates))))
    if not drawn:
        raise ValueError(f"{new.name} has no image to draw an unlabelled pool from")
    samples = tuple(Sample(sample.image, -1) for sample in drawn)
    return UnlabelledPool(samples, tuple(sample.label for sample in drawn), mode)


def leave_held_out(pool: UnlabelledPool, dataset: Dataset, labelled: Sequence[Sample], shots: int) -> UnlabelledPool:
    """Return the pool without those images that would leave too few training images of a class to be scored.

    A quarter of each class's are left; fewer, where ``shots`` of them would leave fewer. A warning says how many images
    the pool has lost.

    Args:
        pool: drawn from the training images of ``dataset``.
        dataset: all classes.
        labelled: the images that are tuned on with their labels.
        shots: images per class that are there to be tuned on in any case.
    """
    owner = {sample.image.name: sample.label for sample in dataset.train}
    sizes = Counter(owner.values())
    most = {label: max(size - math.ceil(size / 4), min(size, shots)) for label, size in sizes.items()}
    tuned = {sample.image.name for sample in labelled}
    counts = Counter(owner[name] for name in tuned)
    kept = []
    for sample, label in zip(pool.samples, pool.true_labels, strict=True):
        name = sample.image.name
        if name not in tuned and name in owner:
            if counts[owner[name]] == most[owner[name]]:
                continue
            counts[owner[name]] += 1
        kept.append((sample, label))
    if lost := len(pool.samples) - len(kept):
        log.warning(
            "%d of %d unlabelled images are left out: with the split held-out, a quarter of the training images of "
            "each class stays to be scored",
            *(lost, len(pool.samples)),
        )
    return replace(pool, samples=tuple(image for image, _ in kept), true_labels=tuple(label for _, label in kept))


def _names(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"class {shown} is" if len(names) == 1 else f"classes {shown}{more} are"
