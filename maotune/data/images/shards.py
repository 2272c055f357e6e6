"""Tar shards of unlabelled images, as WebDataset writes them: pictures are read where they lie, nothing is unpacked."""

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

from maotune.data.images.decode import SUFFIXES, upright_rgb
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
    """Of its first byte in the archive."""
    size: int
    """In bytes."""

    @property
    def name(self) -> str:
        """The archive, then the path in it."""
        return f"{self.shard}/{self.member}"

    def read(self) -> Image.Image:
        """The upright RGB picture.

        Raises:
            UnreadableImage: see ``upright_rgb``; also where the archive is gone or cut off.
        """
        return upright_rgb(io.BytesIO(self._bytes()), self.name)

    def digest(self) -> str:
        """Hex SHA-256 of the picture's file: the same as if it lay outside."""
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
    """Hash a picture once as long as its archive is not touched."""
    return hashlib.sha256(image._bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class LostPart:
    """What cannot be read of an archive, so that it is counted and listed like any picture that cannot be read."""

    name: str
    reason: str

    def read(self) -> NoReturn:
        """Refuse.

        Raises:
            UnreadableImage: always.
        """
        raise UnreadableImage(f"{self.name}: {self.reason}", "broken")

    def digest(self) -> NoReturn:
        """Refuse, as ``read`` does."""
        self.read()


def read_shard(shard: Path) -> list[ImageRef]:
    """The pictures of a tar archive by one pass over its headers, sorted by their paths in it.

    Other files (WebDataset's .json, .txt, .cls beside each picture) are passed over; of two members with one name the
    later counts, as when unpacking. Where the archive is broken, what comes before is listed, then a ``LostPart``.
    """
    found: dict[str, ImageRef] = {}
    lost: str | None = None
    try:
        with tarfile.open(shard, "r:", tarinfo=StrictHeader) as tar:
            try:
                for member in tar:
                    if member.size < 0:  # would send the reader back to where it came from, for ever
                        raise tarfile.ReadError("a file of negative size")
                    path = PurePosixPath(member.name)
                    plain = member.isreg() and not member.issparse()
                    if plain and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                        found[str(path)] = TarImage(shard, str(path), member.offset_data, member.size)
            except (*BROKEN, OSError) as error:
                lost = f"the archive is cut off or broken, and what follows is not read ({error})"
    except BROKEN:
        lost = "no tar archive that can be read in place; one that is compressed must be unpacked to a .tar first"
    except OSError as error:
        lost = f"cannot be read ({error})"
    images = [found[name] for name in sorted(found)]
    if lost is not None:
        images.append(LostPart(str(shard), lost))
    log.debug("%s: %d images%s", shard, len(found), f"; {lost}" if lost else "")
    return images
