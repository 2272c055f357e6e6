"""Read the public data sets in CoOp's layout: the same images, labels, names and order as in its own code.

A ``split_zhou_*.json`` is the split of its data set. Without one, the split is drawn from the annotations by CoOp's
rules, from the stream of random numbers that the caller gives: CoOp continues with the few-shot draw in the same
stream. Files that CoOp lists in the order of the file system are sorted here. Nothing is written.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from maotune.data.sets.dataset import Dataset
from maotune.data.sets.labels import Item, Splits, labelled_dataset
from maotune.data.sets.named import NamedSet, named_sets
from maotune.data.sets.tables import split_items
from maotune.data.sets.walk import FolderWalk, list_pictures
from maotune.files import parse_json, read_text

T = TypeVar("T")

Reader = Callable[[NamedSet, Path, random.Random], Splits]
"""Reads the annotations of a data set in its folder; the stream draws what they leave open."""


def load(name: str, root: Path, stream: random.Random | None = None) -> Dataset:
    """Load a named data set below ``root``.

    Args:
        name: a key of ``named_sets()``.
        root: holds one folder per data set, named as CoOp names them.
        stream: draws the split where there is no split file. By default a stream of its own with seed 1, so that the
            split is the same for all seeds of the few-shot draw, as it is with CoOp once its first run has saved it.

    Raises:
        ValueError: the folder or a file in it is missing (the message says what belongs where) or cannot be
            understood.
    """
    row = named_sets()[name]
    folder = root / row.folder
    if not folder.is_dir():
        raise ValueError(
            f"{name} belongs in {folder}, but there is no such folder; give the folder that holds {row.folder} as root"
        )
    if row.split_file is not None and (folder / row.split_file).is_file():
        splits = split_items(folder / row.split_file, folder / row.images)
    else:
        try:
            splits = READERS[row.reader](row, folder, stream or random.Random(1))
        except (FileNotFoundError, NotADirectoryError) as error:
            split = row.split_file and f" (or {row.split_file} in {folder}, which makes annotations unnecessary)"
            raise ValueError(f"{name}: {error.filename} is missing{split or ''}") from error
    return replace(labelled_dataset(name, splits), templates=(row.template,))


def _held_out(items: Sequence[Item], stream: random.Random) -> Splits:
    """Split off a fifth of each class for validation, classes in the order in which they occur."""
    by_label: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        by_label.setdefault(item[1], []).append(index)
    train: list[Item] = []
    val: list[Item] = []
    for indices in by_label.values():
        count = round(len(indices) * 0.2)
        stream.shuffle(indices)
        val += [items[index] for index in indices[:count]]
        train += [items[index] for index in indices[count:]]
    return {"train": train, "val": val}


def _halved(classes: Sequence[tuple[int, str, list[Path]]], stream: random.Random) -> Splits:
    """Split each class: half for training, a fifth for validation, the rest for the test."""
    splits: Splits = {"train": [], "val": [], "test": []}
    for label, name, images in classes:
        stream.shuffle(images)
        train = round(len(images) * 0.5)
        val = train + round(len(images) * 0.2)
        for split, part in (("train", images[:train]), ("val", images[train:val]), ("test", images[val:])):
            splits[split] += [(image, label, name) for image in part]
    return splits


def _class_folders(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    """One folder per class, without any annotation."""
    tops = [top for top in _folders_in(folder / row.images) if top.name not in row.ignored_folders]
    return _halved(
        [(label, row.class_names.get(top.name, top.name), list_pictures(top)) for label, top in enumerate(tops)],
        stream,
    )


def _pets(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    def read(name: str) -> list[Item]:
        return list(_parsed(folder / "annotations" / name, pet))

    def pet(line: str) -> Item:
        image, label, *_ = line.split(" ")
        return folder / row.images / f"{image}.jpg", int(label) - 1, image.rpartition("_")[0].lower()

    trainval = read("trainval.txt")
    test = read("test.txt")
    return {**_held_out(trainval, stream), "test": test}


def _flowers(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    labels = read_matlab(folder / "imagelabels.mat")["labels"][0]
    path = folder / "cat_to_name.json"
    names = parse_json(read_text(path), path)
    by_label: dict[int, list[Path]] = {}
    for number, label in enumerate(labels, 1):
        by_label.setdefault(int(label), []).append(folder / row.images / f"image_{number:05d}.jpg")
    if missing := [label for label in by_label if str(label) not in names]:
        raise ValueError(f"{path} has no name for class {missing[0]}")
    return _halved([(label - 1, names[str(label)], images) for label, images in by_label.items()], stream)


def _cars(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    names = [str(name[0]) for name in read_matlab(folder / "devkit/cars_meta.mat")["class_names"][0]]

    def read(images: str, annotations: str) -> list[Item]:
        rows = read_matlab(folder / annotations)["annotations"][0]
        labels = [int(row["class"][0, 0]) - 1 for row in rows]
        return [
            (folder / images / row["fname"][0], label, year_first(names[label]))
            for row, label in zip(rows, labels, strict=True)
        ]

    def year_first(name: str) -> str:
        model, _, year = name.rpartition(" ")
        return f"{year} {model}"

    trainval = read("cars_train", "devkit/cars_train_annos.mat")
    test = read("cars_test", "cars_test_annos_withlabels.mat")
    return {**_held_out(trainval, stream), "test": test}


def _aircraft(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    labels = {name: label for label, name in enumerate(_parsed(folder / "variants.txt", str.strip))}

    def plane(line: str) -> Item:
        image, _, name = line.partition(" ")
        return folder / "images" / f"{image}.jpg", labels[name], name

    return {split: list(_parsed(folder / f"images_variant_{split}.txt", plane)) for split in ("train", "val", "test")}


def _scenes(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    labels = {name: label for label, name in enumerate(_parsed(folder / "ClassName.txt", lambda line: line[1:]))}

    def scene(line: str) -> Item:
        image = line[1:]
        place = image.rpartition("/")[0]
        return folder / row.images / image, labels[place], " ".join(reversed(place.split("/")[1:]))

    trainval = list(_parsed(folder / "Training_01.txt", scene))
    return {**_held_out(trainval, stream), "test": list(_parsed(folder / "Testing_01.txt", scene))}


def _actions(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    lists = folder / "ucfTrainTestlist"

    def numbered(line: str) -> tuple[str, int]:
        label, action = line.split(" ")
        return action, int(label) - 1

    labels = dict(_parsed(lists / "classInd.txt", numbered))

    def video(line: str) -> Item:
        action, name = line.split(" ", maxsplit=1)[0].split("/")
        spaced = "_".join(re.findall("[A-Z][^A-Z]*", action))
        return folder / row.images / spaced / name.replace(".avi", ".jpg"), labels[action], spaced

    trainval = list(_parsed(lists / "trainlist01.txt", video))
    return {**_held_out(trainval, stream), "test": list(_parsed(lists / "testlist01.txt", video))}


def _imagenet(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    """The official validation images are the test split; there is no validation split."""
    return {split: _synsets(folder, f"{row.images}/{part}") for split, part in (("train", "train"), ("test", "val"))}


def _imagenet_test(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    """A test split alone; labels count the class folders that it has."""
    return {"test": _synsets(folder, row.images)}


def _imagenet_v2(row: NamedSet, folder: Path, stream: random.Random) -> Splits:
    """Folders are named 0 to 999, the position in the list of class names."""
    names = list(_synset_names(folder).values())
    numbered = sorted((int(top.name), top) for top in _folders_in(folder / row.images) if top.name.isdecimal())
    if numbered and numbered[-1][0] >= len(names):
        raise ValueError(f"{numbered[-1][1]} is beyond the {len(names)} names of {folder / 'classnames.txt'}")
    return {"test": [(image, label, names[label]) for label, top in numbered for image in list_pictures(top)]}


def _synsets(folder: Path, images: str) -> list[Item]:
    names = _synset_names(folder)
    place = folder / images
    tops = _folders_in(place)
    if loose := FolderWalk(place).loose(place):
        raise ValueError(
            f"{len(loose)} pictures lie in {place} and in no class folder, such as {loose[0].name}: "
            f"`maotune data prepare imagenet --root {folder.parent}` sorts ImageNet's validation images, with "
            f"ILSVRC2012_devkit_t12.tar.gz in {folder}; take other pictures out"
        )
    if len(tops) == 1 and tops[0].name not in names and {inner.name for inner in _folders_in(tops[0])} & {*names}:
        raise ValueError(f"the class folders lie one level too deep: mv {tops[0]}/* {place}/")
    if strange := [top for top in tops if top.name not in names]:
        raise ValueError(f"{folder / 'classnames.txt'} has no name for {strange[0]}")
    return [(image, label, names[top.name]) for label, top in enumerate(tops) for image in list_pictures(top)]


def _folders_in(folder: Path) -> list[Path]:
    return FolderWalk(folder).subfolders(folder)


def _synset_names(folder: Path) -> dict[str, str]:
    def named(line: str) -> tuple[str, str]:
        synset, _, name = line.partition(" ")
        return synset, name

    return dict(_parsed(folder / "classnames.txt", named))


def _parsed(path: Path, parse: Callable[[str], T]) -> Iterator[T]:
    """Parse the lines of a list; an error names the number of its line."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                yield parse(line.strip())
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path}, line {number} cannot be understood: {line!r:.80}") from error


def read_matlab(path: Path) -> Any:
    """Read the variables of a MATLAB file."""
    from scipy.io import loadmat  # slow to import

    with path.open("rb") as file:
        return loadmat(file)


READERS: Mapping[str, Reader] = {
    "class-folders": _class_folders,
    "pets": _pets,
    "flowers": _flowers,
    "cars": _cars,
    "aircraft": _aircraft,
    "scenes": _scenes,
    "actions": _actions,
    "imagenet": _imagenet,
    "imagenet-test": _imagenet_test,
    "imagenet-v2": _imagenet_v2,
}
"""Readers of annotations by their names in ``named.toml``."""
