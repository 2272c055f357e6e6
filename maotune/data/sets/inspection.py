"""Inspect a data set whole: classes, counts, what is left out, copies, pictures that show nothing, names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maotune.data.images.decode import Progress
from maotune.data.images.duplicates import Look, Member, remarks_on_copies, remarks_on_flat
from maotune.data.images.scan import scan_images
from maotune.data.sets.class_names import remarks_on_names
from maotune.data.sets.dataset import Dataset, Sample, Skipped, list_skipped, missed
from maotune.printable import printable

_SIDES = {"train": "training", "val": "validation", "test": "test", "unlabelled": "unlabelled"}
"""What the images of a split are called."""


@dataclass(frozen=True)
class Inspection:
    """What there is to know about a data set before it is used."""

    dataset: Dataset
    readable: int
    """Number of images that can be read."""
    skipped: tuple[Skipped, ...]
    """What the reader left out, then the images that cannot be read."""
    copies: tuple[str, ...]
    """What is wrong with copies of pictures (``remarks_on_copies``)."""
    flat: tuple[str, ...]
    """Which pictures are nearly of one brightness (``remarks_on_flat``)."""
    names: tuple[str, ...]
    """What a user should know about the class names."""

    @property
    def faultless(self) -> bool:
        """Whether no picture was left out, and none is a copy where it must not be."""
        return not missed(self.skipped) and not self.copies

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by class, then by split."""
        splits = ("train", "val", "test")
        counters = {split: Counter(sample.label for sample in getattr(self.dataset, split)) for split in splits}
        return {
            name: {split: counters[split][label] for split in splits} for label, name in enumerate(self.dataset.classes)
        }

    def document(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "name": self.dataset.name,
            "classes": self.counts(),
            "unlabelled": len(self.dataset.unlabelled),
            "readable": self.readable,
            "skipped": [item._asdict() for item in self.skipped],
            "copies": self.copies,
            "flat": self.flat,
            "names": self.names,
            "renamed": dict(self.dataset.renamed),
        }

    def lines(self, most: int = 8) -> list[str]:
        """Return everything in lines, with ``most`` entries of each kind."""
        total = sum(len(getattr(self.dataset, split)) for split in _SIDES)
        lines = [f"{printable(self.dataset.name)}: {self.dataset.summary()}"]
        labels = {name: label for label, name in self.dataset.renamed}
        counts = self.counts()
        if counts:
            lines.append(f"  {'train':>7} {'val':>6} {'test':>6}  class")
        for name, by_split in [*counts.items()][:most]:
            numbers = " ".join(f"{count:>6}" for count in by_split.values())
            on_disk = f"   (on disk: {printable(labels[name])})" if name in labels else ""
            lines.append(f"   {numbers}  {printable(name)}{on_disk}")
        if len(counts) > most:
            sizes = [sum(by_split.values()) for by_split in counts.values()]
            lines.append(f"  ... and {len(counts) - most} more; classes have {min(sizes)} to {max(sizes)} images")
        lines += [f"names: {remark}" for remark in self.names]
        if self.skipped:
            lines.append(f"left out: {list_skipped(self.skipped, most)}")
        lines += [f"copies: {remark}" for remark in self.copies]
        lines += self.flat
        every = f"all {total:,}" if self.readable == total else f"{self.readable:,} of {total:,}"
        lines.append(f"{every} images can be read")
        return lines


def inspect_dataset(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Read every image of a data set and find what is wrong with it. Files are never changed."""
    members = [
        (sample, Member(sample.image, side, dataset.classes[sample.label] if split != "unlabelled" else ""))
        for split, side in _SIDES.items()
        for sample in getattr(dataset, split)
    ]
    samples: Sequence[Sample] = [sample for sample, _ in members]
    looks: dict[str, Look] = {}
    result = scan_images(samples, progress=progress, looks=looks)
    return Inspection(
        dataset,
        len(result.kept),
        (*dataset.skipped, *result.skipped),
        tuple(remarks_on_copies([member for _, member in members], looks)),
        tuple(remarks_on_flat(looks)),
        tuple(remarks_on_names(dataset.classes, dataset.renamed)),
    )
