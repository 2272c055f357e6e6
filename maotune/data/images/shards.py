"""Tar shards of unlabelled images, as WebDataset writes them; pictures are read in place, nothing is unpacked."""

import hashlib
import io
import logging
import os
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NoReturn

from PIL import Image

from maotune.data.images.decode import upright_rgb
from maotune.data.images.formats import SUFFIXES
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
        return upright_rgb(io.BytesIO(self._bytes()), self.name)

    def digest(self) -> str:
        """Return the hex SHA-256 of the picture's file, the same as outside the archive."""
        try:
            modified = os.stat(self.shard).st_mtime_ns
        except OSError as error:
            raise UnreadableImage(f"{self.name}: the archive cannot be read ({error})", "missing") from error
        return _digest(self, modified)

    def _bytes(self) -> bytes:
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise UnreadableImage(f"{self.name}: the archive cannot be read ({error})", "missing") from error
        if len(content) < self.size:
            raise UnreadableImage(f"{self.name}: the archive is cut off", "truncated")
        if not content:
            raise UnreadableImage(f"{self.name}: the file is empty", "empty")
        return content


@lru_cache(maxsize=1 << 18)
def _digest(image: TarImage, modified_ns: int) -> str:
    """Hash a picture once as long as its archive is not modified."""
    return hashlib.sha256(image._bytes()).hexdigest()


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
        raise UnreadableImage(f"{self.name}: {self.reason}", "broken")

    def digest(self) -> NoReturn:
        """Raise the error, as ``read`` does."""
        self.read()


def read_shard(shard: Path) -> list[ImageRef]:
    """List the pictures of a tar archive by one pass over its headers, sorted by their paths in it.

    Other files (WebDataset's .json, .txt, .cls beside each picture) are skipped; of two members with one name the later
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
                    if regular and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
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
