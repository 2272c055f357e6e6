"""Draws of readable images: only what a run draws and scores is decoded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from maotune.data.images.duplicates import Look, Member, remarks_on_copies, remarks_on_flat
from maotune.data.images.scan import ScanResult, scan_images
from maotune.data.sets.dataset import Dataset, Sample, Skipped, UnreadableImage, list_skipped, missed
from maotune.data.sets.icons import IconImage
from maotune.protocols.protocol import CROSS_VALIDATED, Splits


class Drawn(NamedTuple):
    """The images of a run."""

    splits: Splits
    skipped: list[Skipped]
    """All that was left out: by the readers of the data sets, by the protocol, and images that could not be read."""
    remarks: list[str]
    """What is wrong with copies of pictures, and which show nothing, a sentence each."""


def draw_readable(
    draw: Callable[[Sequence[Dataset]], Splits], datasets: Sequence[Dataset], *, strict: bool, whole_train: bool
) -> Drawn:
    """Draw, read what was drawn and what will be scored, skip what cannot be read, and draw again.

    Where all images can be read, the first draw stands: it is CoOp's, and ImageNet's 1.3 million training images are
    not decoded to choose 16,000. Where a drawn image cannot be read, the draw is that of the data set without it.

    Args:
        draw: makes the splits of a run from the data sets; called again after images were skipped.
        datasets: before any image is read.
        strict: stop where a reader left a picture out, or an image cannot be read.
        whole_train: whether the run uses the whole training split.

    Raises:
        ValueError: the data do not fit the protocol, or no training image of a class can be read.
        UnreadableImage: something was left out, or an image that is needed cannot be read, if ``strict``.
    """
    readable: set[str] = set()
    looks: dict[str, Look] = {}
    skipped: list[Skipped] = [item for dataset in datasets for item in dataset.skipped]
    if strict and (missing := missed(skipped)):
        raise UnreadableImage(f"left out, and strict is set: {list_skipped(missing)}", missing[0].kind)
    while True:
        splits = draw(datasets)
        unknown = {sample.image.name: sample for sample in _used(splits, whole_train)}
        result = read_all([sample for name, sample in unknown.items() if name not in readable], strict, looks)
        if not result.skipped:
            remarks = remarks_on_copies([*_members(splits)], looks) + remarks_on_flat(looks)
            return Drawn(splits, [*skipped, *splits.left_out], remarks)
        readable.update(sample.image.name for sample in result.kept)
        skipped += result.skipped
        datasets = [without(dataset, result.skipped) for dataset in datasets]


def read_all(samples: Sequence[Sample], strict: bool, looks: dict[str, Look] | None = None) -> ScanResult:
    """``scan_images``, except for shipped images, which are known to be readable.

    Raises:
        UnreadableImage: an image cannot be read, if ``strict``.
    """
    result = scan_images([sample for sample in samples if not isinstance(sample.image, IconImage)], strict, looks=looks)
    bad = {image.name for image in result.skipped}
    return ScanResult(tuple(sample for sample in samples if not bad or sample.image.name not in bad), result.skipped)


def _members(splits: Splits) -> Iterator[Member]:
    """Yield the images of a run with their sides and classes."""
    for sample in splits.shots:
        yield Member(sample.image, "training", splits.classes[sample.label])
    for name, test in splits.tests.items():
        if name == CROSS_VALIDATED:  # the images that are tuned on
            continue
        side = "validation" if name == "val" else "test" if name == "test" else f"test ({name})"
        for sample in test.samples:
            yield Member(sample.image, side, test.classes[sample.label])
    for sample in splits.unlabelled.samples if splits.unlabelled is not None else ():
        yield Member(sample.image, "unlabelled", "")


def _used(splits: Splits, whole_train: bool) -> Iterator[Sample]:
    yield from splits.shots
    if whole_train:
        yield from splits.train
    if splits.unlabelled is not None:
        yield from splits.unlabelled.samples
    for test in splits.tests.values():
        yield from test.samples


def without(dataset: Dataset, skipped: Sequence[Skipped]) -> Dataset:
    """Return the data set without these images; refuse that a class loses all of its training images."""
    names = {image.name for image in skipped}

    def of(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if sample.image.name not in names)

    train = of(dataset.train)
    if lost := sorted({sample.label for sample in dataset.train} - {sample.label for sample in train}):
        paths = {sample.image.name for sample in dataset.train if sample.label == lost[0]}
        reasons = [image for image in skipped if image.name in paths]
        raise ValueError(
            f"no training image of the class {dataset.classes[lost[0]]!r} can be read: {list_skipped(reasons)}\n"
            "Mend them or take the class out"
        )
    return replace(
        dataset,
        train=train,
        val=of(dataset.val),
        test=of(dataset.test),
        unlabelled=of(dataset.unlabelled),
    )
