"""Adaptation to one's own images: all classes, a heap of unlabelled images where there is one."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from maotune.data.draw import UnlabelledPool, few_shot
from maotune.data.images.decode import decode_threads
from maotune.data.sets.dataset import Dataset, Sample, UnreadableImage
from maotune.protocols.splits import Accuracies, Splits, Test

log = logging.getLogger(__name__)


def adapt(dataset: Dataset, shots: int, seed: int) -> Splits:
    """Tune on ``shots`` images of each class that has any, then on the unlabelled ones over all classes.

    These may be images of any class, also of those that have a name and no labelled image; what they show is not
    known, so the new stage chooses among all names. Scored on the validation split, by which the prompts to use are
    chosen, and on the test split. What is scored is not tuned on: a picture that is also a validation or test image is
    taken out of the unlabelled ones and of the training split.

    Raises:
        ValueError: fewer than two classes, or no labelled image to tune on.
    """
    if len(dataset.classes) < 2:
        raise ValueError(f"{dataset.name} has {len(dataset.classes)} classes: at least 2 are needed to tell apart")
    scored = {*_digests([*dataset.val, *dataset.test])} - {None}
    train = _without(dataset.train, scored, "labelled training images")
    labelled = {sample.label for sample in train}
    order = [label for label in range(len(dataset.classes)) if label in labelled]
    if not order:
        raise ValueError(f"{dataset.name} has no labelled training image: zero-shot is all that can be done with it")
    place = {label: position for position, label in enumerate(order)}
    base = replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in order),
        train=tuple(Sample(sample.image, place[sample.label]) for sample in train),
        val=tuple(Sample(sample.image, place[sample.label]) for sample in dataset.val if sample.label in place),
    )
    images = _without(dataset.unlabelled, scored, "unlabelled images")
    pool = UnlabelledPool(tuple(Sample(s.image, -1) for s in images), (-1,) * len(images), "natural")
    return Splits(
        name=dataset.name,
        classes=base.classes,
        shots=few_shot(base, shots, seed).train,
        train=base.train,
        new_classes=dataset.classes if images else (),
        unlabelled=pool if images else None,
        tests={
            name: Test(dataset.classes, split)
            for name, split in (("val", dataset.val), ("test", dataset.test))
            if split
        },
        templates=dataset.templates,
        choose=by_validation,
    )


def by_validation(accuracies: Accuracies) -> dict[str, str]:
    """All tests by the prompts that are best on the validation images; without any, by those of the last stage.

    Zero-shot CLIP's are among them, so that tuning never makes it worse there.
    """
    *stages, zeroshot = accuracies
    if "val" in accuracies[zeroshot]:
        best = max(reversed([*accuracies]), key=lambda name: accuracies[name]["val"])
    else:
        log.warning("no validation images: the tuned prompts are used without knowing whether zero-shot CLIP is better")
        best = stages[-1] if stages else zeroshot
    return dict.fromkeys(accuracies[zeroshot] or ("any",), best)


def _without(samples: Sequence[Sample], scored: set[str | None], what: str) -> tuple[Sample, ...]:
    """The samples whose content is not scored."""
    kept = tuple(s for s, digest in zip(samples, _digests(samples), strict=True) if digest not in scored)
    if left := len(samples) - len(kept):
        log.warning("%d %s are left out: the same pictures are among the validation or test images", left, what)
    return kept


def _digests(samples: Sequence[Sample]) -> list[str | None]:
    """None where there is nothing to read, which is found out when the images are read."""

    def digest(sample: Sample) -> str | None:
        try:
            return sample.image.digest()
        except UnreadableImage:
            return None

    with ThreadPoolExecutor(decode_threads()) as pool:
        return list(pool.map(digest, samples))
