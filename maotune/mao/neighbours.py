"""The table of hard negatives: the nearest classes of each class by name (paper, Eq. 4)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maotune.data.cache import read_cached, write_cached
from maotune.files import TensorFile
from maotune.mao.name_encoder import MINILM, find_encoder

Underscores = Literal["both", "query-only"]
"""Which underscores are read as spaces: those of the query and of the names compared with it, or the query's only."""


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
    names: Sequence[str],
    k: int,
    *,
    underscores: Underscores = "both",
    encoder: str = MINILM,
    cache: Path | None = None,
) -> Tensor:
    """Return the ``k`` classes whose names are nearest to each class's by cosine: (C, min(k, C)) int64 (Eq. 4).

    The class itself is one of the ``k`` and comes first.

    Args:
        names: the C class names.
        k: classes per row, 1 or more.
        underscores: ``both`` reads every ``_`` as a space; ``query-only`` keeps them in the names that are compared
            with the query, as the released code does (this changes the table of Oxford Pets and others).
        encoder: embeds the names (``find_encoder``).
        cache: folder of saved tables, by content of the name list.

    Raises:
        ValueError: no names, or ``k`` < 1; no such encoder.
    """
    if k < 1:
        raise ValueError(f"k is {k}: give the number of classes per hard-negative list, 1 or more")
    embed = find_encoder(encoder)
    content = json.dumps([embed.content, underscores, k, list(names)])
    texts = {"content": hashlib.sha256(content.encode()).hexdigest()}
    path = cache and cache / f"hard-negatives-{texts['content'][:32]}.safetensors"

    def fits(kept: TensorFile) -> bool:
        return kept.checked and kept.texts == texts and _is_table(kept.tensors.get("table"), len(names), k)

    if path and (kept := read_cached(path, fits)):
        return kept.tensors["table"]
    spaced = embed.encode([name.replace("_", " ") for name in names])
    table = nearest_classes(spaced, spaced if underscores == "both" else embed.encode(names), k)
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
