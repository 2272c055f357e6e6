"""Batches of a stage: samplers choose images and views; features and pixels of these are prepared ahead of the step."""

import math
import random
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from maotune.contract import Batch, Support
from maotune.data.images.threads import map_in_threads
from maotune.data.images.views import View, view_seed
from maotune.data.sets.dataset import Sample

Draw = tuple[int, int]
"""Index into the samples, number of the view."""


class Sampler(Protocol):
    """Chooses the images of each batch. ``epoch`` is a pure function of the sampler's seed and its argument."""

    def __len__(self) -> int:
        """Return the number of updates in an epoch."""
        ...

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of epoch ``index``, from 0."""
        ...


class RandomSampler:
    """Draws every image once per epoch, in random order, in its view number ``epoch % views``.

    The last batch of an epoch is dropped where it is not full, unless it is the only one (Dassl's rule, which
    CoOp trains by).
    """

    def __init__(self, n: int, batch_size: int, views: int, seed: int) -> None:
        """Set up for ``n`` images, ``views`` different views of each.

        Raises:
            ValueError: a number below 1.
        """
        for name, value in (("images", n), ("batch size", batch_size), ("views", views)):
            if value < 1:
                raise ValueError(f"{name}: {value}; 1 or more are needed")
        self.n, self.batch_size, self.views, self.seed = n, min(batch_size, n), views, seed

    def __len__(self) -> int:
        return self.n // self.batch_size

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of epoch ``index``, from 0."""
        order = list(range(self.n))
        random.Random(f"{self.seed}/{index}").shuffle(order)
        view, size = index % self.views, self.batch_size
        return [[(image, view) for image in order[at * size : (at + 1) * size]] for at in range(len(self))]


class SequentialSampler:
    """Yields the first ``views`` views of each image, in order, with the last batch also where it is not full."""

    def __init__(self, n: int, batch_size: int, views: int = 1) -> None:
        self.n, self.batch_size, self.views = n, batch_size, views

    def __len__(self) -> int:
        return math.ceil(self.n * self.views / self.batch_size)

    def epoch(self, index: int) -> list[list[Draw]]:
        """Return the batches of an epoch; all epochs are the same."""
        draws = [(image, view) for image in range(self.n) for view in range(self.views)]
        return [draws[start : start + self.batch_size] for start in range(0, len(draws), self.batch_size)]


PICTURE_MEMORY = 1 << 30
"""Bytes of decoded pictures that ``PixelSource`` keeps."""


class PixelSource:
    """Pixels of any (image, view); decoded pictures are kept in memory, the least recently used are dropped first."""

    def __init__(self, samples: Sequence[Sample], view: View, memory: int = PICTURE_MEMORY) -> None:
        """Keep up to ``memory`` bytes of decoded pictures."""
        self.samples, self.view, self.memory = samples, view, memory
        self._pictures: OrderedDict[int, Image.Image] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def pixels(self, draw: Draw) -> Tensor:
        """Return the pixels of one draw, (3, h, w) float32. Safe to call from many threads.

        Raises:
            UnreadableImage: the image cannot be used.
        """
        index, view = draw
        return self.view(self._picture(index), view_seed(self.view.seed, self.samples[index].image.digest(), view))

    def _picture(self, index: int) -> Image.Image:
        with self._lock:
            if (picture := self._pictures.get(index)) is not None:
                self._pictures.move_to_end(index)
                return picture
        picture = self.samples[index].image.read()
        with self._lock:
            if index not in self._pictures:
                self._pictures[index] = picture
                self._held += picture_bytes(picture)
            while self._held > self.memory:
                self._held -= picture_bytes(self._pictures.popitem(last=False)[1])
        return picture


def picture_bytes(picture: Image.Image) -> int:
    """Return the memory of a decoded picture: Pillow keeps RGB in 4 bytes per pixel."""
    return picture.width * picture.height * 4


class SampleBatches:
    """Batches of a sampler with features, pixels, or both, of the same images and views.

    Pixels are prepared ``AHEAD`` batches in advance. Starting within an epoch gives the same batches as reaching
    that point from its start.
    """

    AHEAD = 2

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int] | Tensor,
        sampler: Sampler,
        *,
        features: Tensor | None = None,
        unprojected: Tensor | None = None,
        pixels: PixelSource | None = None,
        pairs: bool = False,
    ) -> None:
        """Check that the arguments fit together; nothing is read or computed yet.

        Args:
            samples: N images; their own labels are ignored.
            labels: of each image: (N,) int64 indices into the bound classes; (N, V) int64, one for each view; or
                (N, C) float32 probabilities of the classes, the same for all views.
            sampler: which images and views make which batch.
            features: (N, V, d) from the feature bank.
            unprojected: (N, V, w) from the feature bank, before the projection to the joint space.
            pixels: of the same samples.
            pairs: whether batches also hold a second view of each image, for learners that compare two.

        Raises:
            ValueError: numbers that do not match, labels of another kind, an image without a label, or neither
                features nor pixels.
        """
        held = features if unprojected is None else unprojected
        if held is None and pixels is None:
            raise ValueError("batches need features, pixels, or both")
        if pairs and pixels is None:
            raise ValueError("a second view of each image needs pixels")
        counts = {"labels": len(labels)}
        counts |= {} if held is None else {"rows of features": len(held)}
        counts |= {} if pixels is None else {"images in the pixel source": len(pixels.samples)}
        for name, count in counts.items():
            if count != len(samples):
                raise ValueError(f"{len(samples)} images, but {count} {name}")
        self.labels = _checked_labels(labels)
        self._labels_of_views = self.labels.ndim == 2 and not self.labels.is_floating_point()
        self.samples, self.sampler, self.source, self.pairs = samples, sampler, pixels, pairs
        self.features, self.unprojected = features, unprojected

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch ``index`` (from 0), beginning with batch ``start``.

        Raises:
            UnreadableImage: an image cannot be used.
            IndexError: the sampler asks for a view that ``features`` does not hold.
        """
        batches = self.sampler.epoch(index)[start:]
        if self.source is None:
            yield from (self._batch(draws, None, None) for draws in batches)
            return
        drawn = [[*draws, *((image, -1 - view) for image, view in draws if self.pairs)] for draws in batches]
        ahead = self.AHEAD * max(map(len, drawn), default=0)
        with closing(map_in_threads(self.source.pixels, chain.from_iterable(drawn), ahead)) as pixels:
            for draws, with_partners in zip(batches, drawn, strict=True):
                images = torch.stack(list(islice(pixels, len(with_partners))))
                first, second = images[: len(draws)], images[len(draws) :]
                yield self._batch(draws, first, second if self.pairs else None)

    def support(self) -> Support:
        """Return the features of all images in all views, with their labels.

        Raises:
            ValueError: the batches hold pixels only.
        """
        features = self.features if self.unprojected is None else self.unprojected
        if features is None:
            raise ValueError("these batches hold no features: the learner must set uses_frozen_features")
        return Support(features, self.labels)

    def _batch(self, draws: list[Draw], images: Tensor | None, second: Tensor | None) -> Batch:
        where = torch.tensor([image for image, _ in draws])
        views = torch.tensor([view for _, view in draws])
        return Batch(
            labels=self.labels[where, views] if self._labels_of_views else self.labels[where],
            images=images,
            features=None if self.features is None else self.features[where, views],
            unprojected=None if self.unprojected is None else self.unprojected[where, views],
            second_images=second,
            names=tuple(self.samples[image].image.name for image, _ in draws),
        )


def _checked_labels(labels: Sequence[int] | Tensor) -> Tensor:
    """(N,) or (N, V) int64, or (N, C) float32 probabilities."""
    tensor = torch.as_tensor(labels, dtype=None if len(labels) else torch.int64)
    match tensor.dtype, tensor.ndim:
        case (torch.int64, 1 | 2):
            if unlabelled := int((tensor[:, None].flatten(1) < 0).any(1).sum()):
                raise ValueError(f"{unlabelled} of {len(tensor)} images have no label: give them pseudo-labels first")
        case (torch.float32, 2):
            wrong = ~((tensor >= 0).all(1) & ((tensor.sum(1) - 1).abs() < 1e-3))  # also where one is not a number
            if count := int(wrong.sum()):
                raise ValueError(
                    f"the soft labels of {count} of {len(tensor)} images are no probabilities (the first: image "
                    f"{int(wrong.int().argmax())}): each row must hold numbers from 0 to 1 that sum to 1"
                )
        case _:
            raise ValueError(
                f"labels are {str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}: give int64 "
                "class indices (N,) or (N, views), or float32 probabilities (N, classes)"
            )
    return tensor
