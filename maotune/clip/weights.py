"""The weights of a model: which file of a folder holds them, and the tensors in a file. Chosen by what is inside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from maotune.clip.limits import check_file, check_tensors
from maotune.clip.openai_names import OPENAI_SIZES
from maotune.clip.preprocess import read_json
from maotune.clip.torchscript import is_torchscript, read_torchscript

INDEX = ".index.json"
"""Ending of a file that says which parts hold the weights."""
NAMES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""Files that transformers looks for, in its order, then open_clip's."""
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What torch puts into the names of a model that is compiled or spread over devices."""
_TOWERS = frozenset({"visual", "transformer", "text", "text_model", "vision_model"})
"""Names at the top of a CLIP, which are no prefix even where a file holds one tower alone."""
_STATE_DICTS = ("state_dict", "model", "model_state_dict")
"""Where training code keeps the state dict in a checkpoint."""

State = dict[str, Tensor]


def in_transformers_names(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have transformers' names, and not OpenAI's, which are also open_clip's."""
    return "text_model.embeddings.token_embedding.weight" in weights


def find_weights(folder: Path, transformers: bool) -> tuple[Path, State]:
    """Return the file in a folder that holds the weights, and its tensors.

    Args:
        folder: of the model.
        transformers: whether the folder has transformers' config: then a file with transformers' names is taken if
            there is one; without it, one with OpenAI's names.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    others: list[tuple[Path, State]] = []
    for path in (folder / name for name in NAMES):
        if not path.is_file() or (path.name.endswith(INDEX) and not all(map(os.path.isfile, _parts(path)))):
            continue
        weights = read_weights(path)
        if in_transformers_names(weights) is transformers:
            return path, weights
        others.append((path, weights))
    if not others:
        config = "" if transformers else "no config.json of transformers' and "
        raise ValueError(f"{folder} holds no CLIP: {config}none of {', '.join(NAMES)}. Name another by its path")
    return others[0]


def read_weights(path: Path) -> State:
    """Read the tensors of a file by name, without a prefix that all names share; nothing in the file is executed.

    Raises:
        ValueError: it cannot be read, holds no weights, or numbers that are not finite.
    """
    if path.name.endswith(INDEX):
        weights = {name: value for part in _parts(path) for name, value in _read_tensors(part).items()}
    else:
        weights = _read_tensors(path)
    if damaged := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise ValueError(
            f"{path} is damaged: {damaged[0]}{f' and {len(damaged) - 1} more' if damaged[1:] else ''} of its "
            f"{len(weights)} weights hold numbers that are not finite. Download or save it again"
        )
    return _without_prefix(weights)


def _parts(index: Path) -> list[Path]:
    """Return the files that an index names, which lie beside it."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, Mapping) or any(not name or Path(str(name)).name != name for name in names.values()):
        raise ValueError(f'{index} should hold {{"weight_map": {{weight: file beside it}}}}')
    return [index.with_name(name) for name in sorted({*names.values()})]


def _read_tensors(path: Path) -> State:
    try:
        check_file(path)
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        elif is_torchscript(path):
            loaded = read_torchscript(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = {str(name): v for name, v in _state_dict(loaded, path).items() if isinstance(v, Tensor)}
        check_tensors(state.values(), path)
    except (FileNotFoundError, _NoWeights):
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes in three readers
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path} can not be read as weights ({type(error).__name__}: {reason})") from error
    return state


class _NoWeights(ValueError):
    """A file holds no weights, or does not tell which."""


def _state_dict(loaded: Any, path: Path) -> Mapping[Any, Any]:
    """Return the state dict in what a file holds: all of it, or an entry of a training checkpoint."""
    inner = _mappings(loaded)
    chosen = next((inner[name] for name in _STATE_DICTS if name in inner), None)
    if chosen is None and isinstance(loaded, Mapping) and any(isinstance(value, Tensor) for value in loaded.values()):
        return loaded
    with_weights = {name: value for name, value in inner.items() if any(isinstance(v, Tensor) for v in value.values())}
    if chosen is None and len(with_weights) > 1:
        raise _NoWeights(f"{path} holds several state dicts ({', '.join(map(str, with_weights))}): save one alone")
    chosen = chosen if chosen is not None else next(iter(with_weights.values()), None)
    if chosen is None:
        raise _NoWeights(f"{path} holds a {type(loaded).__name__} without weights, not the state dict of a CLIP")
    return _state_dict(chosen, path)


def _mappings(loaded: Any) -> dict[Any, Mapping[Any, Any]]:
    entries = loaded.items() if isinstance(loaded, Mapping) else ()
    return {name: value for name, value in entries if isinstance(value, Mapping)}


def _without_prefix(weights: State) -> State:
    """Cut what training code puts before the names of all weights: ``module.``, ``_orig_mod.``, ``net.clip.``, ..."""
    plain = {".".join(part for part in name.split(".") if part not in _WRAPPERS): v for name, v in weights.items()}
    sizes = {name: plain.pop(name) for name in OPENAI_SIZES if name in plain}
    while len(first := {name.partition(".")[0] for name in plain}) == 1 and not first & _TOWERS:
        cut = {name.partition(".")[2]: value for name, value in plain.items()}
        if "" in cut:
            break
        plain = cut
    return plain | sizes
