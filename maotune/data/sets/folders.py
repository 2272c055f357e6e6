"""Read folders of images: class folders, with or without splits, or images alone, also in tar shards.

No image is decoded, and nothing depends on the order in which a folder lists its files. A layout that can be read in
two ways is refused; what is left out is in the data set's ``skipped``.
"""

import glob
import itertools
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maotune.data.images.decode import ImageFile
from maotune.data.images.formats import READABLE
from maotune.data.images.shards import SHARD, read_shard
from maotune.data.sets.class_names import normalised, read_class_names
from maotune.data.sets.dataset import Dataset, ImageRef, Sample, list_skipped
from maotune.data.sets.labels import files_of, number_labels, says_nothing, split_by_shares, split_of
from maotune.data.sets.tables import (
    SUFFIXES_OF_TABLES,
    Labelled,
    TableRows,
    has_labels,
    read_rows,
    split_rows,
)
from maotune.data.sets.walk import CLASS_FILE, FolderWalk, relative

log = logging.getLogger(__name__)

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Tables of file names and labels beside images, as Hugging Face names them; they count beside class folders, too."""
_LABELLED = ("train", "val", "test")
_UNREADABLE = ("format not supported", "video", "archive", "empty", "no access")
"""Kinds of files that might have been the pictures of a class."""


@dataclass
class _Content:
    """Images of a folder."""

    splits: dict[str, list[Labelled]] = field(default_factory=dict)
    unlabelled: list[Path] = field(default_factory=list)


def read_folder(
    folder: Path,
    classes: Path | None = None,
    fractions: tuple[float, float] = (0.5, 0.2),
    *,
    as_words: bool = True,
) -> Dataset:
    """Read an image folder: ``train/CLASS/...`` (with ``val``, ``test``, ``unlabelled``), ``CLASS/...``, or images.

    Without ``train`` or ``test`` folders, each class is split by ``fractions`` (train, val; the rest is test)
    in an order that depends on the file names alone. Images without a folder are unlabelled, unless a table
    (``TABLES``) gives their labels. Class folders may contain folders. ``classes`` (or ``classes.tsv`` in the folder)
    gives the order of the classes and display names; without it they are sorted, and their names are written as words
    if ``as_words``.

    Raises:
        ValueError: no image; folders and class names that do not match; a layout that can be read in two ways; a class
        without a readable picture. NotADirectoryError: no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    walk = FolderWalk(folder)
    reader = _Reader(walk, fractions)
    reader.list_classes(classes or folder / CLASS_FILE, given=classes is not None)
    top = reader.unwrap(folder)
    if classes is None and not reader.listed:
        reader.list_classes(top / CLASS_FILE)
    reader.note_wrappers(folder, top)
    content = reader.read(top)
    for shard in walk.shards:
        walk.skip(shard, "archive", "a tar file in a folder of labelled images: unpack it, or give it as --unlabelled")
    if not content.unlabelled and not any(content.splits.values()):
        left_out = f"; left out: {list_skipped(walk.skipped)}" if walk.skipped else ""
        raise ValueError(
            f"{folder} holds no images ({READABLE}): expected train/CLASS/..., CLASS/... or images alone{left_out}"
        )
    dataset = number_labels(
        folder.resolve().name,
        files_of(content.splits),
        map(ImageFile, content.unlabelled),
        reader.classes,
        "folder",
        as_words=as_words,
    )
    return replace(dataset, skipped=tuple(walk.skipped))


class _Reader:
    """Finds out what the folders of a data set mean."""

    def __init__(self, walk: FolderWalk, fractions: tuple[float, float]) -> None:
        self.walk, self.fractions = walk, fractions
        self.classes: Path | None = None
        """Class names file."""
        self.listed: Collection[str] = ()
        """The names in it."""

    def list_classes(self, path: Path, given: bool = False) -> None:
        """Use a class names file, if it is there or ``given``."""
        if given or path.is_file():
            self.classes, self.listed = path, read_class_names(path)
            self.walk.ignore(path)

    def read(self, top: Path) -> _Content:
        """Read the folder in the first layout that fits: a table, splits, class folders, images."""
        tops = self.walk.with_pictures(top)
        siblings = [folder.name for folder in tops]
        splits = {folder: None if self._is_class(folder) else split_of(folder.name, siblings) for folder in tops}
        labelled = {folder: split for folder, split in splits.items() if split in _LABELLED}
        if tables := self._tables(top, labelled):
            return self._by_table(top, tables)
        self._refuse_nested(splits)
        self.walk.note_files(top)
        certain = any(split != "val" and self.walk.with_pictures(folder) for folder, split in labelled.items())
        if labelled and (certain or None not in splits.values()):
            content, may_be_classes = self._by_splits(splits), False
        elif any(split != "unlabelled" for split in splits.values()):
            content, may_be_classes = self._by_classes(top, splits), True
        else:
            unlabelled = [*self.walk.loose(top), *self._pictures(tops)]
            self._leave_out_empty(top, tops, may_be_classes=False)
            return _Content(unlabelled=sorted(unlabelled, key=Path.as_posix))
        content.unlabelled = self._pictures([folder for folder, split in splits.items() if split == "unlabelled"])
        self._leave_out_loose(top, "class folders hold the labelled images: put each into the folder of its class")
        self._leave_out_empty(top, tops, may_be_classes=may_be_classes)
        return content

    def unwrap(self, folder: Path) -> Path:
        """Return the folder that holds splits or classes: unpacked archives often put all into one folder more."""
        while not self._table_in(folder):
            tops = self.walk.with_pictures(folder)
            if len(tops) != 1 or self._is_class(tops[0]):
                break
            (inner,) = tops
            split, count = split_of(inner.name), len(self.walk.with_pictures(inner))
            twice = split is not None and split == split_of(folder.name)  # train/train
            flat = self.walk.has_loose(inner) or not count
            no_class = twice or (split is None and (not flat or says_nothing(inner.name)))
            if not no_class or (self.walk.has_loose(folder) and (flat or count < 2)):
                break
            folder = inner
        return folder

    def note_wrappers(self, folder: Path, top: Path) -> None:
        """Note what else lies in the folders that ``unwrap`` went through."""
        if folder != top:
            log.info("reading %s, the only folder with pictures in %s", top, folder)
        while folder != top:
            (inner,) = self.walk.with_pictures(folder)
            self._leave_out_loose(folder, f"{inner.name} holds the labelled images")
            self._leave_out_empty(folder, [inner], may_be_classes=False)
            self.walk.note_files(folder)
            folder = inner

    def _by_splits(self, splits: dict[Path, str | None]) -> _Content:
        found: dict[str, list[Path]] = {}
        for folder, split in splits.items():
            if split is None:
                count = self.walk.count(folder)
                reason = f"none of train, val, test and unlabelled, so its pictures ({count}) are not used"
                self.walk.skip(folder, "in no split", reason, count)
            elif split in _LABELLED:
                inner = self.unwrap(folder)
                self.note_wrappers(folder, inner)
                classes = self.walk.with_pictures(inner)
                self.walk.note_files(inner)
                self._leave_out_loose(inner, _loose_advice(folder, self.walk.loose(inner)))
                self._leave_out_empty(inner, classes, may_be_classes=True)
                self._refuse_ambiguous(inner, classes)
                found.setdefault(split, []).extend(classes)
        self._refuse_too_deep([folder for classes in found.values() for folder in classes])
        images = self.walk.pictures_by_folder([folder for classes in found.values() for folder in classes])
        content = _Content({split: _with_names(classes, images) for split, classes in found.items()})
        if not any(content.splits.values()):
            flat = " and ".join(str(folder) for folder, split in splits.items() if split in _LABELLED)
            raise ValueError(
                f"the pictures in {flat} have no labels: put each into the folder of its class (train/CLASS/...), or "
                "give a table with the columns path and label (--data TABLE.csv)"
            )
        return content

    def _by_classes(self, top: Path, splits: dict[Path, str | None]) -> _Content:
        classes = [folder for folder, split in splits.items() if split != "unlabelled"]
        self._refuse_ambiguous(top, classes)
        labelled = _with_names(classes, self.walk.pictures_by_folder(classes))
        return _Content(split_by_shares(labelled, lambda path: relative(path, top), self.fractions))

    def _by_table(self, top: Path, tables: dict[Path, str | None]) -> _Content:
        content = _Content()
        listed: set[str] = set()
        for table, split in tables.items():
            rows = read_rows(table)
            listed.update(rows.seen)
            content.unlabelled += rows.unlabelled
            if split is not None and not rows.splits:
                rows = TableRows(splits={split: rows.unsplit})
            for name, items in split_rows(rows, self.fractions).items():
                content.splits.setdefault(name, []).extend(items)
        self.walk.ignore(*tables)
        others = [path for path in self.walk.pictures(top) if os.path.normpath(path) not in listed]
        if others:
            reason = (
                f"{len(others)} pictures are not in {', '.join(table.name for table in tables)}, such as {others[0]}"
            )
            self.walk.skip(top, "not in the table", reason, len(others))
        return content

    def _tables(self, top: Path, labelled: dict[Path, str]) -> dict[Path, str | None]:
        """Return the tables that give the labels, each with the split that all of its rows belong to, if any."""
        if (table := self._table_in(top)) is not None:
            return {table: None}
        tables = {self._table_in(folder): split for folder, split in labelled.items() if self.walk.has_loose(folder)}
        return {table: split for table, split in tables.items() if table is not None}

    def _table_in(self, folder: Path) -> Path | None:
        """Return the table of labels in a folder: one of ``TABLES``, or its only table, if it has no class folders."""
        for name in TABLES:
            if (folder / name).is_file() and has_labels(folder / name):
                return folder / name
        tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES_OF_TABLES]
        flat = self.walk.has_loose(folder) + len(self.walk.with_pictures(folder)) == 1
        return tables[0] if flat and len(tables) == 1 and has_labels(tables[0]) else None

    def _refuse_ambiguous(self, top: Path, classes: Sequence[Path]) -> None:
        """Refuse folders that may be the classes, or splits and collections of the classes that are in them."""
        real = {folder.resolve(): folder for folder in sorted(classes, key=Path.is_symlink, reverse=True)}
        inner = {folder: self._names_in(folder) for folder in sorted(real.values()) if not self._is_class(folder)}
        for folder, names in inner.items():
            if len({split_of(name) for name in names} - {None}) > 1:
                example = f"train/{folder.name}/, test/{folder.name}/"
                raise ValueError(f"{folder} is a class that holds its splits: put the splits outside ({example})")
        nested = [folder for folder, names in inner.items() if len(names) > 1]
        # A stray picture or two does not make a class of a folder of folders.
        bare = [folder for folder, names in inner.items() if len(self.walk.loose(folder)) < len(names)]
        for first, second in itertools.combinations(inner, 2):
            shared = sorted(inner[first] & inner[second])
            sizes = sorted((len(inner[first]), len(inner[second])))
            overlap = len(bare) == len(inner) and sizes[1] > 1 and _has_words(shared)  # not years, takes
            if overlap or (len(shared) > 1 and 2 * len(shared) >= sizes[0]):
                raise ValueError(_two_readings(top, first, second, shared))
        if doubtful := [folder for folder in nested if folder in bare]:
            some = ", ".join(f"{doubtful[0].name}/{name}" for name in sorted(inner[doubtful[0]])[:2])
            log.warning("class folders in %s hold folders (%s, ...), which are not read as classes", top, some)

    def _refuse_nested(self, tops: Mapping[Path, str | None]) -> None:
        """Refuse a folder of class folders that have the names of its neighbours: a split, or a copy, of these."""
        classes = {_key(folder) for folder, split in tops.items() if split is None}
        for folder, split in tops.items():
            others = classes - {_key(folder)} if split != "unlabelled" else set()
            shared = sorted(others & self._names_in(folder))
            if len(shared) > 1 or (split != "train" and _has_words(shared)):
                raise ValueError(
                    f"{folder} holds folders of the same names ({_and_so_on(shared)}) as its neighbours. If these are "
                    f"the training images, put them into {folder.parent / 'train'}; if {folder.name} is a copy, "
                    "take it out"
                )

    def _refuse_too_deep(self, classes: Sequence[Path]) -> None:
        """Refuse a folder among the class folders of splits that holds class folders itself."""
        names = {_key(folder) for folder in classes}
        for folder in classes:
            shared = sorted((names - {_key(folder)}) & self._names_in(folder)) if not self._is_class(folder) else []
            if _has_words(shared) or len(shared) > 1:
                raise ValueError(
                    f"{folder} holds folders of the names of classes ({_and_so_on(shared)}): they lie one folder too "
                    f"deep. Move them into {folder.parent}; if {folder.name} is a class, list the classes in "
                    f"{CLASS_FILE}, one a line"
                )

    def _names_in(self, folder: Path) -> set[str]:
        """Return the names of the folders with pictures in a folder, for comparison."""
        return {_key(path) for path in self.walk.with_pictures(self.unwrap(folder))}

    def _pictures(self, folders: Iterable[Path]) -> list[Path]:
        return [path for folder in folders for path in self.walk.pictures(folder)]

    def _leave_out_loose(self, folder: Path, advice: str) -> None:
        if loose := self.walk.loose(folder):
            what = f"{len(loose)} picture{'s lie' if len(loose) > 1 else ' lies'} in it and in no class folder"
            reason = f"{what}, such as {loose[0].name}; {advice}"
            self.walk.skip(folder, "loose", reason, len(loose))

    def _leave_out_empty(self, top: Path, used: Collection[Path], *, may_be_classes: bool) -> None:
        """Note folders without a picture; refuse one that may be a class and whose pictures cannot be read."""
        for folder in self.walk.subfolders(top):
            if folder in used:
                continue
            before = len(self.walk.skipped)
            self.walk.pictures(folder)
            inside = self.walk.skipped[before:]
            is_class = may_be_classes or split_of(folder.name) is not None
            if not is_class and inside:  # annotations, say
                self.walk.skip(folder, "document", "holds no picture", count=0)
                continue
            unreadable = [item for item in inside if item.kind in _UNREADABLE]
            if unreadable:
                raise ValueError(
                    f"{folder} holds no picture that can be read: {list_skipped(unreadable, most=1)}\n"
                    "A class would vanish: do what helps there, or take its folder out"
                )
            self.walk.skip(folder, "empty folder", "holds no picture")

    def _is_class(self, folder: Path) -> bool:
        """Whether the class names file lists it."""
        return normalised(folder.name) in self.listed


def _with_names(classes: Sequence[Path], images: Mapping[Path, Sequence[Path]]) -> list[Labelled]:
    return [(image, folder.name) for folder in classes for image in images[folder]]


def _key(folder: Path) -> str:
    """Return the name of a folder for comparison."""
    return normalised(folder.name).casefold()


def _has_words(names: Sequence[str]) -> bool:
    return any(map(str.isalpha, "".join(names)))


def _loose_advice(folder: Path, loose: Sequence[Path]) -> str:
    if loose and loose[0].name.startswith("ILSVRC2012_val_"):
        return "`maotune data prepare imagenet` sorts ImageNet's validation images into class folders"
    return f"put each into {folder.name}/CLASS/, or use them without labels (--unlabelled {folder})"


def _and_so_on(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _two_readings(top: Path, first: Path, second: Path, shared: Sequence[str]) -> str:
    a, b = first.name, second.name
    return (
        f"{first} and {second} hold folders of the same names ({_and_so_on(shared)}): it cannot be told which are the "
        f"classes. If {a} and {b} are splits, name them train, val or test; if they are collections of one vocabulary, "
        f"give one of them ({first}); if they are the classes, list them in {top / CLASS_FILE}, one a line"
    )


def read_unlabelled(source: Path) -> Dataset:
    """Read images without labels: in a folder and its subfolders, in a tar shard, or in files that match a pattern.

    First the files, sorted by path; then the shards, sorted too, each with its images by their paths in it. Tar shards
    (``shards.read_shard``) are read in place.

    Raises:
        ValueError: no image, or a shard that is compressed. NotADirectoryError: neither a folder nor a shard.
    """
    walk = FolderWalk(source)
    if source.is_dir():
        images = walk.pictures(source)
        shards = sorted(walk.shards, key=Path.as_posix)
    elif glob.has_magic(str(source)) and not source.exists():
        matched = sorted(Path(path) for path in glob.glob(str(source), recursive=True))
        files = [path for path in matched if not path.is_dir()]
        above = {folder for path in files for folder in path.parents}
        images = [path for path in files if walk.is_picture(path)]
        for folder in (path for path in matched if path.is_dir() and path not in above):
            images += walk.pictures(folder)
        shards = sorted(walk.shards, key=Path.as_posix)
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
        left_out = f"; left out: {list_skipped(walk.skipped)}" if walk.skipped else ""
        raise ValueError(f"{source} holds no images ({READABLE}, also in {SHARD} files){left_out}")
    unlabelled = tuple(Sample(image, -1) for image in references)
    return Dataset(source.name, (), unlabelled=unlabelled, skipped=tuple(walk.skipped))
