"""Labels that a person has given to images of the pool, or has corrected: a table that is laid over a data set."""

import difflib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from maotune.data.images.decode import ImageFile
from maotune.data.sets.class_names import read_class_names
from maotune.data.sets.dataset import Dataset, Sample
from maotune.data.sets.tables import labels_in

log = logging.getLogger(__name__)

NONE = "none of these"
"""Label of an image that shows no class: it leaves the pool."""


def with_labels(dataset: Dataset, table: Path, classes: Path | None = None) -> Dataset:
    """Return a data set whose training images are joined by those of a table, with the labels there.

    Labels are names of classes, or of their folders: also as the class names file ``classes`` has them.

    An image of the pool leaves it; one that was a training image has the label of the table only. Rows without a label
    are passed over. Paths count from the working folder, as those of the pool, else from the folder of the table.

    Raises:
        ValueError: a label is no class of the data set, or the file of an image is not there.
    """
    given = {_key(_located(Path(image), table)): label for image, label in labels_in(table)}
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    folders = read_class_names(classes).items() if classes is not None else dataset.renamed
    numbers |= {folder: numbers[name] for folder, name in folders}
    if unknown := [label for label in given.values() if label not in (*numbers, NONE)]:
        near = difflib.get_close_matches(unknown[0], [*numbers], n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{table}: {unknown[0]!r} is no class of {dataset.name}{hint}, nor {NONE!r}")

    def others(samples: Sequence[Sample]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if _key(Path(sample.image.name)) not in given)

    labelled = {path: label for path, label in given.items() if label in numbers}
    added = tuple(Sample(ImageFile(Path(path)), numbers[label]) for path, label in labelled.items())
    kept = others(dataset.train), others(dataset.unlabelled)
    log.info(
        "%s: %d labelled images; %d leave the pool, %d training images have another label or none",
        *(table, len(added), len(dataset.unlabelled) - len(kept[1]), len(dataset.train) - len(kept[0])),
    )
    return replace(dataset, train=(*kept[0], *added), unlabelled=kept[1])


def _located(image: Path, table: Path) -> Path:
    places = [image, table.parent / image]
    if there := [place for place in places if place.is_file()]:
        return there[0]
    raise ValueError(f"{table}: there is no image {image}, seen from {Path.cwd()} or from the table's folder")


def _key(path: Path) -> str:
    return os.path.abspath(path)
