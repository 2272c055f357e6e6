"""Files: atomic writes, checksums and locks. The only place that knows how a file is written."""

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from filelock import lock_descriptor, unlock_descriptor
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "checksum"
"""Key of the checksum: in a JSON object, and among the texts in the header of a safetensors file."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
"""Names of temporary files."""
LARGEST_FILE = 1 << 29
"""Bytes of a file that is read as a whole; learned prompts have megabytes."""
LARGEST_TEXT = 1 << 26
"""Bytes of a text file, such as JSON or a list of names; tables of images may have ``LARGEST_FILE``."""
LARGEST_HEADER = 1 << 25
"""Bytes of the header of a safetensors file."""


class LockTaken(RuntimeError):
    """Another process holds the lock."""


class DamagedFile(ValueError):
    """A file does not hold what was written to it; the message names the file and says what is wrong."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is damaged ({reason})")
        self.reason = reason


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` as ``open_atomic`` does."""
    with open_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` for writing, and move it to ``path`` when the block ends without an error.

    Readers see the old file or the complete new one, also after a kill or a power failure, and whoever else writes the
    same file. The folder is created where it is missing. After an error, such as a full disk, no temporary file stays.
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
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # some systems cannot open or flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Delete the temporary files that killed processes left in ``folder``: those of at least so many seconds."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if _TEMPORARY.fullmatch(path.name):
                with contextlib.suppress(OSError):  # another process was faster
                    if time.time() - path.stat().st_mtime >= older_than:
                        path.unlink()


def open_regular(path: Path, largest: int = LARGEST_FILE) -> IO[bytes]:
    """Open a file for reading; a folder, a pipe or a device is refused, without waiting for it.

    Raises:
        DamagedFile: no regular file, or one of more than ``largest`` bytes.
        OSError: it cannot be opened, which says nothing about its content.
    """
    return open(path, "rb", opener=partial(_open_regular, largest=largest))


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        ValueError: it is not UTF-8, or not regular, or of more than ``largest`` bytes. FileNotFoundError: no such file.
    """
    with open_regular(path, largest) as file:
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def parse_json(text: str, where: object) -> Any:
    """Parse JSON from elsewhere; ``where`` it stands begins the message of an error.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error


def _open_regular(path: str, flags: int, largest: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= largest:
        return descriptor
    os.close(descriptor)
    reason = f"it has {status.st_size:,} bytes; at most {largest:,} are read"
    raise DamagedFile(Path(path), reason if stat.S_ISREG(status.st_mode) else "it is no regular file")


def write_json(path: Path, tree: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write a JSON object with its checksum, atomically; ``indent`` None: without spaces and line ends."""
    tree = json.loads(json.dumps(tree))  # as a reader gets it
    separators = None if indent else (",", ":")
    text = json.dumps({**tree, CHECKSUM: _checksum(tree)}, indent=indent, separators=separators)
    write_atomic(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, without its checksum; files of older versions have none.

    Raises:
        DamagedFile: no JSON object, or not the one that was written.
        OSError: the file cannot be read.
    """
    with open_regular(path, LARGEST_TEXT) as file:
        content = file.read()
    try:
        tree = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, error) from error
    if not isinstance(tree, dict):
        raise DamagedFile(path, "it holds no JSON object")
    recorded = tree.pop(CHECKSUM, None)
    if recorded not in (None, _checksum(tree)):
        raise DamagedFile(path, f"its content does not fit its {CHECKSUM}; whoever edits it must delete that line")
    return tree


class TensorFile(NamedTuple):
    """Content of a safetensors file."""

    tensors: dict[str, "Tensor"]
    texts: dict[str, str]
    checked: bool
    """Whether it has a checksum; files of older versions have none, and damage to them may go unnoticed."""


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], texts: Mapping[str, str]) -> None:
    """Write tensors, and texts in the header, to a safetensors file with its checksum, atomically."""
    from safetensors.torch import save  # imports torch

    file = io.BytesIO(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))
    header = {**_read_header(file), "__metadata__": dict(texts)}
    content = file.read()
    header["__metadata__"] = {CHECKSUM: _checksum(header, content), **texts}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format wants the tensors aligned
    write_atomic(path, len(encoded).to_bytes(8, "little") + encoded + content)


def read_tensors(path: Path) -> TensorFile:
    """Read a safetensors file and compare it with its checksum, if it has one. Any safetensors file is read.

    Raises:
        DamagedFile: no such file, or not what was written.
        OSError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    with open_regular(path) as opened:
        content = opened.read()
    file = io.BytesIO(content)
    try:
        if int.from_bytes(content[:8], "little") > LARGEST_HEADER:
            raise ValueError(f"its header has more than {LARGEST_HEADER:,} bytes")
        tensors = load(content)  # first: it compares the header with the size of the file
        header = _read_header(file)
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DamagedFile(path, error) from error
    texts = header["__metadata__"] = header.get("__metadata__") or {}
    recorded = texts.pop(CHECKSUM, None)
    if recorded not in (None, _checksum(header, file.getbuffer()[file.tell() :])):
        raise DamagedFile(path, f"its content does not fit its {CHECKSUM}")
    return TensorFile(tensors, texts, recorded is not None)


def read_byte_rows(path: Path, name: str) -> NDArray[np.uint8]:
    """Return one matrix of bytes from a safetensors file. The rest is not read, so the checksum is not compared.

    Raises:
        DamagedFile: no such file, or it holds no such matrix.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        try:
            header = _read_header(file)
            first, last = header[name]["data_offsets"]
            file.seek(first, os.SEEK_CUR)
            rows, columns = header[name]["shape"]
            if last > os.fstat(file.fileno()).st_size:
                raise ValueError("it is cut off")
            return np.frombuffer(file.read(last - first), np.uint8).reshape(rows, columns)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DamagedFile(path, error) from error


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    """Read the header of a safetensors file; the bytes of the tensors follow."""
    length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has more than {LARGEST_HEADER:,} bytes")
    header: dict[str, Any] = json.loads(file.read(length).decode())
    return header


def _checksum(tree: Mapping[str, Any], content: "bytes | memoryview" = b"") -> str:
    """Return the SHA-256 of a JSON tree, however it is spaced and ordered, and of bytes after it."""
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    digest.update(content)
    return digest.hexdigest()


@contextmanager
def lock(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file ``path``, which is created where it is missing and says who holds it.

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
                raise LockTaken(f"{path.parent} is in use by another process{_holder(path)}")
            time.sleep(0.05)
        try:
            with contextlib.suppress(OSError):  # a full disk
                file.truncate(0)
                file.write(f"{os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
            yield
        finally:
            unlock_descriptor(file.fileno())


def _holder(path: Path) -> str:
    try:
        holder = path.read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:  # some systems let nobody read a locked file
        return ""
    return f" ({holder})" if holder else ""


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
