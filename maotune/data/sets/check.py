"""Check whether a public data set on disk is complete, and tell what is missing and where to get it.

Nothing is downloaded: the user gets the archives from the authors' page, under the licence of each data set.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from maotune.data.sets import coop
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.named import Counts, Part, named_sets


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that is needed and missing."""

    path: str
    """Below the folder of the data set."""
    archives: tuple[str, ...]
    """Any of these holds it."""
    also: str | None
    """A second archive that is needed."""

    @classmethod
    def from_part(cls, part: Part) -> "Missing":
        """Describe a missing part."""
        return cls(part.path, tuple(part.archives), part.also)

    def __str__(self) -> str:
        needed = " or ".join(self.archives) + (f", with {self.also}" if self.also else "")
        return f"missing: {self.path}" + ("" if self.archives == (self.path,) else f", made from {needed}")


@dataclass(frozen=True, slots=True)
class SetCheck:
    """State of one data set on disk."""

    name: str
    state: str
    """``complete``, ``differs`` (complete, but with other counts than the original), ``incomplete`` or ``missing``."""
    folder: str
    page: str
    missing: tuple[Missing, ...]
    split: str | None
    """Name of its split file, if it has one."""
    split_there: bool
    expected: Counts
    found: Counts | None
    """Counts on disk; None where the images cannot be listed."""
    gone: int
    """Number of images that are listed and do not exist."""
    example: str | None
    """One of these."""
    problem: str | None
    """Why the images cannot be listed."""
    note: str

    def advice(self, root: Path) -> list[str]:
        """Return what is wrong and what to do, one sentence each; empty where the data set is complete."""
        sentences = [self.problem] if self.problem and not self.missing else []
        sentences += map(str, self.missing)
        if self.missing:
            sentences.append(f"get this from {self.page}" + (f"; {self.note}" if self.note else ""))
            sentences.append(f"put it into {self.folder}, then: maotune data prepare {self.name} --root {root}")
        if self.split and not self.split_there:
            sentences.append(
                f"{self.split}, linked from CoOp's DATASETS.md, belongs in {self.folder}: without it the split is "
                "drawn by CoOp's rules, and is not the published one"
            )
        if self.gone:
            sentences.append(f"{self.gone} images are listed and not there, for instance {self.example}")
        if self.found is not None:
            pairs = zip(Counts._fields, self.found, self.expected, strict=True)
            if differing := [f"{what} {got:,} (expected {wanted:,})" for what, got, wanted in pairs if got != wanted]:
                sentences.append("counts differ from the original's: " + ", ".join(differing))
        return sentences


def check(name: str, root: Path) -> SetCheck:
    """Check the data set ``name`` (a key of ``named_sets()``) below ``root``: files and counts; no image is opened."""
    row = named_sets()[name]
    folder = root / row.folder
    split_there = row.split_file is not None and (folder / row.split_file).is_file()
    missing = tuple(
        Missing.from_part(part)
        for part in row.parts
        if not (part.annotation and split_there) and not is_there(folder / part.path)
    )
    problem: str | None = None
    found: Counts | None = None
    gone: list[str] = []
    if folder.is_dir():
        try:
            dataset = coop.load(name, root)
        except (ValueError, OSError) as error:
            problem = str(error)
        else:
            found = Counts(len(dataset.classes), *(len(split) for split in (dataset.train, dataset.val, dataset.test)))
            gone = _gone(dataset)
    return SetCheck(
        name=name,
        state=_state(folder.is_dir(), bool(missing or gone or problem), found == row.counts),
        folder=str(folder),
        page=row.page,
        missing=missing,
        split=row.split_file,
        split_there=split_there,
        expected=row.counts,
        found=found,
        gone=len(gone),
        example=gone[0] if gone else None,
        problem=problem,
        note=row.note,
    )


def _state(there: bool, lacks: bool, as_expected: bool) -> str:
    if not there:
        return "missing"
    if lacks:
        return "incomplete"
    return "complete" if as_expected else "differs"


def is_there(path: Path) -> bool:
    """Whether ``path`` is a file, or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _gone(dataset: Dataset) -> list[str]:
    """Return the images of the splits that do not exist; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    gone = []
    for split in (dataset.train, dataset.val, dataset.test):
        for sample in split:
            parent, name = os.path.split(sample.image.name)
            if parent not in listed:
                listed[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
            if name not in listed[parent]:
                gone.append(sample.image.name)
    return gone
