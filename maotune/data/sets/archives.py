"""Unpack archives from elsewhere safely: nothing is written outside the target, only plain files, of limited size.

Stricter than ``tarfile``'s data filter: that one lets links through, strips a leading slash where this refuses, and
counts nothing. Data sets need neither links nor devices.
"""

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from maotune.data.images.decode import Progress

_SLACK = 1 << 24
"""Bytes that may be unpacked whatever the ratio: lists of file names shrink a hundredfold."""


BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,  # of file names in no encoding, too
    LookupError,
    ArithmeticError,
)
"""Errors of Python's readers of archives where an archive is damaged."""


class ArchiveError(ValueError):
    """An archive that is broken, or that is not unpacked because of what it holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest archive that is unpacked. The largest original is ImageNet's: 148 GB in one file, 1,281,167 pictures."""

    members: int = 500_000
    """Files and folders. ImageNet's training images are a thousand archives, of 1,300 each."""
    bytes: int = 400 * 10**9
    """Unpacked."""
    ratio: float = 100
    """Bytes unpacked for one that is packed. Pictures hardly shrink; a bomb shrinks a thousandfold."""


class StrictHeader(tarfile.TarInfo):
    """For ``tarfile.open(tarinfo=...)``: a damaged header is an error, where ``tarfile`` takes it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "StrictHeader":
        """Read the next header.

        Raises:
            ReadError: it is damaged or cut off. HeaderError: the archive is at its end.
        """
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"damaged at byte {archive.offset}: {error}") from error


class _Budget:
    """Counts members and bytes, and stops where they are too many."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self.archive, self.target, self.limits = archive, target, limits
        self.packed = archive.stat().st_size
        self.free = shutil.disk_usage(target).free
        self.members = self.bytes = 0

    def spend(self, size: int) -> None:
        """Count one more member of ``size`` bytes."""
        if size < 0:
            raise ArchiveError(f"{self.archive} is broken: a file in it has a negative size")
        self.members += 1
        self.bytes += size
        if self.members > self.limits.members:
            raise ArchiveError(f"{self.archive} holds more than {self.limits.members:,} files: not unpacked")
        if self.bytes > self.limits.bytes:
            raise ArchiveError(f"{self.archive} unpacks to more than {self.limits.bytes / 1e9:,.0f} GB: not unpacked")
        if self.bytes > self.limits.ratio * self.packed + _SLACK:
            raise ArchiveError(
                f"{self.archive} unpacks to more than {self.limits.ratio:g} times its size, which no archive of "
                "pictures does: not unpacked"
            )
        if self.bytes > self.free:
            raise ArchiveError(f"{self.archive}: {self.free / 1e9:,.1f} GB are free in {self.target}, too few for it")


Member = tuple[PurePosixPath, Callable[[], IO[bytes] | None] | None, int]
"""Path of a member, a function that opens it (None: a folder), and the position in the archive in bytes."""


def unpack(
    archive: Path,
    target: Path,
    wanted: Mapping[str, str],
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Unpack parts of a tar (plain, gz, bz2, xz) or zip archive into an existing folder.

    Args:
        archive: its kind is recognised by its first bytes, not by its name.
        target: a folder that nobody else writes to. After an error it may hold a part: hand in a temporary one.
        wanted: destination below ``target`` by path in the archive (a file, a folder, or ``.`` for all).
        limits: by default those of ``Limits``.
        progress: called with bytes of the archive.

    Raises:
        ArchiveError: it is broken or cut off; a member has an absolute path or one with ``..``, or is a link or a
            device; it holds too much; or nothing in it is what is wanted. FileNotFoundError: no such archive.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: there is no such file")
    budget = _Budget(archive, target, limits or Limits())
    missing = dict(wanted)
    try:
        with archive.open("rb") as file:
            read = _zip if file.read(2) == b"PK" else _tar
        for path, open_member, position in read(archive, budget):
            if (place := _place(path, wanted)) is not None:
                missing.pop(place[0], None)
                if open_member is not None and (source := open_member()) is not None:
                    _write(source, target / place[1])
            if progress is not None:
                progress(position, budget.packed)
    except ArchiveError:
        raise
    except BROKEN as error:
        raise ArchiveError(f"{archive} is cut off or no archive ({error}): get it again") from error
    except (NotImplementedError, RuntimeError) as error:  # zip: compressed in another way, or encrypted
        raise ArchiveError(f"{archive} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.filename is None:  # gzip's complaints about content are of this type
            raise ArchiveError(f"{archive} is cut off or no archive ({error}): get it again") from error
        raise ArchiveError(f"{archive} cannot be unpacked into {target}: {error}") from error
    if missing:
        raise ArchiveError(f"{archive} does not hold {next(iter(missing))}: is it another archive of the same name?")


def _tar(archive: Path, budget: _Budget) -> Iterator[Member]:
    with (
        archive.open("rb") as raw,
        _decompressed(raw) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=StrictHeader) as tar,
    ):
        while (member := tar.next()) is not None:
            budget.spend(member.size)
            path = _checked(member.name, archive)
            if not (member.isdir() or (member.isreg() and not member.issparse())):
                kind = "a link" if member.issym() or member.islnk() else "no plain file"
                raise ArchiveError(f"{archive}: its member {member.name!r:.200} is {kind}: not unpacked")
            yield path, None if member.isdir() else partial(tar.extractfile, member), raw.tell()
        while rest := stream.read(1 << 20):  # up to the checksum at its end
            budget.spend(len(rest))


def _decompressed(raw: BinaryIO) -> IO[bytes]:
    """Open a compressed file. ``tarfile`` would take a download that was cut off for a complete one."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(raw))
    if start.startswith(b"BZh"):
        return bz2.open(raw)
    return lzma.open(raw) if start == b"\xfd7zXZ\0" else raw


def _zip(archive: Path, budget: _Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:  # all of them, before anything is written
            budget.spend(member.file_size)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(f"{archive}: its member {member.filename!r:.200} is no plain file: not unpacked")
            _checked(member.filename, archive)
        position = 0
        for member in members:
            position += member.compress_size
            path = _checked(member.filename, archive)
            yield path, None if member.is_dir() else partial(file.open, member), position


def _checked(name: str, archive: Path) -> PurePosixPath:
    """Return the path of a member, or refuse one that leads out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"^[A-Za-z]:|[\\\0]", name):
        raise ArchiveError(f"{archive}: its member {name!r:.200} would leave the folder: not unpacked")
    return path


def _place(path: PurePosixPath, wanted: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the key of ``wanted`` that holds a member, and its destination; None: not wanted, or made by macOS."""
    if path.name.startswith("._") or "__MACOSX" in path.parts:
        return None
    for inner, outer in wanted.items():
        if path.is_relative_to(inner):
            return inner, str(PurePosixPath(outer, path.relative_to(inner)))
    return None


def _write(source: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
