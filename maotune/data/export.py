"""Describe a data set, and export it as a plain image folder."""

import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from maotune.data.images.decode import ImageFile, Progress
from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.walk import CLASS_FILE

SPLITS = ("train", "val", "test", "unlabelled")


@dataclass(frozen=True, slots=True)
class SplitSize:
    """Size of one split."""

    images: int
    smallest: int
    """Images of the smallest class."""
    largest: int
    """Images of the largest class."""
    empty: tuple[str, ...]
    """Classes without an image."""


@dataclass(frozen=True, slots=True)
class Description:
    """Classes and sizes of a data set (``maotune data show``)."""

    name: str
    classes: tuple[str, ...]
    base: int
    """Number of base classes; they are the first."""
    templates: tuple[str, ...]
    splits: dict[str, SplitSize]


def describe(dataset: Dataset) -> Description:
    """Count classes and images; no file is read."""
    splits = {}
    for split in SPLITS:
        samples = getattr(dataset, split)
        if not samples:
            continue
        counts = Counter(sample.label for sample in samples)
        per_class = [counts[label] for label in range(len(dataset.classes))] if split != "unlabelled" else []
        empty = tuple(name for name, count in zip(dataset.classes, per_class, strict=False) if not count)
        splits[split] = SplitSize(len(samples), min(per_class, default=0), max(per_class, default=0), empty)
    return Description(dataset.name, dataset.classes, -(-len(dataset.classes) // 2), dataset.templates, splits)


def export(dataset: Dataset, folder: Path, progress: Progress | None = None) -> int:
    """Write a data set as an image folder: ``train/CLASS/00000.jpg``, ..., and ``classes.tsv`` with the names in order.

    Files are copied as they are; images that are not files become PNG. ``load_dataset(folder)`` reads
    classes, labels and splits back. The folder appears atomically.

    Returns:
        The number of images written.

    Raises:
        FileExistsError: there is something of this name already.
        UnreadableImage: an image that is not a file cannot be made.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: nothing is overwritten; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = _folder_names(dataset.classes)
    jobs = [(split, number, sample) for split in SPLITS for number, sample in enumerate(getattr(dataset, split))]
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        building.chmod(0o755)
        if names:
            lines = (f"{name}\t{display}\n" for name, display in zip(names, dataset.classes, strict=True))
            (building / CLASS_FILE).write_text("".join(lines), encoding="utf-8")
        for done, (split, number, sample) in enumerate(jobs, 1):
            parent = building / split / ("" if split == "unlabelled" else names[sample.label])
            parent.mkdir(parents=True, exist_ok=True)
            _write(sample, parent / f"{number:05d}")
            if progress is not None:
                progress(done, len(jobs))
        os.rename(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return len(jobs)


def _write(sample: Sample, stem: Path) -> None:
    if isinstance(sample.image, ImageFile):
        shutil.copyfile(sample.image.path, stem.with_suffix(sample.image.path.suffix.lower()))
    else:
        sample.image.read().save(stem.with_suffix(".png"), "PNG")


def _folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return one folder name per class, valid on any file system, and distinct also where case is ignored."""
    names: list[str] = []
    taken: set[str] = set()
    for display in classes:
        plain = re.sub(r"[^\w .,()&'+-]", "_", display).strip(" .") or "class"
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain} {number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names
