"""The cache on disk: files that can be computed again, shared by processes, of which none may stop a run.

A damaged file is deleted and computed again. A file that cannot be read (too many open files, no permission) may be
whole, so it stays. Where nothing can be written, what was computed stays in memory.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from glob import glob
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from maotune.files import DamagedFile, TensorFile, read_tensors, write_tensors

log = logging.getLogger(__name__)

_FILES = ("features/*/*.safetensors", "features/*/.*.tmp", "hard-negatives-*", ".hard-negatives-*.tmp")
"""What the cache keeps: shards of features, and tables of hard negatives."""


class CacheSize(NamedTuple):
    """Files of a cache."""

    shards: int
    bytes: int


def default_folder() -> Path:
    """Return ``$MAOTUNE_CACHE``, or ``~/.cache/maotune``."""
    return Path(os.environ.get("MAOTUNE_CACHE") or Path.home() / ".cache" / "maotune")


def measure_cache(folder: Path) -> CacheSize:
    """Return the number and bytes of the files that are kept in ``folder``."""
    sizes = []
    for file in _files(folder):
        with contextlib.suppress(OSError):  # another process was faster
            sizes.append(file.stat().st_size)
    return CacheSize(len(sizes), sum(sizes))


def clear_cache(folder: Path) -> CacheSize:
    """Delete the files that are kept in ``folder``, and nothing else; return the size of what was deleted."""
    size = measure_cache(folder)
    for file in _files(folder):
        file.unlink(missing_ok=True)
    for space in glob("features/*", root_dir=folder):
        with contextlib.suppress(OSError):  # not empty, or no folder
            (folder / space).rmdir()
    return size


def _files(folder: Path) -> list[Path]:
    """List the regular files of the cache; what has such a name and is a folder, a pipe or a device is not its own."""
    # Unlike Path.glob, the function glob bears folders that disappear.
    paths = [folder / name for pattern in _FILES for name in sorted(glob(pattern, root_dir=folder))]
    return [path for path in paths if path.is_file()]


def read_cached(path: Path, fits: Callable[[TensorFile], bool]) -> TensorFile | None:
    """Return the content of a file of the cache; None where it is not there or cannot be used.

    Args:
        path: of the file.
        fits: whether the content is what was asked for; if not, the file counts as damaged.
    """
    try:
        content = read_tensors(path)
        if fits(content):
            return content
        raise DamagedFile(path, "it holds something else")
    except DamagedFile as error:
        delete_damaged(path, error)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("cannot read %s (%s): what it holds is computed again", path, error)
    return None


def delete_damaged(path: Path, error: DamagedFile) -> None:
    """Delete a damaged file, where that is possible; what has its name and is no regular file is left alone."""
    log.warning("%s: what it held is computed again", error)
    if path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()


def write_cached(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bool:
    """Write a file of the cache; return whether that was possible."""
    try:
        write_tensors(path, tensors, texts)
    except OSError as error:
        log.warning("cannot save features or tables in %s (%s); they stay in memory", path.parent, error)
        return False
    return True
