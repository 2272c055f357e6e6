"""MAO's sampler of the base stage: batches of images whose classes are hard to tell apart by name (paper, Eq. 4)."""

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


class StretchedSampler:
    """Another sampler's batches in longer or shorter epochs: as many of its own as ``updates`` take."""

    def __init__(self, sampler: Sampler, updates: int) -> None:
        self.sampler, self.updates = sampler, updates

    def __len__(self) -> int:
        return self.updates

    def epoch(self, index: int) -> list[list[Draw]]:
        """See ``Sampler``."""
        size, start = len(self.sampler), index * self.updates
        inner = range(start // size, math.ceil((start + self.updates) / size))
        batches = [batch for epoch in inner for batch in self.sampler.epoch(epoch)]
        return batches[start % size :][: self.updates]


class EveryViewSampler:
    """All views of the first image, of the second, ...; the last batch may be smaller."""

    def __init__(self, n: int, views: int, batch_size: int) -> None:
        self.n, self.views, self.batch_size = n, views, batch_size

    def __len__(self) -> int:
        return math.ceil(self.n * self.views / self.batch_size)

    def epoch(self, index: int) -> list[list[Draw]]:
        """See ``Sampler``; all epochs are the same."""
        draws = [(image, view) for image in range(self.n) for view in range(self.views)]
        return [draws[start : start + self.batch_size] for start in range(0, len(draws), self.batch_size)]
