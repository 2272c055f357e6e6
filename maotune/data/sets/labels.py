"""Labels of images: names of classes and of splits, and the data set made of both."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from maotune.data.images.decode import ImageFile
from maotune.data.sets.class_names import names_as_words, normalised, read_class_names
from maotune.data.sets.dataset import Dataset, ImageRef, Sample

log = logging.getLogger(__name__)

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled"), "unlabelled"),
}
_FILLERS = {
    *("set", "data", "dataset", "split", "folder", "all", "images", "image", "imgs", "img", "jpg", "jpeg", "png"),
    *("pictures", "picture", "pics", "photos", "photo"),
}

DRAWN = (0.5, 0.2)
"""Shares of train and val where a data set has no splits; the rest is test. They are CoOp's."""
ALL_TRAIN = (1.0, 0.0)
"""These shares where all images are for training, or are not told apart."""

T = TypeVar("T", Path, int)
L = TypeVar("L", str, int)

Item = tuple[Path, int, str]
"""Image, label, class name."""
Splits = dict[str, list[Item]]
"""Images by split: train, val, test."""


def split_of(name: str, siblings: Collection[str] = ()) -> str | None:
    """Return which split a name stands for (train, val, test, unlabelled): ``Training``, ``test_set``, ``val2017``.

    Words that all ``siblings`` have in common, the name among them, do not count: ``birds_train``, ``birds_test``.
    """
    common = set.intersection(*({*_words(sibling)} for sibling in siblings)) if len(siblings) > 1 else set[str]()
    words = [word for word in _words(name) if word not in common]
    return _SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def says_nothing(name: str) -> bool:
    """Whether a folder's name says only that it holds images: ``images``, ``all_photos``, ``dataset``."""
    return name.isascii() and any(map(str.isalpha, name)) and not _words(name)


def _words(name: str) -> list[str]:
    words = [word.removesuffix("set") for word in re.findall(r"[^\W\d_]+", name.casefold())]
    return [word for word in words if word and word not in _FILLERS]


def labelled_dataset(name: str, splits: Splits) -> Dataset:
    """Build a data set from images with labels and class names. Labels are numbered from 0 in their order.

    Raises:
        ValueError: no images, a label with two names, or two labels that are one text to the model.
    """
    names: dict[int, str] = {}
    for items in splits.values():
        for image, label, class_name in items:
            if names.setdefault(label, class_name) != class_name:
                raise ValueError(f"{name}: label {label} is {class_name!r} at {image}, but {names[label]!r} before")
    if not names:
        raise ValueError(f"{name} has no images")
    images = {split: [(ImageFile(image), label) for image, label, _ in items] for split, items in splits.items()}
    _refuse_same_texts(names.values())
    return _dataset(name, {label: names[label] for label in sorted(names)}, images)


def number_labels(
    name: str,
    splits: Mapping[str, Sequence[tuple[ImageRef, str]]],
    unlabelled: Iterable[ImageRef],
    classes: Path | None,
    noun: str,
    order: Sequence[str] | None = None,
    *,
    as_words: bool = True,
) -> Dataset:
    """Build a data set from images with names for labels.

    Args:
        name: of the data set.
        splits: images and labels by split.
        unlabelled: more images.
        classes: class names file: order of the labels, display names.
        noun: what a label is called in errors.
        order: of the labels without such a file; by default sorted, whole numbers as numbers.
        as_words: write labels as words for the model (``names_as_words``), without such a file.

    Raises:
        ValueError: the class names file does not fit, or two classes are one text to the model.
    """
    splits = {split: [(image, normalised(label)) for image, label in items] for split, items in splits.items()}
    labels = {label for items in splits.values() for _, label in items}
    if strange := sorted(label for label in labels if not _is_text(label)):
        raise ValueError(f"{name}: the {noun} {strange[0]!r} is not UTF-8, so it names no class: rename it")
    renamed: dict[str, str] = {}
    if classes is not None:
        names = read_class_names(classes)
        if labels and (strange := sorted(labels - set(names))):
            raise ValueError(
                f"{classes} does not list the {noun} {strange[0]!r}{_and_more(strange)}; "
                f"write one line a class: {noun} name, then a tab and a display name if you like"
            )
        if labels and (empty := sorted(set(names) - labels)):  # to be recognised by their names alone
            log.info("%s has no labelled image of %r%s", name, empty[0], _and_more(empty))
    else:
        numbers = all(label.isdecimal() for label in labels)
        order = order or sorted(labels, key=lambda label: (int(label) if numbers else 0, label))
        names = names_as_words(order) if as_words else {label: label for label in order}
        renamed = {label: words for label, words in names.items() if label != words}
    _refuse_same_texts(names.values())
    untrained = labels - {label for _, label in splits.get("train", ())}
    if splits.get("train") and untrained:
        some = sorted(untrained)
        log.warning("%s: the %s %r%s has no training image", name, noun, some[0], _and_more(some))
    dataset = _dataset(name, names, splits)
    return replace(dataset, unlabelled=tuple(Sample(image, -1) for image in unlabelled), renamed=tuple(renamed.items()))


def _refuse_same_texts(names: Iterable[str]) -> None:
    from maotune.clip.class_texts import refuse_same_names  # with torch, which not every command needs

    refuse_same_names([*names])


def _is_text(label: str) -> bool:
    """Whether a name has no bytes that are not UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in label)


def _dataset(name: str, classes: Mapping[L, str], splits: Mapping[str, Sequence[tuple[ImageRef, L]]]) -> Dataset:
    """Number the labels in the order of ``classes``, which holds display names by label."""
    position = {label: index for index, label in enumerate(classes)}
    train, val, test = (
        tuple(Sample(image, position[label]) for image, label in splits.get(split, ()))
        for split in ("train", "val", "test")
    )
    return Dataset(name, tuple(classes.values()), train, val, test)


def files_of(splits: Mapping[str, Sequence[tuple[Path, str]]]) -> dict[str, list[tuple[ImageRef, str]]]:
    """Return references to the files of each split, with their labels."""
    return {split: [(ImageFile(path), label) for path, label in items] for split, items in splits.items()}


def split_by_shares(
    items: Sequence[tuple[T, str]], name_of: Callable[[T], str], fractions: tuple[float, float]
) -> dict[str, list[tuple[T, str]]]:
    """Split each class. The split of an image depends on its name alone; each class gets a training image.

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
        drawn = sorted(by_label[label], key=lambda item: hashlib.sha256(os.fsencode(name_of(item[0]))).digest())
        train = max(1, round(len(drawn) * train_share))
        val = train + round(len(drawn) * val_share)
        for split, part in (("train", drawn[:train]), ("val", drawn[train:val]), ("test", drawn[val:])):
            splits[split] += sorted(part)
    if splits["val"] or splits["test"]:
        log.info("no splits given: each class is split by file name")
    return splits


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
