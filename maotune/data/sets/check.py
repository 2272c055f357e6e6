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
    """A piece that is needed and not there."""

    path: str
    """Where it belongs."""
    archives: tuple[str, ...]
    """What it is made from: the first of these that there is."""
    also: str | None
    """And this."""

    @classmethod
    def of(cls, part: Part) -> "Missing":
        """A piece that is not there."""
        return cls(part.path, tuple(part.archives), part.also)

    def __str__(self) -> str:
        needed = " or ".join(self.archives) + (f", with {self.also}" if self.also else "")
        return f"missing: {self.path}" + ("" if self.archives == (self.path,) else f", made from {needed}")


@dataclass(frozen=True, slots=True)
class SetCheck:
    """What lies on disk of one data set."""

    name: str
    state: str
    """``complete``, ``differs`` (all there, counts unlike the original's), ``incomplete`` or ``missing``."""
    folder: str
    page: str
    missing: tuple[Missing, ...]
    split: str | None
    """The name of its split file, if it has one."""
    split_there: bool
    expected: Counts
    found: Counts | None
    """None where it cannot be listed."""
    gone: int
    """Images that are listed and not there."""
    example: str | None
    """One of those."""
    problem: str | None
    """Why it cannot be listed."""
    note: str

    def advice(self, root: Path) -> list[str]:
        """What is wrong and what to do, a sentence each; empty where nothing is."""
        said = [self.problem] if self.problem and not self.missing else []
        said += map(str, self.missing)
        if self.missing:
            said.append(f"get this from {self.page}" + (f"; {self.note}" if self.note else ""))
            said.append(f"put it into {self.folder}, then: maotune data prepare {self.name} --root {root}")
        if self.split and not self.split_there:
            said.append(
                f"{self.split}, linked from CoOp's DATASETS.md, belongs in {self.folder}: without it the split is "
                "drawn by CoOp's rules, and is not the published one"
            )
        if self.gone:
            said.append(f"{self.gone} images are listed and not there, for instance {self.example}")
        if self.found is not None:
            pairs = zip(Counts._fields, self.found, self.expected, strict=True)
            if differing := [f"{what} {got:,} (expected {wanted:,})" for what, got, wanted in pairs if got != wanted]:
                said.append("counts differ from the original's: " + ", ".join(differing))
        return said


def check(name: str, root: Path) -> SetCheck:
    """What is there of the data set ``name`` (a key of ``named_sets()``) below ``root``.

    Lists and counts; no image is opened.
    """
    row = named_sets()[name]
    folder = root / row.folder
    split_there = row.split_file is not None and (folder / row.split_file).is_file()
    missing = tuple(
        Missing.of(part)
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
    """A file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _gone(dataset: Dataset) -> list[str]:
    """Images that the splits name and that do not exist, by one look into each folder."""
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
