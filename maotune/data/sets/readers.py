"""Read data sets from disk: class folders, a table, CoOp's split JSON, unlabelled images, also in tar shards.

No reader decodes an image or depends on the order in which a folder lists its files.
"""

import csv
import glob
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from maotune.data.images.decode import ImageFile
from maotune.data.images.formats import READABLE, SUFFIXES
from maotune.data.images.shards import SHARD, read_shard
from maotune.data.sets.dataset import Dataset, ImageRef, Sample

log = logging.getLogger(__name__)

CLASS_FILE = "classes.tsv"
"""Class names file in the top folder of a data set; it is used by default."""

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}
"""Our name of a split by its usual names (lower case)."""

T = TypeVar("T", Path, int)
L = TypeVar("L", str, int)

Labelled = tuple[Path, str]
Item = tuple[Path, int, str]
"""Image, label, class name."""
Splits = dict[str, list[Item]]
"""Images by split: train, val, test."""


def read_class_names(path: Path) -> dict[str, str]:
    """Read a class names file: per line ``name`` or ``folder_name<TAB>display name``; blank lines are skipped.

    Returns:
        Display name by folder name, in the order of the file, which is the order of the labels.

    Raises:
        ValueError: not UTF-8 text, a name twice, or no names. FileNotFoundError: no such file.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        folder, _, display = (part.strip() for part in line.partition("\t"))
        display = display or folder
        if not folder:
            raise ValueError(f"{path}, line {number}: a display name without a name before it")
        if folder in names:
            raise ValueError(f"{path}, line {number}: {folder!r} stands there twice")
        if display in names.values():
            raise ValueError(f"{path}, line {number}: {display!r} names two classes: no model can tell them apart")
        names[folder] = display
    if not names:
        raise ValueError(f"{path} holds no class names: write one a line")
    return names


def read_folder(folder: Path, classes: Path | None = None, fractions: tuple[float, float] = (0.5, 0.2)) -> Dataset:
    """Read an image folder: ``train/CLASS/...`` (with ``val``, ``test``, ``unlabelled``), ``CLASS/...``, or images.

    Without ``train`` or ``test`` folders, each class is split by ``fractions`` (train, val; the rest is test)
    in an order that depends on the file names alone. Images without a folder are unlabelled. Class folders may
    contain folders. ``classes`` (or ``classes.tsv`` in the folder) gives the order of the classes and display
    names; without it they are sorted.

    Raises:
        ValueError: no image, or folders and class names that do not match. NotADirectoryError: no such
        folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    if classes is None and (folder / CLASS_FILE).is_file():
        classes = folder / CLASS_FILE
    tops = folders_in(folder)
    splits: dict[str, list[Labelled]] = {}
    unlabelled: list[Path] = []
    if any(SPLIT_NAMES.get(top.name.lower()) in ("train", "test") for top in tops):
        for top in tops:
            split = SPLIT_NAMES.get(top.name.lower())
            if split is None:
                log.warning("%s is none of train, val, test, unlabelled: skipped", top)
            elif split == "unlabelled":
                unlabelled += images_in(top, folder)
            else:
                splits.setdefault(split, []).extend(_class_folders(folders_in(top), folder))
    elif tops:
        unlabelled_folders = [top for top in tops if SPLIT_NAMES.get(top.name.lower()) == "unlabelled"]
        unlabelled += [image for top in unlabelled_folders for image in images_in(top, folder)]
        labelled = _class_folders([top for top in tops if top not in unlabelled_folders], folder)
        splits = split_by_shares(labelled, lambda path: _relative(path, folder), fractions)
    else:
        unlabelled = images_in(folder, folder)
    if not unlabelled and not any(splits.values()):
        raise ValueError(f"{folder} holds no images ({READABLE}): expected train/CLASS/..., CLASS/... or images alone")
    return number_labels(folder.resolve().name, _files(splits), map(ImageFile, unlabelled), classes, "folder")


def read_unlabelled(source: Path) -> tuple[Sample, ...]:
    """List images without labels: in a folder and its subfolders, in a tar shard, or in files that match a pattern.

    First the files, sorted by path; then the shards, sorted too, each with its images by their paths in it. Tar shards
    (``shards.read_shard``) are read in place.

    Raises:
        ValueError: no image, or a shard that is compressed. NotADirectoryError: neither a folder nor a shard.
    """
    if source.is_dir():
        images, shards, others = _list_files(source, source)
        _log_skipped(others, source, source)
    elif glob.has_magic(str(source)) and not source.exists():
        matched = sorted(Path(path) for path in glob.glob(str(source), recursive=True))
        images = [path for path in matched if path.suffix.lower() in SUFFIXES]
        shards = [path for path in matched if path.suffix.lower() == SHARD]
    elif source.is_file() and source.suffix.lower() == SHARD:
        images, shards = [], [source]
    elif source.is_file() and (SHARD in source.suffixes or source.suffix.lower() == ".tgz"):
        raise ValueError(f"{source} is compressed; only a {SHARD} file can be read in place: unpack it to one")
    else:
        raise NotADirectoryError(f"{source} is neither a folder nor a {SHARD} file")
    references: list[ImageRef] = [ImageFile(path) for path in images]
    for shard in shards:
        references += read_shard(shard)
    if not references:
        raise ValueError(f"{source} holds no images ({READABLE}, also in {SHARD} files)")
    return tuple(Sample(image, -1) for image in references)


def read_table(
    path: Path, root: Path | None = None, classes: Path | None = None, fractions: tuple[float, float] = (0.5, 0.2)
) -> Dataset:
    """Read a table of images: CSV or TSV with a header, or JSON lines; columns ``path``, ``label``, maybe ``split``.

    Paths are relative to ``root``, by default the table's folder. Splits are train, val, test, unlabelled;
    without that column each class is split by ``fractions``. An empty label means unlabelled. Labels that are
    all whole numbers are sorted as numbers.

    Raises:
        ValueError: a line that cannot be understood (named by its number), or none of the images exists.
    """
    root = path.parent if root is None else root
    splits: dict[str, list[Labelled]] = {}
    unlabelled: list[Path] = []
    seen: dict[Path, int] = {}
    unsplit: list[Labelled] = []
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        if not (relative := row.get("path", "").strip()):
            raise ValueError(f"{where}: no path; a line needs path and label, and may have split")
        image = root / relative
        if image in seen:
            raise ValueError(f"{where}: {relative} stands in line {seen[image]} already")
        seen[image] = number
        label, split = row.get("label", "").strip(), row.get("split", "").strip().lower()
        if split and split not in SPLIT_NAMES:
            raise ValueError(f"{where}: split {split!r} is unknown; there are train, val, test, unlabelled")
        if not label or SPLIT_NAMES.get(split) == "unlabelled":
            unlabelled.append(image)
        elif split:
            splits.setdefault(SPLIT_NAMES[split], []).append((image, label))
        else:
            unsplit.append((image, label))
    if not seen:
        raise ValueError(f"{path} lists no images")
    if unsplit and splits:
        raise ValueError(
            f"{path}: {len(unsplit)} labelled lines lack a split; fill in the whole column or leave it out"
        )
    if unsplit:
        base = root
        splits = split_by_shares(unsplit, lambda path: _relative(path, base), fractions)
    _some_exist(list(seen), path, root)
    return number_labels(path.stem, _files(splits), map(ImageFile, unlabelled), classes, "label")


def read_split_json(path: Path, root: Path | None = None) -> Dataset:
    """Read CoOp's split file: ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``.

    Paths are relative to ``root``; by default to the folder of the file, or the folder in it that holds the first
    image. The order of the lists is kept: the few-shot draw depends on it. Labels are numbered from 0 in their order.

    Raises:
        ValueError: not such a file, a label with two names, or none of the images exists.
    """
    return labelled_dataset(path.stem.removeprefix("split_zhou_"), split_items(path, root))


def split_items(path: Path, root: Path | None = None) -> Splits:
    """Read the images of CoOp's split file; see ``read_split_json``."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or "train" not in content or set(content) - {"train", "val", "test"}:
        raise ValueError(f'{path}: expected {{"train": [...], "val": [...], "test": [...]}}')
    splits: Splits = {}
    for split, items in content.items():
        for number, item in enumerate(items if isinstance(items, list) else [None]):
            match item:
                case [str() as relative, int() as label, str() as name]:
                    splits.setdefault(split, []).append((Path(relative), label, name))
                case _:
                    raise ValueError(f"{path}, {split}[{number}]: expected [path, label, class name], got {item!r:.80}")
    if not splits:
        raise ValueError(f"{path} lists no images")
    images = [item[0] for items in splits.values() for item in items]
    if root is None:
        places = [path.parent, *folders_in(path.parent)]
        root = next((place for place in places if (place / images[0]).is_file()), path.parent)
    _some_exist([root / image for image in images], path, root)
    return {split: [(root / image, label, name) for image, label, name in items] for split, items in splits.items()}


def labelled_dataset(name: str, splits: Splits) -> Dataset:
    """Build a data set from images with labels and class names. Labels are numbered from 0 in their order.

    Raises:
        ValueError: no images, or a label with two names.
    """
    names: dict[int, str] = {}
    for items in splits.values():
        for image, label, class_name in items:
            if names.setdefault(label, class_name) != class_name:
                raise ValueError(f"{name}: label {label} is {class_name!r} at {image}, but {names[label]!r} before")
    if not names:
        raise ValueError(f"{name} has no images")
    images = {split: [(ImageFile(image), label) for image, label, _ in items] for split, items in splits.items()}
    return _dataset(name, {label: names[label] for label in sorted(names)}, images)


def number_labels(
    name: str,
    splits: Mapping[str, Sequence[tuple[ImageRef, str]]],
    unlabelled: Iterable[ImageRef],
    classes: Path | None,
    noun: str,
    order: Sequence[str] | None = None,
) -> Dataset:
    """Build a data set from images with names for labels.

    Args:
        name: of the data set.
        splits: images and labels by split.
        unlabelled: more images.
        classes: class names file: order of the labels, display names.
        noun: what a label is called in errors.
        order: of the labels without such a file; by default sorted, whole numbers as numbers.

    Raises:
        ValueError: the class names file does not fit.
    """
    labels = {label for items in splits.values() for _, label in items}
    if classes is not None:
        names = read_class_names(classes)
        if labels and (strange := sorted(labels - set(names))):
            raise ValueError(
                f"{classes} does not list the {noun} {strange[0]!r}{_and_more(strange)}; "
                f"write one line a class: {noun} name, then a tab and a display name if you like"
            )
        if labels and (empty := sorted(set(names) - labels)):  # to be recognised by their names alone
            log.info("%s has no labelled image of %r%s", name, empty[0], _and_more(empty))
    elif order is not None:
        names = {label: label for label in order}
    else:
        numbers = all(label.isdecimal() for label in labels)
        names = {label: label for label in sorted(labels, key=lambda label: (int(label) if numbers else 0, label))}
    return replace(_dataset(name, names, splits), unlabelled=tuple(Sample(image, -1) for image in unlabelled))


def _dataset(name: str, classes: Mapping[L, str], splits: Mapping[str, Sequence[tuple[ImageRef, L]]]) -> Dataset:
    """Number the labels in the order of ``classes``, which holds display names by label."""
    position = {label: index for index, label in enumerate(classes)}
    train, val, test = (
        tuple(Sample(image, position[label]) for image, label in splits.get(split, ()))
        for split in ("train", "val", "test")
    )
    return Dataset(name, tuple(classes.values()), train, val, test)


def _files(splits: Mapping[str, Sequence[Labelled]]) -> dict[str, list[tuple[ImageRef, str]]]:
    return {split: [(ImageFile(path), label) for path, label in items] for split, items in splits.items()}


def split_by_shares(
    items: Sequence[tuple[T, str]], name_of: Callable[[T], str], fractions: tuple[float, float]
) -> dict[str, list[tuple[T, str]]]:
    """Split each class. The split of an image depends on its name alone; each class gets a training image.

    The default of the callers, half, a fifth and the rest, is CoOp's.

    Raises:
        ValueError: ``fractions`` (train, val) cannot be.
    """
    train_share, val_share = fractions
    if not (0 < train_share <= 1 and 0 <= val_share <= 1 and train_share + val_share <= 1 + 1e-9):
        raise ValueError(
            f"fractions {fractions}: give the shares of train and val; train above 0, both together 1 at most"
        )
    by_label: dict[str, list[tuple[T, str]]] = {}
    for item in items:
        by_label.setdefault(item[1], []).append(item)
    splits: dict[str, list[tuple[T, str]]] = {"train": [], "val": [], "test": []}
    for label in sorted(by_label):
        # Hashes of names, not the names: cameras number their files, and one half of an outing is no sample of it.
        drawn = sorted(by_label[label], key=lambda item: hashlib.sha256(name_of(item[0]).encode()).digest())
        train = max(1, round(len(drawn) * train_share))
        val = train + round(len(drawn) * val_share)
        for split, part in (("train", drawn[:train]), ("val", drawn[train:val]), ("test", drawn[val:])):
            splits[split] += sorted(part)
    log.info("no splits given: %s", ", ".join(f"{len(part)} {split}" for split, part in splits.items()))
    return splits


def _class_folders(folders: Sequence[Path], root: Path) -> list[Labelled]:
    return [(image, folder.name) for folder in folders for image in images_in(folder, root)]


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, sorted by name, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))


def images_in(folder: Path, root: Path) -> list[Path]:
    """List the images below ``folder``, sorted by path; other files are named in the log."""
    images, shards, others = _list_files(folder, root)
    _log_skipped([*others, *shards], folder, root)
    return images


def _list_files(folder: Path, root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """List the images, tar shards and other files below ``folder``, each sorted by path from ``root``."""
    images: list[Path] = []
    shards: list[Path] = []
    others: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in files:
            if not _hidden(name):
                suffix = os.path.splitext(name)[1].lower()
                kind = images if suffix in SUFFIXES else shards if suffix == SHARD else others
                kind.append(Path(parent, name))
    for paths in (images, shards, others):
        paths.sort(key=lambda path: _relative(path, root))
    return images, shards, others


def _log_skipped(others: Iterable[Path], folder: Path, root: Path) -> None:
    if others := [other for other in others if other.name not in ("Thumbs.db", "desktop.ini", CLASS_FILE)]:
        shown = ", ".join(_relative(other, root) for other in sorted(others)[:5]) + " ..." * (len(others) > 5)
        log.warning("%s: skipped %d files that are no images by their names: %s", folder, len(others), shown)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and columns, as text, of a CSV, TSV or JSON lines file."""
    lines = read_text(path).splitlines()
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _json_row(line, f"{path}, line {number}")
        return
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header = [name.strip().lower() for name in reader.fieldnames or ()]
    if missing := {"path", "label"} - set(header):
        raise ValueError(
            f"{path}: no {' and '.join(sorted(missing))} in the first line; it names the columns path,label[,split]"
        )
    reader.fieldnames = header
    for row in reader:
        if None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: more cells than columns; a name with a comma needs quotes"
            )
        yield reader.line_num, {name: value or "" for name, value in row.items()}


def _json_row(line: str, where: str) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f'{where}: expected an object like {{"path": "a.jpg", "label": "cat"}}')
    return {str(name).lower(): "" if value is None else str(value) for name, value in row.items()}


def _some_exist(images: Sequence[Path], table: Path, root: Path) -> None:
    """Refuse a wrong root; a few missing files are reported later, when images are read."""
    if not any(image.is_file() for image in images):
        raise ValueError(
            f"none of the {len(images)} images of {table} exists under {root} (the first would be {images[0]}); "
            "give the folder that their paths count from as root"
        )


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        ValueError: it is not UTF-8. FileNotFoundError: no such file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
