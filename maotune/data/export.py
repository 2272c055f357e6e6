"""Data sets to look at and to take away: a description, and a plain image folder."""

import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from maotune.data.images.decode import ImageFile, Progress
from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.readers import CLASS_FILE

SPLITS = ("train", "val", "test", "unlabelled")


@dataclass(frozen=True, slots=True)
class SplitSize:
    """Images of one split."""

    images: int
    smallest: int
    """Images of the class that has fewest."""
    largest: int
    """Images of the class that has most."""
    empty: tuple[str, ...]
    """Classes without any."""


@dataclass(frozen=True, slots=True)
class Description:
    """What ``maotune data show`` says of a data set."""

    name: str
    classes: tuple[str, ...]
    base: int
    """How many of the classes, from the first on, are base classes."""
    templates: tuple[str, ...]
    splits: dict[str, SplitSize]


def describe(dataset: Dataset) -> Description:
    """Counts of classes and images; nothing is read."""
    splits = {}
    for split in SPLITS:
        samples = getattr(dataset, split)
        if not samples:
            continue
        counts = Counter(sample.label for sample in samples)
        of_class = [counts[label] for label in range(len(dataset.classes))] if split != "unlabelled" else []
        empty = tuple(name for name, count in zip(dataset.classes, of_class, strict=False) if not count)
        splits[split] = SplitSize(len(samples), min(of_class, default=0), max(of_class, default=0), empty)
    return Description(dataset.name, dataset.classes, -(-len(dataset.classes) // 2), dataset.templates, splits)


def export(dataset: Dataset, folder: Path, progress: Progress | None = None) -> int:
    """Write a data set as an image folder: ``train/CLASS/00000.jpg``, ..., and ``classes.tsv`` with the names in order.

    Files are copied as they are; images that are not files become PNG. ``load_dataset(folder)`` reads
    classes, labels and splits back. The folder appears when all of it is there, or not at all.

    Returns:
        How many images were written.

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
    """A folder name a class that any file system takes; different even where case does not count."""
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
