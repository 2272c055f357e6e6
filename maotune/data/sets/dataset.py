"""The data set: images that can be read, labels, class names, splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
