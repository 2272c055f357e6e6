"""Pictures of a data set for a page, each read when it is shown."""

import functools
import logging
from collections.abc import Iterable, Mapping

from maotune.data.images.thumbnail import thumbnail_uri
from maotune.data.sets.catalog import load_dataset
from maotune.data.sets.dataset import ImageRef, UnreadableImage
from maotune.recipe import Recipe

log = logging.getLogger(__name__)


class DatasetPictures:
    """The images of a recipe's data set by name; the data set is read when the first one is shown."""

    def __init__(self, recipe: Recipe) -> None:
        self._data = recipe.data

    def show(self, names: Iterable[str]) -> str:
        """Return the first of the images that can be read as a ``data:`` URI; empty without one."""
        for name in names:
            try:
                return thumbnail_uri(self._images[name].read())
            except (KeyError, UnreadableImage):
                continue
        return ""

    @functools.cached_property
    def _images(self) -> Mapping[str, ImageRef]:
        """None where the data set is not here."""
        data = self._data
        try:
            dataset = load_dataset(data.source, data.root, data.classes, as_words=data.as_words)
        except (ValueError, OSError) as error:
            log.warning("no pictures of %s: %s", data.source, error)
            return {}
        samples = (*dataset.test, *dataset.val, *dataset.train, *dataset.unlabelled)
        return {sample.image.name: sample.image for sample in reversed(samples)}
