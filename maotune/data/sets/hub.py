"""Read data sets through Hugging Face ``datasets``: from the hub, or local parquet files and image folders.

Pictures are decoded on demand: a row holds the bytes of its file, or the path to it.
"""

import hashlib
import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from maotune.data.images.decode import ImageFile, upright_rgb
from maotune.data.sets.dataset import Dataset, ImageRef, Sample, Skipped, UnreadableImage
from maotune.data.sets.labels import number_labels, split_by_shares, split_of

PREFIX = "hub:"
"""Beginning of such a source."""
FORM = f"{PREFIX}PATH_OR_ID[:CONFIG][?image=COLUMN&label=COLUMN&train=SPLIT&val=SPLIT&test=SPLIT&revision=REVISION]"
"""Syntax of such a source."""

_OPTIONS = ("image", "label", "train", "val", "test", "revision")


@dataclass(frozen=True, slots=True)
class HubImage:
    """A picture in a row of a table."""

    split: str
    """Source and name of the split, as in the data set itself."""
    row: int
    table: Any = field(repr=False, compare=False)
    """A ``datasets.Dataset`` of one column, its pictures not decoded."""

    @property
    def name(self) -> str:
        """Source, split and number of the row."""
        return f"{self.split}/{self.row}"

    def read(self) -> Image.Image:
        """Decode the upright RGB picture.

        Raises:
            UnreadableImage: see ``upright_rgb``; also where the row is empty.
        """
        stored = self._stored()
        return stored.read() if isinstance(stored, ImageFile) else upright_rgb(io.BytesIO(stored), self.name)

    def digest(self) -> str:
        """Return the hex SHA-256 of the picture's file as it is stored."""
        stored = self._stored()
        return stored.digest() if isinstance(stored, ImageFile) else hashlib.sha256(stored).hexdigest()

    def _stored(self) -> bytes | ImageFile:
        (cell,) = self.table[self.row].values()
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise UnreadableImage.about(self.name, "the row has no picture", "missing")
        return bytes(cell["bytes"]) if cell["bytes"] else ImageFile(Path(cell["path"]))


def read_hub(
    source: str,
    classes: Path | None = None,
    fractions: tuple[float, float] = (0.5, 0.2),
    *,
    as_words: bool = True,
) -> Dataset:
    """Read a labelled data set: its column of pictures, its column of class labels, its splits.

    Labels are of the type ``ClassLabel``, else texts. Splits are recognised by their usual names (``validation``). If
    there is a training split alone, each class of it is split by ``fractions`` as in a folder, by the numbers of the
    rows, unless ``train=`` names it. Rows without a label are unlabelled images in the training split, and skipped
    elsewhere.

    Args:
        source: ``FORM``; columns and splits are named where there are several that could be meant.
        classes: class names file (``read_class_names``).
        fractions: shares of train and val.
        as_words: as in ``number_labels``.

    Raises:
        ValueError: it cannot be loaded, or columns or splits are missing or could be several.
    """
    splits, options = _load(source)
    picture, label = _columns(source, next(iter(splits.values())).features, options)
    if label is None:
        raise ValueError(
            f"{source} has no column of class labels, or texts, so its images are unlabelled: give it as --unlabelled "
            f"(data.unlabelled), or name the column of another type ({_with_option(source, 'label', '...')})"
        )
    labelled: dict[str, list[tuple[ImageRef, str]]] = {}
    unlabelled: list[ImageRef] = []
    names: Sequence[str] | None = None
    chosen = _splits(source, splits, options)
    left_out = [
        Skipped(place := f"{source}/{its_name}", "in no split", f"{place}: none of train, val and test", len(table))
        for its_name, table in splits.items()
        if its_name not in chosen.values()
    ]
    needs_split = chosen.keys() <= {"train", "unlabelled"} and "train" not in options
    for split, its_name in chosen.items():
        table = splits[its_name]
        names = getattr(table.features[label], "names", None)
        images = _images(source, its_name, table, picture)
        if split == "unlabelled":
            unlabelled += images
            continue
        texts = [_label_text(value, names) for value in table[label][:]]
        if names is None and len(texts) > 1 and len({*texts}) == len(texts):
            raise ValueError(
                f"{source}: column {label!r} is another in each row, as no class label is; columns are "
                f"{', '.join(table.column_names)}"
            )
        rows = [(row, text) for row, text in enumerate(texts) if text is not None]
        bare = [image for image, text in zip(images, texts, strict=True) if text is None]
        if split == "train":
            unlabelled += bare
        elif bare:
            place = f"{source}/{its_name}"
            left_out.append(Skipped(place, "no label", f"{place}: {len(bare)} rows have no label", len(bare)))
        parts = split_by_shares(rows, str, fractions) if needs_split else {split: rows}
        for part, part_rows in parts.items():
            labelled.setdefault(part, []).extend((images[row], text) for row, text in part_rows)
    if not any(labelled.values()):
        raise ValueError(f"{source}: no row has a label in its column {label!r}")
    name = source.removeprefix(PREFIX).partition("?")[0].rstrip("/").rpartition("/")[2]
    dataset = number_labels(name, labelled, unlabelled, classes, "label", names, as_words=as_words)
    return replace(dataset, skipped=tuple(left_out))


def read_hub_unlabelled(source: str) -> tuple[Sample, ...]:
    """Return all pictures of all splits, without labels.

    Raises:
        ValueError: it cannot be loaded, or its picture column is missing or could be several.
    """
    splits, options = _load(source)
    picture, _ = _columns(source, next(iter(splits.values())).features, {"label": "", **options})
    return tuple(
        Sample(image, -1) for its_name, table in splits.items() for image in _images(source, its_name, table, picture)
    )


def _load(source: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return the tables of a source by split, and the options after the question mark."""
    where, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query))
    if not where or (strange := [key for key in options if key not in _OPTIONS]) or bool(query) != bool(options):
        wrong = f"{strange[0]!r} is unknown" if where and strange else "it names no data set, or says nothing after ?"
        raise ValueError(f"{source}: {wrong}; the form is {FORM}")
    config = None
    if not Path(where).exists() and ":" in where:
        where, _, config = where.rpartition(":")
    try:
        hub = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ValueError(f'{source} needs Hugging Face datasets: pip install "maotune[hub]"') from error
    try:
        if Path(where).is_file():
            tables = hub.load_dataset("parquet", data_files=where)
        else:
            tables = hub.load_dataset(where, config, revision=options.get("revision"))
    except Exception as error:  # of many kinds, for the network, the hub, files and settings
        raise ValueError(f"{source}: Hugging Face datasets cannot load it: {error}") from error
    return tables, options


def _columns(source: str, features: Mapping[str, Any], options: Mapping[str, str]) -> tuple[str, str | None]:
    """Choose the columns of pictures and of labels: named in the options, or the only candidate; None: no labels."""
    hub = importlib.import_module("datasets")
    types = {name: getattr(feature, "dtype", type(feature).__name__) for name, feature in features.items()}
    described = ", ".join(f"{name} ({type_})" for name, type_ in types.items())

    def choose(what: str, candidates: Sequence[str], allowed: Sequence[str]) -> str | None:
        if what in options:
            if options[what] and options[what] not in allowed:
                raise ValueError(f"{source}: {options[what]!r} is no {what} column; columns are {described}")
            return options[what] or None
        if len(candidates) > 1:
            raise ValueError(
                f"{source}: columns {', '.join(candidates)} could be the {what}; say which: "
                f"{_with_option(source, what, candidates[0])}"
            )
        return candidates[0] if candidates else None

    pictures = [name for name, feature in features.items() if isinstance(feature, hub.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, hub.ClassLabel)]
    texts = [name for name, type_ in types.items() if type_ in ("string", "large_string")]
    picture = choose("image", pictures, pictures)
    if picture is None:
        raise ValueError(f"{source} has no column of pictures; its columns are {described}")
    return picture, choose("label", labels or texts, list(features))


def _with_option(source: str, what: str, value: str) -> str:
    return f"{source}{'&' if '?' in source else '?'}{what}={value}"


def _splits(source: str, splits: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, str]:
    """Return the data set's name of each split that is used, by our name."""
    chosen: dict[str, str] = {}
    for its_name in splits:
        if (split := split_of(its_name)) is not None:
            chosen.setdefault(split, its_name)
    named = {split: options[split] for split in ("train", "val", "test") if split in options}
    if strange := [its_name for its_name in named.values() if its_name not in splits]:
        raise ValueError(f"{source}: there is no split {strange[0]!r}; there are {', '.join(splits)}")
    chosen = {split: its_name for split, its_name in chosen.items() if its_name not in named.values()} | named
    if not chosen and len(splits) == 1:
        chosen = {"train": next(iter(splits))}
    if not chosen:
        raise ValueError(
            f"{source}: none of its splits ({', '.join(splits)}) is called train, val or test; say which is which: "
            f"{_with_option(source, 'train', next(iter(splits)))}"
        )
    return chosen


def _images(source: str, its_name: str, table: Any, picture: str) -> list[ImageRef]:
    """Return a reference to the picture of each row."""
    hub = importlib.import_module("datasets")
    column = table.select_columns([picture]).cast_column(picture, hub.Image(decode=False))
    split = f"{source}/{its_name}"
    return [HubImage(split, row, column) for row in range(len(column))]


def _label_text(value: Any, names: Sequence[str] | None) -> str | None:
    """Return a label as text; None: the row has none (``datasets`` writes -1)."""
    if value is None or value == "" or (names is not None and value == -1):
        return None
    return names[value] if names is not None else str(value)
