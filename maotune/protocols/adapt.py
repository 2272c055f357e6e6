"""Adaptation to one's own images: all classes, and a pool of unlabelled images where there is one."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType

from maotune.contract import Predictors
from maotune.data.draw import UnlabelledPool, few_shot
from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import Dataset, Sample, Skipped, UnreadableImage
from maotune.printable import printable
from maotune.protocols.protocol import CROSS_VALIDATED, Accuracies, DrawSettings, Protocol, Splits, Test

log = logging.getLogger(__name__)


class Adapt(Protocol):
    """Tunes on ``shots`` images of each class that has any, then on the unlabelled ones over all classes.

    These may be images of any class, also of those that have a name and no labelled image; what they show is not
    known, so the new stage chooses among all names. The prompts to use are chosen on the validation images, or, where
    the user has set none aside, by cross-validation over the labelled ones (the test ``cv``). Test images are scored,
    and decide nothing. What is scored is not tuned on: a picture that is also a validation or test image is taken out
    of the unlabelled ones and of the training split; with cross-validation, one that is labelled out of the unlabelled.
    """

    name = "adapt"
    summary = "for one's own images: all classes, unlabelled images; the better of tuned and zero-shot is used"
    measures = ("test", "val", CROSS_VALIDATED)
    settings = MappingProxyType({"mao.labeler": "stata"})  # it does not collapse on a pool without some classes
    takes_unlabelled = True
    cross_validates = True

    def draw(self, datasets: Sequence[Dataset], settings: DrawSettings) -> Splits:
        """See ``Protocol``. Raises ``ValueError`` for fewer than two classes, or no labelled image to tune on."""
        (dataset,) = datasets
        if len(dataset.classes) < 2:
            raise ValueError(f"{dataset.name} has {len(dataset.classes)} classes: at least 2 are needed to tell apart")
        scored = {*_digests([*dataset.val, *dataset.test])} - {None}
        train, train_left_out = _unscored(dataset.train, scored, "labelled training images")
        labelled = {sample.label for sample in train}
        order = [label for label in range(len(dataset.classes)) if label in labelled]
        if not order:
            raise ValueError(
                f"{dataset.name} has no labelled training image: zero-shot is all that can be done with it"
            )
        place = {label: position for position, label in enumerate(order)}
        base = replace(
            dataset,
            classes=tuple(dataset.classes[label] for label in order),
            train=tuple(Sample(sample.image, place[sample.label]) for sample in train),
            val=tuple(Sample(sample.image, place[sample.label]) for sample in dataset.val if sample.label in place),
        )
        shots = few_shot(base, settings.shots, settings.seed).train
        folds = fold_of_each(shots, settings.folds, settings.seed) if settings.folds and not dataset.val else ()
        tests = {name: samples for name, samples in (("val", dataset.val), ("test", dataset.test)) if samples}
        if max(folds, default=-1) > 0:
            held = sorted((fold, number) for number, fold in enumerate(folds) if fold >= 0)
            tests[CROSS_VALIDATED] = [Sample(shots[number].image, order[shots[number].label]) for _, number in held]
            scored |= {*_digests(shots)}
        else:
            folds = ()
        images, pool_left_out = _unscored(dataset.unlabelled, scored, "unlabelled images")
        pool = UnlabelledPool(tuple(Sample(s.image, -1) for s in images), (-1,) * len(images), "natural")
        return Splits(
            name=dataset.name,
            classes=base.classes,
            shots=shots,
            train=base.train,
            new_classes=dataset.classes if images else (),
            unlabelled=pool if images else None,
            tests={name: Test(dataset.classes, samples) for name, samples in tests.items()},
            templates=dataset.templates,
            left_out=(*train_left_out, *pool_left_out),
            folds=folds,
        )

    def choose(self, predictors: Predictors, accuracies: Accuracies) -> Predictors:
        """All classes by the prompts that are best on the deciding test; without any, by those of the last stage.

        Zero-shot CLIP's are among them, so that tuning never makes it worse there.
        """
        *stages, zeroshot = accuracies
        deciding = deciding_test(accuracies[zeroshot])
        if deciding is not None:
            best = max(reversed([*accuracies]), key=lambda name: accuracies[name][deciding])
        else:
            if stages:
                log.warning(
                    "no validation images, and no class with two labelled ones to cross-validate: the tuned prompts "
                    "are used without knowing whether zero-shot CLIP is better"
                )
            best = stages[-1] if stages else zeroshot
        return Predictors(best, best)

    def known_classes(self, tuned: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """All classes that have a name."""
        return tuned[-1]


def deciding_test(tests: Collection[str]) -> str | None:
    """Return the test by which prompts are chosen: ``val``, else ``cv``; None where there is neither."""
    return next((name for name in ("val", CROSS_VALIDATED) if name in tests), None)


def fold_of_each(samples: Sequence[Sample], folds: int, seed: int) -> tuple[int, ...]:
    """Return the fold of each image, -1 where its class has no other: each class is spread over the folds.

    Copies of a picture are in one fold. There are at most as many folds as pictures in classes that have two. The fold
    of a picture depends on its content and that of the others, not on names and orders.
    """
    groups: dict[int, dict[str, list[int]]] = {}
    for number, (sample, digest) in enumerate(zip(samples, _digests(samples), strict=True)):
        key = sha256(f"{seed} {digest or number}".encode()).hexdigest()
        groups.setdefault(sample.label, {}).setdefault(key, []).append(number)
    drawn = sorted(sorted(of.items()) for of in groups.values() if len(of) > 1)
    pictures = [numbers for of in drawn for _, numbers in of]  # class by class: neighbours are in different folds
    fold_of = [-1] * len(samples)
    for place, numbers in enumerate(pictures):
        for number in numbers:
            fold_of[number] = place % min(folds, len(pictures))
    return tuple(fold_of)


def _unscored(
    samples: Sequence[Sample], scored: set[str | None], what: str
) -> tuple[tuple[Sample, ...], list[Skipped]]:
    """Return the samples whose content is not scored, and the others as left out."""
    kept: list[Sample] = []
    left_out: list[Skipped] = []
    for sample, digest in zip(samples, _digests(samples), strict=True):
        if digest in scored:
            reason = f"{printable(sample.image.name)}: the same picture is a validation or test image"
            left_out.append(Skipped(sample.image.name, "also scored", reason))
        else:
            kept.append(sample)
    if left_out:
        log.warning("%d %s are skipped: the same pictures are among the validation or test images", len(left_out), what)
    return tuple(kept), left_out


def _digests(samples: Sequence[Sample]) -> list[str | None]:
    """Return the digest of each image; None where it cannot be read, which is reported when images are read."""

    def digest(sample: Sample) -> str | None:
        try:
            return sample.image.digest()
        except UnreadableImage:
            return None

    return list(map_in_threads(digest, samples))
