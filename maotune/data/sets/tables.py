"""Read tables of images: CSV, TSV or JSON lines, and CoOp's split file."""

import csv
import glob
import io
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from maotune.data.images.decode import ImageFile
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.labels import DRAWN, Splits, files_of, labelled_dataset, number_labels, split_by_shares, split_of
from maotune.data.sets.walk import FolderWalk, relative
from maotune.files import LARGEST_FILE, parse_json, read_text

log = logging.getLogger(__name__)

Labelled = tuple[Path, str]

PATH_COLUMNS = (
    *("path", "file_name", "filename", "file", "filepath", "file_path"),
    *("image", "images", "image_path", "image_name", "image_file", "image_filename", "img", "img_path", "img_name"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "classname", "class_label", "label_name", "category", "category_name"),
    *("choice", "target", "tag", "species", "breed"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
"""Names of columns (``_column``), as exporters write them; the first that is there counts."""
_LINES = (".jsonl", ".ndjson")
FRAME = "data frame"
"""Name of the data set of a data frame."""
SUFFIXES_OF_TABLES = (".csv", ".tsv", *_LINES)
"""Endings (lower case) of the files of tables."""


@dataclass
class TableRows:
    """The images of a table."""

    splits: dict[str, list[Labelled]] = field(default_factory=dict)
    unsplit: list[Labelled] = field(default_factory=list)
    """Images with a label whose row names no split."""
    unlabelled: list[Path] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """Line by image."""
    root: Path = Path()
    """The folder that the paths count from."""


def read_table(
    path: Path,
    root: Path | None = None,
    classes: Path | None = None,
    fractions: tuple[float, float] = DRAWN,
    *,
    as_words: bool = True,
) -> Dataset:
    """Read a table of images: CSV or TSV with a header, or JSON lines; columns ``path``, ``label``, maybe ``split``.

    Paths are relative to ``root``, by default the table's folder, or the folder in it that holds the first image.
    Splits are train, val, test, unlabelled; without that column they are the folders of these names that all paths
    begin with, and without these, too, each class is split by ``fractions``. An empty label means unlabelled. Labels
    that are all whole numbers are sorted as numbers.

    Raises:
        ValueError: a line that cannot be understood (named by its number), or none of the images exists.
    """
    return _dataset(path.stem, read_rows(path, root), classes, fractions, as_words)


def read_frame(
    frame: pd.DataFrame,
    root: Path | None = None,
    classes: Path | None = None,
    fractions: tuple[float, float] = DRAWN,
    *,
    as_words: bool = True,
) -> Dataset:
    """Read a data frame as ``read_table`` reads a file; paths are relative to ``root``, by default the working folder.

    Raises:
        ValueError: as there; rows are named by their index.
    """
    rows = _table_rows(FRAME, _frame_rows(frame), root or Path())
    return _dataset(FRAME, rows, classes, fractions, as_words)


def paths_of(table: Path | pd.DataFrame) -> list[Path]:
    """Return the paths of the images of a table or a data frame; it needs no labels.

    Raises:
        ValueError: no column of paths, a line without one, no line, or none of the images exists.
    """
    if isinstance(table, Path):
        rows = _table_rows(table, _rows(table, PATH_COLUMNS), None)
    else:
        rows = _table_rows(FRAME, _frame_rows(table), Path())
    return [Path(image) for image in rows.seen]


def labels_in(table: Path) -> list[tuple[str, str]]:
    """Return the paths and labels of a table as they are written, without rows that have no label."""
    pairs = ((_cell(row, PATH_COLUMNS), " ".join(_cell(row, LABEL_COLUMNS).split())) for _, row in _rows(table))
    return [(image, label) for image, label in pairs if image and label]


def _dataset(
    name: str, rows: TableRows, classes: Path | None, fractions: tuple[float, float], as_words: bool
) -> Dataset:
    splits, unlabelled = files_of(split_rows(rows, fractions)), map(ImageFile, rows.unlabelled)
    return number_labels(name, splits, unlabelled, classes, "label", as_words=as_words)


def read_rows(path: Path, root: Path | None = None) -> TableRows:
    """Read the rows of a table; see ``read_table``.

    Raises:
        ValueError: a line that cannot be understood (named by its number), no line, or none of the images exists.
    """
    return _table_rows(path, _rows(path), root)


def _frame_rows(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the index and columns, as text, of each row; what is missing is empty.

    Raises:
        ValueError: no column of paths.
    """
    frame = frame.rename(columns=lambda name: _column(str(name)))
    if not {*frame.columns} & {*PATH_COLUMNS}:
        raise ValueError(
            f"the data frame has the columns {', '.join(frame.columns)}: one must be path "
            f"({', '.join(PATH_COLUMNS[1:])} work too), and for labelled images one label"
        )
    for number, row in frame.iterrows():
        yield number, {name: "" if pd.isna(value) else str(value) for name, value in row.items()}


def _table_rows(path: Path | str, content: Iterable[tuple[int, dict[str, str]]], root: Path | None) -> TableRows:
    """Read rows; ``root`` is looked for where it is None, which goes with a file."""
    rows = TableRows()
    for number, row in content:
        where = f"{path}, line {number}"
        if not (relative := _cell(row, PATH_COLUMNS)):
            raise ValueError(f"{where}: no path; a line needs path and label, and may have split")
        if not rows.seen:
            rows.root = root if root is not None else _find_root(Path(path), relative)
        image = _locate(rows.root, relative)
        earlier = rows.seen.setdefault(os.path.normpath(image), number)
        if earlier != number:
            raise ValueError(f"{where}: {relative} stands in line {earlier} already")
        label, split = " ".join(_cell(row, LABEL_COLUMNS).split()), _cell(row, SPLIT_COLUMNS)
        kind = split_of(split) if split else None
        if split and kind is None:
            raise ValueError(f"{where}: split {split!r} is unknown; there are train, val, test, unlabelled")
        if not label or kind == "unlabelled":
            rows.unlabelled.append(image)
        elif kind:
            rows.splits.setdefault(kind, []).append((image, label))
        else:
            rows.unsplit.append((image, label))
    if not rows.seen:
        raise ValueError(f"{path} lists no images")
    if rows.unsplit and rows.splits:
        raise ValueError(
            f"{path}: {len(rows.unsplit)} labelled lines lack a split; fill in the whole column or leave it out"
        )
    _some_exist([Path(image) for image in rows.seen], path, rows.root)
    return rows


def split_rows(rows: TableRows, fractions: tuple[float, float]) -> dict[str, list[Labelled]]:
    """Return the labelled images by split: as the rows say, as their folders say, or by ``fractions``."""
    root = rows.root
    folders = [split_of(relative(image, root).partition("/")[0]) for image, _ in rows.unsplit]
    if not rows.unsplit:
        return rows.splits
    if not all(folder in ("train", "val", "test") for folder in folders):
        return split_by_shares(rows.unsplit, lambda path: relative(path, root), fractions)
    splits: dict[str, list[Labelled]] = {}
    for folder, item in zip(folders, rows.unsplit, strict=True):
        splits.setdefault(str(folder), []).append(item)
    return splits


def has_labels(path: Path) -> bool:
    """Whether a table names images and their labels."""
    try:
        return any(_cell(row, PATH_COLUMNS) and _cell(row, LABEL_COLUMNS) for _, row in _rows(path))
    except ValueError as error:
        log.info("no labels are taken from a table: %s", error)
        return False


def _cell(row: Mapping[str, str], columns: Sequence[str]) -> str:
    return next((row[column].strip() for column in columns if column in row), "")


def _find_root(table: Path, first: str) -> Path:
    """Return the folder of a table, or the one in it where the first image is.

    Raises:
        ValueError: it is in several folders, none of which has the table's name.
    """
    if _is_file(_locate(table.parent, first)):
        return table.parent
    places = [place for place in FolderWalk(table.parent).subfolders(table.parent) if _is_file(_locate(place, first))]
    if len(places) > 1:
        named = [place for place in places if place.name.casefold() == table.stem.casefold()]
        if len(named) != 1:
            raise ValueError(
                f"{table}: {first} is in {places[0]} and in {places[1]}: give the folder that its paths count from as "
                "root (--root)"
            )
        places = named
    return places[0] if places else table.parent


def _locate(root: Path, relative: str) -> Path:
    """Return the path of an image, also where the table has backslashes or another Unicode form than the file."""
    image = root / relative
    if ("\\" in relative or not relative.isascii()) and not _is_file(image):
        slashes = relative.replace("\\", "/")
        spellings = [slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))]
        image = next((root / spelling for spelling in spellings if _is_file(root / spelling)), root / slashes)
    return image


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
    content = parse_json(read_text(path, LARGEST_FILE), path)
    if not isinstance(content, dict) or "train" not in content or set(content) - {"train", "val", "test"}:
        raise ValueError(f'{path}: expected {{"train": [...], "val": [...], "test": [...]}}')
    splits: Splits = {}
    for split, items in content.items():
        for number, item in enumerate(items if isinstance(items, list) else [None]):
            match item:
                case [str() as relative, int() as label, str() as name] if relative:
                    splits.setdefault(split, []).append((Path(relative), label, name))
                case _:
                    raise ValueError(f"{path}, {split}[{number}]: expected [path, label, class name], got {item!r:.80}")
    if not splits:
        raise ValueError(f"{path} lists no images")
    images = [item[0] for items in splits.values() for item in items]
    root = root or _find_root(path, str(images[0]))
    located = {
        split: [(_locate(root, str(image)), label, name) for image, label, name in items]
        for split, items in splits.items()
    }
    _some_exist([image for items in located.values() for image, _, _ in items], path, root)
    return located


def _rows(path: Path, *needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and columns, as text, of a CSV, TSV or JSON lines file.

    ``needed``: columns, each by all of its names; by default one of labels and one of paths.
    """
    text = read_text(path, LARGEST_FILE)
    if path.suffix.lower() in _LINES:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, _json_row(line, f"{path}, line {number}")
        return
    try:
        yield from _cells(path, text, needed or (LABEL_COLUMNS, PATH_COLUMNS))
    except csv.Error as error:
        raise ValueError(f"{path} is no table that can be read: {error}") from error


def _cells(path: Path, text: str, needed: Sequence[Sequence[str]]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_separator(path, text, needed))
    reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
    for columns in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS):
        used = next((name for name in columns if name in reader.fieldnames), "")
        if reader.fieldnames.count(used) > 1:
            raise ValueError(f"{path}: there are two columns {used!r}: leave one")
    for row in reader:
        if None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: more cells than columns; a name with a comma needs quotes"
            )
        yield reader.line_num, {name: value or "" for name, value in row.items()}


def _separator(path: Path, text: str, needed: Sequence[Sequence[str]]) -> str:
    """Return the separator of a table: one that makes the ``needed`` columns of the first line.

    Raises:
        ValueError: there is none.
    """
    first = text.lstrip("\r\n").partition("\n")[0]
    missing = [columns[0] for columns in needed]
    for separator in ("\t", ",", ";", "|") if path.suffix.lower() == ".tsv" else (",", ";", "\t", "|"):
        names = {_column(name) for name in next(csv.reader([first], delimiter=separator), [])}
        lacking = [columns[0] for columns in needed if not names & {*columns}]
        if not lacking:
            return separator
        missing = min(missing, lacking, key=len)
    raise ValueError(
        f"{path}: no {' and '.join(sorted(missing))} in the first line, which names the columns: path,label[,split] "
        f"(for path also {', '.join(PATH_COLUMNS[1:7])}, ...; for label {', '.join(LABEL_COLUMNS[1:4])}, ...)"
    )


def _column(name: str) -> str:
    """Return the name of a column for comparison: ``File Name`` is ``file_name``."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _json_row(line: str, where: str) -> dict[str, str]:
    row = parse_json(line, where)
    if not isinstance(row, dict):
        raise ValueError(f'{where}: expected an object like {{"path": "a.jpg", "label": "cat"}}')
    used = {*PATH_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS}
    if several := [name for name, value in row.items() if _column(name) in used and isinstance(value, list | dict)]:
        raise ValueError(f"{where}: {several[0]} holds a list or an object; an image has one label, a text or a number")
    return {_column(str(name)): "" if value is None else str(value) for name, value in row.items()}


def _is_file(path: Path) -> bool:
    """Whether a file is there; a path that no file can have (too long, of no characters) is that of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _some_exist(images: Sequence[Path], table: Path | str, root: Path) -> None:
    """Refuse a table of which no image exists: its root is wrong. A few are reported later, when images are read."""
    if any(map(_is_file, images)):
        return
    first = images[0]
    elsewhere = next((path for path in _similar(first) if _is_file(path)), None)
    if elsewhere is not None:
        advice = f"{elsewhere} is there: write the names of the files with their endings"
    elif not first.is_relative_to(root) or re.match(r"[A-Za-z]:[/\\]", str(first.relative_to(root))):
        advice = f"the paths are those of another machine: cut what stands before the folders that lie in {root}"
    else:
        advice = "give the folder that their paths count from as root (--root)"
    raise ValueError(
        f"none of the {len(images)} images of {table} exists under {root} (the first would be {first}); {advice}"
    )


def _similar(path: Path) -> Iterator[Path]:
    try:
        yield from path.parent.glob(f"{glob.escape(path.name)}.*")
    except (OSError, ValueError):
        return
