"""Samplers of queries with hard negatives: by class names (MAO, Eq. 4), by a learner's scores (DPC), and controls."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from maotune.data.batches import Draw, Sampler

Integers = NDArray[np.int64]

Fill = Literal["repeat", "distinct", "short"]
"""What a batch holds where the lists of its queries overlap; see ``HardNegativeSampler``."""


class QuerySampler:
    """Draws ``b`` query images a batch, and images of classes that companions of them belong to.

    An epoch uses every query image once, in random order, and is a pure function of the seed; a last, smaller batch is
    dropped, as by ``RandomSampler``. Queries use view ``epoch % views``, other images a random view.

    Args:
        labels: (N,) int64 classes of the images to draw from.
        classes: C, their number.
        b: queries per batch.
        views: different views per image.
        seed: of the order and the draws.
        queries: indices of the query images; None: all N.
    """

    def __init__(
        self, labels: Tensor, classes: int, *, b: int, views: int, seed: int, queries: Sequence[int] | None = None
    ) -> None:
        self.queries: Integers = np.arange(len(labels)) if queries is None else np.array(queries, dtype=np.int64)
        for name, value in (("query images", len(self.queries)), ("b", b), ("views", views)):
            if value < 1:
                raise ValueError(f"{name}: {value}; 1 or more are needed")
        self.b, self.views, self.seed = min(b, len(self.queries)), views, seed
        self.labels: Integers = labels.numpy()
        self.sizes = np.bincount(self.labels, minlength=classes)  # images per class
        self.by_class = np.argsort(self.labels, kind="stable")  # images, sorted by class
        self.first = np.cumsum(self.sizes) - self.sizes  # position of the first image of each class among them

    def __len__(self) -> int:
        return len(self.queries) // self.b

    def draw(self, index: int, companions: Callable[[Integers, Generator], Integers]) -> list[list[Draw]]:
        """Return the batches of an epoch, in each the queries first, then an image of each of their companions.

        ``companions(queries, random)`` returns classes for query images (b,).
        """
        random = np.random.default_rng((self.seed, index))
        batches = []
        for queries in random.permutation(self.queries)[: len(self) * self.b].reshape(-1, self.b):
            others = companions(queries, random)
            images = self._images(queries, others, random)
            views = random.integers(self.views, size=len(others))
            drawn = zip(images, views.tolist(), strict=True)
            batches.append([*((query, index % self.views) for query in queries.tolist()), *drawn])
        return batches

    def _images(self, queries: Integers, others: Integers, random: Generator) -> list[int]:
        """Draw an image of each of the classes ``others``: one that the batch does not hold yet, where there is one."""
        classes = np.concatenate([self.labels[queries], others])
        earlier = np.tril(classes[:, None] == classes, -1).sum(1)[len(queries) :]  # images of the class before this one
        left = self.sizes[others] - earlier
        numbers = random.integers(np.where(left > 0, left, self.sizes[others]))
        held = set(queries.tolist())
        images: list[int] = []
        for start, size, repeated, number in zip(self.first[others], self.sizes[others], earlier, numbers, strict=True):
            choice = self.by_class[start : start + size]
            if repeated:
                unused = choice[~np.isin(choice, list(held))]
                choice = unused if len(unused) else choice
            images.append(int(choice[number]))
            held.add(images[-1])
        return images


class HardNegativeSampler(QuerySampler):
    """Yields ``b`` query images and images of the classes whose names are nearest to theirs (paper, 3.2).

    A query is the image of its own class, the first of its K (the paper draws an image for that class, too, but then an
    epoch may not use all labelled images); for each other class of its list a random image is drawn, in a random view.

    The lists of the queries overlap, and two queries may be of one class: both are in the batch. ``fill`` decides on
    the other classes. ``repeat`` is the batch of Eq. 4 to 6: b K images, of which a class has as many as there are
    lists with it, and different ones as long as it has any. ``distinct``: each once, and the next nearest classes, of
    each query in turn, fill the batch up to b K images. ``short``: each once, and no more, as in the released code.
    Classes without images are skipped.

    The cost of an epoch does not depend on the number of classes.
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
        fill: Fill = "repeat",
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
        super().__init__(labels, len(table), b=b, views=views, seed=seed, queries=queries)
        if k < 1:
            raise ValueError(f"K: {k}; 1 or more are needed")
        classes, width = len(table), table_width(len(table), b, k, fill)
        if table.shape[1] < width:
            raise ValueError(
                f"the hard-negative table has {table.shape[1]} columns, but b = {b}, K = {k} over {classes} "
                f"classes need {width}: compute it by hard_negatives(names, {width})"
            )
        self.fill, self.size = fill, b * k
        self.table: Integers = (table if fill == "distinct" else table[:, :k]).numpy()

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch, in each the queries first."""
        return self.draw(index, lambda queries, random: self.companions(self.labels[queries]))

    def companions(self, own: Integers) -> Integers:
        """Return the classes to draw images of, beside queries of classes ``own`` (b,): the nearest, the second, ..."""
        if self.fill == "repeat":
            others: Integers = self.table[own, 1:].T.ravel()
            return others[self.sizes[others] > 0]
        ranked = np.array(list(dict.fromkeys(self.table[own].T.ravel().tolist())), dtype=np.int64)
        usable: Integers = ranked[~np.isin(ranked, own) & (self.sizes[ranked] > 0)]
        return usable[: self.size - len(own)]


class RandomCandidateSampler:
    """Control of the sampler ``hard``: the same queries, as many images, as many of one class, but random classes."""

    def __init__(self, hard: HardNegativeSampler) -> None:
        self.hard = hard
        self.present = np.flatnonzero(hard.sizes)

    def __len__(self) -> int:
        return len(self.hard)

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch."""
        return self.hard.draw(index, self._random)

    def _random(self, images: Integers, random: Generator) -> Integers:
        """Return the companions with a random class, of no query, in place of each that is of no query."""
        own = self.hard.labels[images]
        companions, queries = self.hard.companions(own).tolist(), set(own.tolist())
        replaced = [name for name in dict.fromkeys(companions) if name not in queries]
        drawn = random.choice(self.present, size=min(len(self.present), len(replaced) + len(own)), replace=False)
        replacement = dict(zip(replaced, drawn[~np.isin(drawn, own)].tolist(), strict=False))
        return np.array([replacement.get(name, name) for name in companions], dtype=np.int64)


class RankedNegativeSampler(QuerySampler):
    """Yields ``b`` query images and an image of each class that a tuned learner takes them for (DPC's hard negatives).

    For each query in turn: its K likeliest classes, without those of the queries and those that the batch has already.
    So batches have different sizes. Two queries may be of one class: both are in the batch.

    Args:
        ranked: (N, V, K) int64, the likeliest classes of each query image in each of its views.
        at_least: classes beside each query; random ones that the batch does not have fill it up (the released code: 2).
        labels, classes, b, views, seed: see ``QuerySampler``; the first N images are the queries.
    """

    def __init__(
        self, labels: Tensor, classes: int, ranked: Tensor, *, b: int, views: int, seed: int, at_least: int = 0
    ) -> None:
        super().__init__(labels, classes, b=b, views=views, seed=seed, queries=range(len(ranked)))
        self.ranked: Integers = ranked.numpy()
        self.at_least = at_least

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch, in each the queries first."""
        view = index % self.views
        return self.draw(index, lambda queries, random: self.companions(queries, view, random))

    def companions(self, queries: Integers, view: int, random: Generator) -> Integers:
        """Return the classes to draw images of, beside query images (b,) in a view."""
        held = dict.fromkeys(self.labels[queries].tolist())
        own = len(held)
        for query in queries:
            before = len(held)
            held.update(dict.fromkeys(name for name in self.ranked[query, view].tolist() if self.sizes[name]))
            lacking = self.at_least - (len(held) - before)
            if lacking > 0:
                others = np.setdiff1d(np.flatnonzero(self.sizes), list(held))
                held.update(
                    dict.fromkeys(random.choice(others, size=min(lacking, len(others)), replace=False).tolist())
                )
        return np.array(list(held)[own:], dtype=np.int64)


def table_width(classes: int, b: int, k: int, fill: Fill = "repeat") -> int:
    """Return the columns that ``HardNegativeSampler`` needs: with ``distinct`` a batch may be filled from one row."""
    return min(classes, b * k if fill == "distinct" else k)


def mean_candidates(sizes: Sequence[int], table: Tensor, *, b: int, k: int, fill: Fill = "repeat") -> float:
    """Return H, the mean number of distinct classes in a batch of ``HardNegativeSampler``, without drawing any.

    The b queries of a batch are a random choice among all N, so a class that m of them have in their lists is missing
    with the probability that all b are among the other N - m.

    Args:
        sizes: query images per class (C).
        table: (C, W) of ``hard_negatives``, W at least K.
        b: queries per batch.
        k: K, classes per query, its own included.
        fill: see ``HardNegativeSampler``.
    """
    queries = np.asarray(sizes, dtype=np.int64)
    count, classes = int(queries.sum()), len(queries)
    b = min(b, count)

    def expected(width: int) -> float:
        """Mean number of classes among the first ``width`` of the lists."""
        near = table[:, :width].numpy()
        having = np.bincount(near.ravel(), weights=queries.repeat(near.shape[1]), minlength=classes)
        missing = np.ones(classes)
        for drawn in range(b):
            missing *= np.clip(count - having - drawn, 0, None) / (count - drawn)
        return float(classes - missing.sum())

    if fill == "distinct":
        return min(classes, b * k - b + expected(1))
    return expected(k)


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
