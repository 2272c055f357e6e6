"""Load data sets by name or path."""

import difflib
import logging
import random
from pathlib import Path

from maotune.data.sets import coop, hub, icons
from maotune.data.sets.class_names import remarks_on_names
from maotune.data.sets.dataset import Dataset, list_skipped
from maotune.data.sets.folders import read_folder, read_unlabelled
from maotune.data.sets.labels import DRAWN
from maotune.data.sets.named import named_sets
from maotune.data.sets.tables import SUFFIXES_OF_TABLES, read_split_json, read_table

log = logging.getLogger(__name__)

_FILES = "a .csv, .tsv or .jsonl file (path,label[,split]), a .json file (CoOp's split), or hub:PATH_OR_ID"


def names() -> tuple[str, ...]:
    """Return the names of data sets: those that are shipped, then those in CoOp's layout."""
    return (*icons.SHIPPED, *named_sets())


def load_unlabelled(source: str | Path, *, list_left_out: bool = True) -> Dataset:
    """Load images without labels: a folder, tar shards (a file, a folder, a pattern), or a data set of ``hub.FORM``.

    Raises:
        ValueError: no image. NotADirectoryError: no such folder or shard.
    """
    if str(source).startswith(hub.PREFIX):
        return Dataset(str(source), (), unlabelled=hub.read_hub_unlabelled(str(source)))
    pool = read_unlabelled(Path(source).expanduser())
    log.info("%s: %d images without labels", source, len(pool.unlabelled))
    if list_left_out and pool.skipped:
        log.warning("%s: left out: %s", source, list_skipped(pool.skipped))
    return pool


def load_dataset(
    source: str | Path,
    root: Path | None = None,
    classes: Path | None = None,
    fractions: tuple[float, float] = DRAWN,
    stream: random.Random | None = None,
    *,
    as_words: bool = True,
    announce: bool = True,
) -> Dataset:
    """Load a data set by name (``names()``), or from a folder, a table, CoOp's split file, or the hub.

    Args:
        source: name or path, or ``hub.FORM``.
        root: where the images are. A name of ``named_sets()`` needs the folder of all data sets; for a table or split
            file it is the folder that paths count from, if that is not the file's own.
        classes: class names file: order and display names of the classes (``read_class_names``).
        fractions: shares of train and val where a folder or table has no splits; the rest is test.
        stream: draws the split of a data set in CoOp's layout that has no split file (``coop.load``).
        as_words: write names of folders and labels as words (``class_names.names_as_words``), where there is no
            class names file.
        announce: log the size of one's own data, what was left out, and what to know about the class names.

    Raises:
        ValueError: no such data set (with the nearest names), or it cannot be understood.
    """
    name = str(source)
    if not name.strip():
        raise ValueError("the name of the data set is empty (is a shell variable unset?): give a name or a path")
    if name in names():
        if classes is not None:
            raise ValueError(f"{name} has class names of its own; a class names file goes with your own images")
        if name in icons.SHIPPED:
            return icons.load(name)
        if root is None:
            raise ValueError(f"{name} is not shipped: give the folder that holds {named_sets()[name].folder} as root")
        return coop.load(name, root, stream)
    dataset = _load_own(source, root, classes, fractions, as_words)
    if announce:
        log.info("%s: %s", dataset.name, dataset.summary())
        if dataset.skipped:
            log.warning("%s: left out: %s", dataset.name, list_skipped(dataset.skipped))
        for remark in remarks_on_names(dataset.classes, dataset.renamed):
            log.warning("%s: %s", dataset.name, remark)
    return dataset


def _load_own(
    source: str | Path, root: Path | None, classes: Path | None, fractions: tuple[float, float], as_words: bool
) -> Dataset:
    name = str(source)
    if name.startswith(hub.PREFIX):
        return hub.read_hub(name, classes, fractions, as_words=as_words)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, classes, fractions, as_words=as_words)
    if path.is_file():
        match path.suffix.lower():
            case suffix if suffix in SUFFIXES_OF_TABLES:
                return read_table(path, root, classes, fractions, as_words=as_words)
            case ".json" if classes is None:
                return read_split_json(path, root)
            case ".json":
                raise ValueError(f"{path} has class names of its own; a class names file goes with folders and tables")
        raise ValueError(f"{path} is no data set: give a folder, {_FILES}")
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(
        f"{name!r} is neither a data set nor a path; {hint}give one of {', '.join(names())}, a folder, {_FILES}"
    )
