"""Samplers of MAO's base stage: batches of classes that are hard to tell apart by name (paper, Eq. 4), and controls."""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from maotune.data.batches import Draw, Sampler

Integers = NDArray[np.int64]

log = logging.getLogger(__name__)


class HardNegativeSampler:
    """Yields ``b`` query images and images of the classes whose names are nearest to theirs (paper, 3.2).

    An epoch uses every query image once, in random order; a last, smaller batch is dropped, as by ``RandomSampler``. A
    query is the image of its own class, the first of its K (the paper draws an image for that class, too, but then an
    epoch may not use all labelled images); each other class contributes one random image in a random view.

    The lists of the queries overlap. With ``fill`` every class occurs once per batch (of two queries of a class the
    first is used), and the next nearest classes, of each query in turn, fill the batch up to b K classes. Without, as
    in the released code, the batch stays short, and both queries of a class are in it. Classes without images are
    skipped.

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
            labels: (N,) int64 classes of the images to draw from.
            table: (C, W) int64 of ``hard_negatives``; W at least ``table_width``.
            b: queries per batch.
            k: K, classes per query, its own included.
            views: different views per image; queries use view ``epoch % views``.
            seed: of the order and the draws.
            fill: see above.
            queries: indices of the query images; None: all N.

        Raises:
            ValueError: no image, a number below 1, or a table with too few columns.
        """
        self.queries: Integers = np.arange(len(labels)) if queries is None else np.array(queries, dtype=np.int64)
        for name, value in (("query images", len(self.queries)), ("b", b), ("K", k), ("views", views)):
            if value < 1:
                raise ValueError(f"{name}: {value}; 1 or more are needed")
        classes, width = len(table), table_width(len(table), b, k, fill)
        if table.shape[1] < width:
            raise ValueError(
                f"the hard-negative table has {table.shape[1]} columns, but b = {b}, K = {k} over {classes} "
                f"classes need {width}: compute it by hard_negatives(names, {width})"
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
        self.sizes = np.bincount(self.labels, minlength=classes)  # images per class
        self.by_class = np.argsort(self.labels, kind="stable")  # images, sorted by class
        self.first = np.cumsum(self.sizes) - self.sizes  # position of the first image of each class among them

    def __len__(self) -> int:
        return len(self.queries) // self.b

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch, in each the queries first."""
        return self.draw(index, lambda own, random: self.companions(own))

    def companions(self, own: Integers) -> Integers:
        """Return the other classes of a batch with queries of classes ``own`` (b,): each one's nearest, second, ..."""
        ranked = np.array(list(dict.fromkeys(self.table[own].T.ravel().tolist())), dtype=np.int64)
        usable: Integers = ranked[~np.isin(ranked, own) & (self.sizes[ranked] > 0)]
        return usable[: self.size - len(np.unique(own))]

    def draw(self, index: int, companions: Callable[[Integers, Generator], Integers]) -> list[list[Draw]]:
        """Return the batches of an epoch with the other classes ``companions(own, random)``, all distinct."""
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
    """Control of the sampler ``hard``: the same queries and as many other classes and images, but random classes."""

    def __init__(self, hard: HardNegativeSampler) -> None:
        self.hard = hard
        self.present = np.flatnonzero(hard.sizes)

    def __len__(self) -> int:
        return len(self.hard)

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch."""
        return self.hard.draw(index, self._random)

    def _random(self, own: Integers, random: Generator) -> Integers:
        count = len(self.hard.companions(own))
        drawn = random.choice(self.present, size=min(len(self.present), count + len(own)), replace=False)
        return drawn[~np.isin(drawn, own)][:count]


def table_width(classes: int, b: int, k: int, fill: bool = True) -> int:
    """Return the columns that ``HardNegativeSampler`` needs in its table: enough to fill a batch from one row."""
    return min(classes, b * k if fill else k)


class StretchedSampler:
    """Yields the batches of another sampler in the same order, in epochs of ``updates`` batches."""

    def __init__(self, sampler: Sampler, updates: int) -> None:
        self.sampler, self.updates = sampler, updates

    def __len__(self) -> int:
        return self.updates

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch."""
        size, start = len(self.sampler), index * self.updates
        inner = range(start // size, math.ceil((start + self.updates) / size))
        batches = [batch for epoch in inner for batch in self.sampler.epoch(epoch)]
        return batches[start % size :][: self.updates]
