"""Tar shards of unlabelled images, as WebDataset writes them; pictures are read in place, nothing is unpacked."""

import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from PIL import Image

from maotune.data.images.decode import file_version, is_settled, upright_rgb
from maotune.data.images.formats import SUFFIXES, UNREADABLE_SUFFIXES
from maotune.data.sets.archives import BROKEN, StrictHeader
from maotune.data.sets.dataset import ImageRef, UnreadableImage

log = logging.getLogger(__name__)

SHARD = ".tar"
"""File name ending (lower case) of a shard."""


@dataclass(frozen=True, slots=True)
class TarImage:
    """A picture in a tar archive that is not compressed."""

    shard: Path
    member: str
    offset: int
    """Position of its first byte in the archive."""
    size: int
    """In bytes."""

    @property
    def name(self) -> str:
        """Path of the archive, then the path in it."""
        return f"{self.shard}/{self.member}"

    def read(self) -> Image.Image:
        """Decode the upright RGB picture.

        Raises:
            UnreadableImage: see ``upright_rgb``; also where the archive is missing or cut off.
        """
        with self._open() as file:
            return upright_rgb(file, self.name)

    def digest(self) -> str:
        """Return the hex SHA-256 of the picture's file, the same as outside the archive."""
        with self._refusals():
            status = self.shard.stat()
            return _digest(self, file_version(status)) if is_settled(status) else self._hash()

    def _hash(self) -> str:
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnreadableImage.about(self.name, f"the archive cannot be read ({error})", "missing") from error

    def _open(self) -> io.BufferedReader:
        with self._refusals():
            part = _Part(self.shard, self.offset, self.size)
        if part.cut_off or not self.size:
            part.close()
            reason, kind = ("the archive is cut off", "truncated") if part.cut_off else ("the file is empty", "empty")
            raise UnreadableImage.about(self.name, reason, kind)
        return io.BufferedReader(part)


class _Part(io.RawIOBase):
    """A part of a file, as a file: what an archive says of its members' sizes decides no amount of memory."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = path.open("rb"), offset, size, 0
        self.cut_off = os.fstat(self._file.fileno()).st_size < offset + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, position + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._offset + self._at)
        content = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


@lru_cache(maxsize=1 << 18)
def _digest(image: TarImage, version: tuple[int, ...]) -> str:
    """Hash a picture once as long as its archive is not written again."""
    return image._hash()


@dataclass(frozen=True, slots=True)
class UnreadablePart:
    """The part of an archive that cannot be read: counted and listed like a picture that cannot be read."""

    name: str
    reason: str

    def read(self) -> NoReturn:
        """Raise the error.

        Raises:
            UnreadableImage: always.
        """
        raise UnreadableImage.about(self.name, self.reason)

    def digest(self) -> NoReturn:
        """Raise the error, as ``read`` does."""
        self.read()


def read_shard(shard: Path) -> list[ImageRef]:
    """List the pictures of a tar archive by one pass over its headers, sorted by their paths in it.

    Other files (WebDataset's .json, .txt, .cls beside each picture) are skipped; pictures of a format that is not read
    are listed and cannot be read; of two members with one name the later
    counts, as when unpacking. Where the archive is broken, what comes before is listed, then a ``UnreadablePart``.
    """
    by_path: dict[str, ImageRef] = {}
    failure: str | None = None
    try:
        with tarfile.open(shard, "r:", tarinfo=StrictHeader) as tar:
            try:
                for member in tar:
                    if member.size < 0:  # would send the reader back in an endless loop
                        raise tarfile.ReadError("a file of negative size")
                    path = PurePosixPath(member.name)
                    regular = member.isreg() and not member.issparse()
                    if (
                        regular
                        and path.suffix.lower() in SUFFIXES | UNREADABLE_SUFFIXES
                        and not path.name.startswith(".")
                    ):
                        by_path[str(path)] = TarImage(shard, str(path), member.offset_data, member.size)
            except (*BROKEN, OSError) as error:
                failure = f"the archive is cut off or broken, and what follows is not read ({error})"
    except BROKEN:
        failure = "no tar archive that can be read in place; one that is compressed must be unpacked to a .tar first"
    except OSError as error:
        failure = f"cannot be read ({error})"
    images = [by_path[name] for name in sorted(by_path)]
    if failure is not None:
        images.append(UnreadablePart(str(shard), failure))
    log.debug("%s: %d images%s", shard, len(by_path), f"; {failure}" if failure else "")
    return images
