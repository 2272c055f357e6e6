"""Read the tensors of a TorchScript archive, as OpenAI publishes its models, without running any code from it."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def is_torchscript(path: Path) -> bool:
    """Tell a TorchScript archive from other files."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive by name, after ``limits.check_file``. Its program is not even read.

    Raises:
        pickle.UnpicklingError: the archive holds other objects than modules, tensors and lists.
    """
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = member.removesuffix("data.pkl")
        storages: dict[tuple[torch.dtype, str], Tensor] = {}

        def storage(dtype: torch.dtype, key: str) -> Tensor:
            if (dtype, key) not in storages:
                storages[dtype, key] = torch.frombuffer(bytearray(archive.read(f"{root}data/{key}")), dtype=dtype)
            return storages[dtype, key]

        with archive.open(member) as stream:
            return dict(_tensors(_TensorUnpickler(stream, storage).load(), ""))


def _tensors(module: SimpleNamespace, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module and of those in it, with names as in a state dict."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, SimpleNamespace):
            yield from _tensors(value, f"{prefix}{name}.")


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors, lists, and namespaces in place of modules; refuses every other object."""

    def __init__(self, stream: Any, storage: Callable[[torch.dtype, str], Tensor]) -> None:
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return SimpleNamespace
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"refused to load {module}.{name} from it")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        return self._storage(dtype, key)


def _rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "BoolStorage"): torch.bool,
    ("torch", "ByteStorage"): torch.uint8,
}
