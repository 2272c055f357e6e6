"""Locks that the system lets go of when their process ends, however it ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file ``path``, which is made where it is missing.

    Args:
        path: of the lock file.
        patience: seconds to wait for whoever holds it.

    Raises:
        Held: it is still held after that time.
        OSError: the file system knows no locks.
    """
    until = time.monotonic() + patience
    with path.open("a") as lock:
        while not _take(lock.fileno(), fcntl.LOCK_EX, path):
            if time.monotonic() >= until:
                raise Held(f"{path.parent} is in use by another process")
            time.sleep(0.05)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``; nothing is written."""
    try:
        with path.open("rb") as lock:
            return not _take(lock.fileno(), fcntl.LOCK_SH, path)
    except FileNotFoundError:
        return False


def _take(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OSError(
            f"the file system of {path.parent} cannot lock files ({error.strerror}), and without locks two "
            "processes could run the same trial: give a folder on another file system"
        ) from error
    return True
