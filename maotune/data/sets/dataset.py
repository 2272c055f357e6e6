"""The data set: images that can be read, labels, class names, splits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image

from maotune.printable import printable


@runtime_checkable
class ImageRef(Protocol):
    """A reference to an image: a file, a member of an archive, a row of a table. It is read on demand."""

    @property
    def name(self) -> str:
        """Name for messages: the path where there is one."""
        ...

    def read(self) -> Image.Image:
        """Decode the upright RGB picture.

        Raises:
            UnreadableImage: the file is missing, broken, too large, or no picture.
        """
        ...

    def digest(self) -> str:
        """Return the hex SHA-256 of the content, computed without decoding."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its label: an index into the classes of its data set, -1 where unknown."""

    image: ImageRef
    label: int


class Skipped(NamedTuple):
    """What a reader left out: a file, or a folder with all that is in it."""

    name: str
    """Its path."""
    kind: str
    """Groups the reasons for a report."""
    reason: str
    """A sentence that begins with the name, and says what helps."""
    pictures: int = 1
    """Number of pictures, or of files that might be some; 0 for texts and other documents, which nobody misses."""


def missed(skipped: Iterable[Skipped]) -> list[Skipped]:
    """Return what was left out and is, or might be, a picture."""
    return [item for item in skipped if item.pictures]


def list_skipped(skipped: Sequence[Skipped], most: int = 5) -> str:
    """Return the counts by kind, then up to ``most`` of the reasons, one per line, in turn of each kind.

    Documents are only counted.
    """
    counts: Counter[str] = Counter()
    by_turn: dict[int, list[str]] = {}
    seen: Counter[str] = Counter()
    for item in skipped:
        counts[item.kind] += item.pictures or 1
        if item.pictures:
            by_turn.setdefault(seen[item.kind], []).append(f"  {item.reason}")
            seen[item.kind] += 1
    lines = [", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))]
    reasons = [reason for turn in sorted(by_turn) for reason in by_turn[turn]]
    lines += reasons[:most]
    if len(reasons) > most:
        lines.append(f"  ... and {len(reasons) - most} more")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set with its splits, any of which may be empty."""

    name: str
    classes: tuple[str, ...]
    train: Sequence[Sample] = ()
    val: Sequence[Sample] = ()
    test: Sequence[Sample] = ()
    unlabelled: Sequence[Sample] = ()
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """Texts for zero-shot; ``{}`` stands for the class name."""
    skipped: tuple[Skipped, ...] = ()
    """Everything that the reader left out; images that turn out unreadable come later (``scan_images``)."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Labels on disk that are written as words for the model, with the class names made of them."""

    def summary(self) -> str:
        """Return the size in a line: ``6 classes (owl, rabbit, ...), 96 images: 48 train, 19 val, 29 test``."""
        sizes = {split: len(getattr(self, split)) for split in ("train", "val", "test", "unlabelled")}
        shown = ", ".join(map(printable, self.classes[:2])) + (", ..." if len(self.classes) > 2 else "")
        classes = f"{len(self.classes)} class{'es' * (len(self.classes) != 1)}" + (f" ({shown})" if shown else "")
        parts = ", ".join(f"{size:,} {split}" for split, size in sizes.items() if size)
        return f"{classes}, {sum(sizes.values()):,} images" + (f": {parts}" if parts else "")


class UnreadableImage(ValueError):
    """Raised for an image that cannot be used; the message says why.

    ``kind`` groups the reasons for a report: missing, no access, empty, not a picture, truncated, broken, too large.
    """

    def __init__(self, message: str, kind: str = "broken") -> None:
        super().__init__(message)
        self.kind = kind

    @classmethod
    def about(cls, name: str, reason: str, kind: str = "broken") -> "UnreadableImage":
        """Return the error for the image ``name``."""
        return cls(f"{printable(name)}: {reason}", kind)
