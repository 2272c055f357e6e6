"""Draws of readable images: only what a run draws and scores is decoded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from maotune.data.images.scan import ScanResult, Skipped, scan_images
from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.icons import IconImage
from maotune.protocols.protocol import Splits


def draw_readable(
    draw: Callable[[Sequence[Dataset]], Splits], datasets: Sequence[Dataset], *, strict: bool, whole_train: bool
) -> tuple[Splits, list[Skipped]]:
    """Draw, read what was drawn and what will be scored, skip what cannot be read, and draw again.

    Where all images can be read, the first draw stands: it is CoOp's, and ImageNet's 1.3 million training images are
    not decoded to choose 16,000. Where a drawn image cannot be read, the draw is that of the data set without it.

    Args:
        draw: makes the splits of a run from the data sets; called again after images were skipped.
        datasets: before any image is read.
        strict: stop at an image that cannot be read.
        whole_train: whether the run uses the whole training split.

    Returns:
        The splits, and the images that could not be read.

    Raises:
        ValueError: the data do not fit the protocol.
        UnreadableImage: an image that is needed cannot be read, if ``strict``.
    """
    readable: set[str] = set()
    skipped: list[Skipped] = []
    while True:
        splits = draw(datasets)
        unknown = {sample.image.name: sample for sample in _used(splits, whole_train)}
        result = read_all([sample for name, sample in unknown.items() if name not in readable], strict)
        if not result.skipped:
            return splits, skipped
        readable.update(sample.image.name for sample in result.kept)
        skipped += result.skipped
        datasets = [_without(dataset, {image.name for image in result.skipped}) for dataset in datasets]


def read_all(samples: Sequence[Sample], strict: bool) -> ScanResult:
    """``scan``, except for shipped images, which are known to be readable.

    Raises:
        UnreadableImage: an image cannot be read, if ``strict``.
    """
    result = scan_images([sample for sample in samples if not isinstance(sample.image, IconImage)], strict)
    bad = {image.name for image in result.skipped}
    return ScanResult(tuple(sample for sample in samples if not bad or sample.image.name not in bad), result.skipped)


def _used(splits: Splits, whole_train: bool) -> Iterator[Sample]:
    yield from splits.shots
    if whole_train:
        yield from splits.train
    if splits.unlabelled is not None:
        yield from splits.unlabelled.samples
    for test in splits.tests.values():
        yield from test.samples


def _without(dataset: Dataset, names: set[str]) -> Dataset:
    def of(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if sample.image.name not in names)

    return replace(
        dataset,
        train=of(dataset.train),
        val=of(dataset.val),
        test=of(dataset.test),
        unlabelled=of(dataset.unlabelled),
    )
