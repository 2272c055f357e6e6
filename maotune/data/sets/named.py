"""The public data sets that have a name, as ``named.toml`` lists them."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

SuiteName = Literal["coop-11", "imagenet-shifts"]
"""The paper's eleven sets; four sets that show ImageNet's classes in other pictures."""


class Counts(NamedTuple):
    """Size of a data set."""

    classes: int
    train: int
    val: int
    test: int


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Entry):
    """A file or folder of a data set, and the archives that hold it."""

    path: str
    """Below the folder of the data set."""
    archives: dict[str, str]
    """Archives, each of which is sufficient, with the path inside: ``.`` for all of it; after a ``!``, the path in the
    archive that lies there; empty where the "archive" is the file itself."""
    annotation: bool = False
    """Whether the split file makes it unnecessary."""
    sibling: str | None = None
    """The same file of another data set, below the root."""
    also: str | None = None
    """A second archive that is needed."""
    finish: Literal["synset-archives", "sort-validation"] | None = None
    """Step after unpacking (``prepare.FINISH``)."""


class NamedSet(_Entry):
    """One data set in CoOp's layout, and where it comes from."""

    suite: SuiteName
    folder: str
    """Below the root of all data sets."""
    reader: str
    """Function that reads the annotations (``coop.READERS``)."""
    images: str = "."
    """Folder of the images: the paths of the split file are relative to it."""
    split_file: str | None = None
    counts: Counts
    """Of the original with CoOp's split."""
    template: str
    """Text of CoOp's zero-shot baseline."""
    page: str
    """Where its authors offer it."""
    note: str = ""
    """What a person who downloads it should know."""
    ignored_folders: tuple[str, ...] = ()
    """Class folders that are skipped."""
    class_names: dict[str, str] = {}
    """Class names that differ from the names of their folders."""
    parts: tuple[Part, ...]


@cache
def named_sets() -> dict[str, NamedSet]:
    """Return the named data sets in the order of the file."""
    content = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, NamedSet]).validate_python(tomllib.loads(content))


def sets_of(suite: SuiteName) -> tuple[str, ...]:
    """Return the names of the data sets of a suite."""
    return tuple(name for name, row in named_sets().items() if row.suite == suite)
