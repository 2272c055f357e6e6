"""What a data set is: images that can be read, labels, class names, splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image


@runtime_checkable
class ImageRef(Protocol):
    """An image that has not been read yet: a file, a member of a shipped archive, a row of a table."""

    @property
    def name(self) -> str:
        """What to call it in a message: a path where there is one."""
        ...

    def read(self) -> Image.Image:
        """The upright RGB picture.

        Raises:
            UnreadableImage: the file is missing, broken, too large, or no picture.
        """
        ...

    def digest(self) -> str:
        """Hex SHA-256 of the content, computed without decoding."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its label; ``label`` is an index into the classes of its data set, -1 where unknown."""

    image: ImageRef
    label: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A labelled data set, with the splits that it comes with (any may be empty)."""

    name: str
    classes: tuple[str, ...]
    train: Sequence[Sample] = ()
    val: Sequence[Sample] = ()
    test: Sequence[Sample] = ()
    unlabelled: Sequence[Sample] = ()
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """Prompts for zero-shot; ``{}`` stands for the class name."""


class UnreadableImage(ValueError):
    """An image that cannot be used, and why.

    ``kind`` sorts the reasons for a report: missing, no access, empty, not a picture, truncated, broken, too large.
    """

    def __init__(self, message: str, kind: str = "broken") -> None:
        super().__init__(message)
        self.kind = kind
