"""Files: atomic writes, locks and checksums."""

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import lock_descriptor, unlock_descriptor


class LockTaken(RuntimeError):
    """Another process holds the lock."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` as ``open_atomic`` does."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` for writing, and move it to ``path`` when the block ends without an error.

    Readers see the old file or the complete new one, also after a kill or a power failure, and whoever else writes the
    same file. The folder is created where it is missing. After an error no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some systems cannot open or flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file ``path``, which is created where it is missing.

    The system frees the lock when the process ends, however it ends.

    Args:
        path: of the lock file; its folder must exist.
        patience: seconds to wait for another process to free it.

    Raises:
        LockTaken: another process still holds it after that time.
        OSError: the file system cannot lock files.
    """
    deadline = time.monotonic() + patience
    with path.open("ab") as file:
        while not _take(file, path):
            if time.monotonic() >= deadline:
                raise LockTaken(f"{path.parent} is in use by another process")
            time.sleep(0.05)
        try:
            yield
        finally:
            unlock_descriptor(file.fileno())


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file ``path``. Writes nothing, and works in a read-only folder."""
    try:
        # Open for update where that is allowed: network file systems lock no file that is open for reading alone.
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
            return not _take(file, path)
    except FileNotFoundError:
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(file: IO[bytes], path: Path) -> bool:
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError as error:
        raise OSError(
            f"the file system of {path.parent} cannot lock files ({error.strerror}), and without locks two "
            "processes could run the same trial: give a folder on another file system"
        ) from error
