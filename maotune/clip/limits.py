"""Limits on files of weights, checked before they are read: a small file must not grow to gigabytes or take hours."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from maotune.files import LARGEST_HEADER

PICKLE_BYTES = 1 << 24
"""Of the pickles in a file."""
PICKLE_OPERATIONS = 1 << 20
PICKLED_OBJECTS = 1 << 22
"""What a pickle may unfold to; what is shared counts as often as it is used."""
_DTYPES = frozenset(
    {
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    }
)
_SLACK = 1 << 26
"""Bytes that a file may grow by, whatever its size: names and programs are compressed, weights are not."""


class TooLargeError(ValueError):
    """A file holds more than a reader takes; the message says what and how much is allowed."""


def check_file(path: Path) -> None:
    """Check what the outside of a file says of its content: a safetensors header, or the directory of a zip archive.

    Raises:
        TooLargeError: its header is too long, or it unpacks to more than twice its size.
        zipfile.BadZipFile: it is damaged.
    """
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise TooLargeError(f"its header has {length:,} bytes; at most {LARGEST_HEADER:,} are read")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > 2 * size + _SLACK:
                raise TooLargeError("it unpacks to more than twice its size, which no file of weights does")
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            if len(pickles) > 2 or sum(member.file_size for member in pickles) > PICKLE_BYTES:
                raise TooLargeError(f"more than two pickles, or {PICKLE_BYTES:,} bytes of them, are in it")
            for member in pickles:
                check_pickle(archive.read(member))
    else:
        with path.open("rb") as file:
            check_pickle(file.read(PICKLE_BYTES), parts=5)  # torch's older format; the weights follow


def check_tensors(tensors: Iterable[Tensor], path: Path) -> None:
    """Check that tensors hold plain numbers, and no more than their file: views can repeat a few numbers endlessly.

    Raises:
        ValueError: they do not.
    """
    tensors = list(tensors)
    if strange := [each for each in tensors if each.dtype not in _DTYPES or each.layout != torch.strided]:
        raise ValueError(f"it holds numbers of a kind that no CLIP has ({strange[0].dtype}, {strange[0].layout})")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > 4 * path.stat().st_size + _SLACK:
        raise TooLargeError(f"its tensors have {size:,} bytes, more than are in the file")


def check_pickle(content: bytes, parts: int = 1) -> None:
    """Go through the operations of a pickle, or of several that follow each other, without building an object.

    Raises:
        TooLargeError: it has too many operations, or unfolds to too many objects.
        pickle.UnpicklingError: it is damaged.
    """
    stream = io.BytesIO(content)
    for _ in range(parts):
        try:
            _check_operations(stream)
        except TooLargeError:
            raise
        except (IndexError, KeyError, ValueError) as error:
            raise pickle.UnpicklingError(f"no pickle that can be read: {error}") from error


def _check_operations(stream: io.BytesIO) -> None:
    """Keep the stack of a pickle, with the number of objects in place of each object (0: a mark)."""
    stack: list[int] = []
    memo: dict[int, int] = {}
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if number >= PICKLE_OPERATIONS:
            raise TooLargeError(f"a pickle of more than {PICKLE_OPERATIONS:,} operations is in it")
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if argument is None else int(argument)
            if not 0 <= place <= number:  # the memo is as long as its highest place
                raise TooLargeError(f"a pickle with place {place:,} in its memo is in it")
            memo[place] = stack[-1]
            continue
        if operation.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
            continue
        objects = 1
        for kind in reversed(operation.stack_before):
            while kind is pickletools.stackslice and stack[-1]:
                objects += stack.pop()
            if kind is not pickletools.stackslice:
                objects += stack.pop()
        if objects > PICKLED_OBJECTS:
            raise TooLargeError(f"a pickle that unfolds to more than {PICKLED_OBJECTS:,} objects is in it")
        stack += [0 if kind is pickletools.markobject else objects for kind in operation.stack_after]
