"""Walk through a folder as people have them: pictures, tar shards, and all that is left out, with its kind."""

import logging
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from maotune.data.images.formats import HEAD, SUFFIXES, why_unreadable
from maotune.data.images.shards import SHARD
from maotune.data.sets.dataset import Skipped, list_skipped
from maotune.printable import printable

log = logging.getLogger(__name__)

SYSTEM_FOLDERS = frozenset(
    (
        *("#recycle", "#snapshot", "recycle.bin", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("__macosx", "lost+found", "temporary items", "network trash folder", "__pycache__", "_gsdata_", "_vti_cnf"),
        *("thumbs", "_thumbs", "thumbnails", "_thumbnails"),
    )
)
"""Folders (lower case) of storage and operating systems; those that begin with a dot or an @ are such, too."""
_SYSTEM_ENDINGS = (".lrdata", ".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
"""Endings of folders in which photo programs keep their own copies."""
_RECOVERED = re.compile(r"found\.\d{3}")
"""Folders in which Windows keeps what it has found on a damaged disk."""
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini"))

CLASS_FILE = "classes.tsv"
"""Class names file in the top folder of a data set; it is used by default."""


class FolderWalk:
    """Reads folders below a root, each real folder once, and notes in ``skipped`` what is left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.skipped: list[Skipped] = []
        self.shards: list[Path] = []
        """Tar shards in the folders that were read."""
        self._ignored: set[Path] = set()
        self._pictured: dict[Path, bool] = {}
        self._read: set[tuple[int, int]] = set()
        self._noted: set[Path] = set()

    def ignore(self, *files: Path) -> None:
        """Do not note these files, which are known."""
        self._ignored.update(files)

    def skip(self, path: Path, kind: str, reason: str, count: int = 1) -> None:
        """Note once that ``path`` is left out."""
        if path not in self._noted:
            self._noted.add(path)
            self.skipped.append(Skipped(str(path), kind, f"{printable(str(path))}: {reason}", count))

    def subfolders(self, folder: Path) -> list[Path]:
        """List the folders in ``folder``, sorted by name, without those of systems and links to a folder above."""
        found = []
        for entry in _entries(folder):
            path = folder / entry.name
            if not _is_folder(entry):
                continue
            if _is_of_a_system(entry.name.lower()):
                if count := sum(1 for _ in _picture_endings(path)):
                    reason = f"a hidden folder, or one of a system ({count} picture{'s' * (count > 1)})"
                    self.skip(path, "in system folders", reason, count)
            elif entry.is_symlink() and _is_above(path, folder, self.root):
                self.skip(path, "link", "a link to a folder that holds this one")
            else:
                found.append(path)
        return found

    def loose(self, folder: Path) -> list[Path]:
        """List the pictures that lie in ``folder`` itself, sorted by name; nothing is noted."""
        return [*_loose(folder)]

    def has_loose(self, folder: Path) -> bool:
        """Whether pictures lie in ``folder`` itself."""
        return any(True for _ in _loose(folder))

    def with_pictures(self, folder: Path) -> list[Path]:
        """List the folders in ``folder`` that have pictures somewhere below them; what these lack is not noted."""
        return [path for path in self.subfolders(folder) if self._has_pictures(path)]

    def _has_pictures(self, folder: Path) -> bool:
        if folder not in self._pictured:
            self._pictured[folder] = any(True for _ in FolderWalk(self.root)._below([folder]))
        return self._pictured[folder]

    def count(self, folder: Path) -> int:
        """Count the pictures below ``folder``; nothing is noted."""
        return sum(1 for _ in FolderWalk(self.root)._below([folder]))

    def pictures(self, folder: Path) -> list[Path]:
        """List the pictures below ``folder``, sorted by path, and note everything else in it."""
        return self.pictures_by_folder([folder])[folder]

    def pictures_by_folder(self, folders: Sequence[Path]) -> dict[Path, list[Path]]:
        """List the pictures below each folder, sorted by path, and note everything else.

        Links are followed after all real folders, so no picture is read through a link in place of its own folder.
        """
        found: dict[Path, list[Path]] = {folder: [] for folder in folders}
        for folder, path in self._below(folders):
            found[folder].append(path)
        return {folder: sorted(paths, key=Path.as_posix) for folder, paths in found.items()}

    def note_files(self, folder: Path) -> None:
        """Note what lies in ``folder`` itself and is no picture."""
        for entry in _entries(folder):
            if not _is_folder(entry):
                self._note(folder, entry)

    def is_picture(self, path: Path) -> bool:
        """Whether a file is a picture; if not, it is noted."""
        return self._note(path.parent, path)

    def _below(self, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
        """Yield the pictures below each folder, with that folder."""
        waiting = deque((folder, folder) for folder in sorted(folders, key=Path.is_symlink))
        while waiting:
            folder, start = waiting.popleft()
            links: list[Path] = []
            for path in self._walk(start, links):
                yield folder, path
            waiting.extend((folder, link) for link in links)

    def _walk(self, folder: Path, links: list[Path]) -> Iterator[Path]:
        """Yield the pictures below a folder; ``links`` to folders are collected, not followed."""
        try:
            status = folder.stat()
            entries = _entries(folder)
        except OSError as error:
            self.skip(folder, "no access", f"cannot be read ({error.strerror})")
            return
        if (status.st_dev, status.st_ino) in self._read:
            self.skip(folder, "link", "a link to a folder that is read already")
            return
        self._read.add((status.st_dev, status.st_ino))
        for entry in entries:
            if not _is_folder(entry) and self._note(folder, entry):
                yield folder / entry.name
        for path in self.subfolders(folder):
            if path.is_symlink():
                links.append(path)
            else:
                yield from self._walk(path, links)

    def _note(self, folder: Path, entry: "os.DirEntry[str] | Path") -> bool:
        """Whether a file is a picture; if not, it is noted."""
        reason = _judge(folder, entry)
        if reason is None:
            return True
        path = folder / entry.name
        if path in self._ignored or entry.name.lower() in _SYSTEM_FILES or entry.name == CLASS_FILE:
            return False
        if path.suffix.lower() == SHARD:
            self.shards.append(path)
        elif reason[0] != "hidden" or (_has_picture_ending(entry.name) and not entry.name.startswith("._")):
            self.skip(path, *reason, count=int(reason[0] != "document"))
        return False


def _is_of_a_system(name: str) -> bool:
    known = name in SYSTEM_FOLDERS or name.endswith(_SYSTEM_ENDINGS)
    return known or name.startswith((".", "@")) or _RECOVERED.fullmatch(name) is not None


def _judge(folder: Path, entry: "os.DirEntry[str] | Path") -> tuple[str, str] | None:
    """Return the kind of a file that is no picture by its name or its first bytes, and why; None: it is one."""
    if entry.name.startswith("."):
        return "hidden", "a hidden file"
    if _has_picture_ending(entry.name):
        return None
    try:
        if not stat.S_ISREG(entry.stat().st_mode):  # reading a pipe would never end
            return "not a picture", "neither a file nor a folder"
        with open(folder / entry.name, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:  # among them, links to nothing
        return "no access", f"cannot be read ({error.strerror})"
    if not head and not os.path.splitext(entry.name)[1]:
        return "empty", "the file is empty"
    return why_unreadable(entry.name, head)


def _loose(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if not _is_folder(entry) and _judge(folder, entry) is None:
            yield folder / entry.name


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_above(link: Path, folder: Path, root: Path) -> bool:
    """Whether a link leads to the folder that it lies in, or to one above it or above the root."""
    target = Path(os.path.realpath(link))
    places = (Path(os.path.realpath(folder)), Path(os.path.realpath(root)))
    return any(target == place or target in place.parents for place in places)


def _picture_endings(folder: Path) -> Iterator[str]:
    for _, _, files in os.walk(folder):
        yield from (name for name in files if _has_picture_ending(name) and not name.startswith("._"))


def _has_picture_ending(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures below ``folder``, sorted by path; what is left out is named in the log."""
    walk = FolderWalk(folder)
    pictures = walk.pictures(folder)
    if walk.skipped:
        log.warning("left out: %s", list_skipped(walk.skipped))
    return pictures


def relative(path: Path, root: Path) -> str:
    """Return a path from ``root``, with slashes on every system."""
    return Path(os.path.relpath(path, root)).as_posix()
