"""The public data sets as CoOp lays them out on disk: the same images, labels, names and order as its own code.

Where a data set has a ``split_zhou_*.json``, that is its split. Where not, the split is drawn from the
annotations by CoOp's rules, from the stream of random numbers that the caller gives: CoOp goes on to the
few-shot draw with the same stream. Files that CoOp lists in the order of the file system are sorted here.
Nothing is written.
"""

import importlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from maotune.clip.ensembles import DATASETS as TEMPLATES
from maotune.data.sets.dataset import Dataset
from maotune.data.sets.readers import Item, Splits, folders_in, images_in, labelled_dataset, read_text, split_items

T = TypeVar("T")

Annotated = Callable[[Path, random.Random], Splits]


class Counts(NamedTuple):
    """The size of a data set."""

    classes: int
    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True)
class CoopSet:
    """One data set in CoOp's layout."""

    folder: str
    """Below the root of all data sets."""
    annotated: Annotated
    """Reads the annotations in the folder."""
    images: str = "."
    """Where the paths of the split file count from, below the folder."""
    split: str | None = None
    """Name of the split file."""
    _: KW_ONLY
    counts: Counts
    """Of the original with CoOp's split."""


def load(name: str, root: Path, stream: random.Random | None = None) -> Dataset:
    """The data set ``name`` (a key of ``SETS``) below ``root``.

    Args:
        name: as in ``SETS``.
        root: holds a folder a data set, named as CoOp names them.
        stream: draws the split where there is no split file. By default a stream of its own with seed 1, so that the
            split is the same for all seeds of the few-shot draw, as it is with CoOp once its first run has saved it.

    Raises:
        ValueError: the folder or a file in it is missing (the message says what belongs where) or cannot be
        understood.
    """
    row = SETS[name]
    folder = root / row.folder
    if not folder.is_dir():
        raise ValueError(
            f"{name} belongs in {folder}, but there is no such folder; give the folder that holds {row.folder} as root"
        )
    templates = (TEMPLATES[name],)
    if row.split is not None and (folder / row.split).is_file():
        splits = split_items(folder / row.split, folder / row.images)
    else:
        try:
            splits = row.annotated(folder, stream or random.Random(1))
        except (FileNotFoundError, NotADirectoryError) as error:
            alternative = (
                "" if row.split is None else f" (or {row.split} in {folder}, which makes annotations unnecessary)"
            )
            raise ValueError(f"{name}: {error.filename} is missing{alternative}") from error
    return labelled_dataset(name, splits, templates)


def _held_out(items: Sequence[Item], stream: random.Random) -> Splits:
    """A fifth of each class for validation, classes in the order in which they occur."""
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
    """Half of each class for training, a fifth for validation, the rest for the test."""
    splits: Splits = {"train": [], "val": [], "test": []}
    for label, name, images in classes:
        stream.shuffle(images)
        train = round(len(images) * 0.5)
        val = train + round(len(images) * 0.2)
        for split, part in (("train", images[:train]), ("val", images[train:val]), ("test", images[val:])):
            splits[split] += [(image, label, name) for image in part]
    return splits


def _class_folders(images: str, rename: dict[str, str] | None = None, ignored: Sequence[str] = ()) -> Annotated:
    """A folder a class and nothing else: Caltech101, DTD, EuroSAT, Food101."""

    def read(folder: Path, stream: random.Random) -> Splits:
        tops = [top for top in folders_in(folder / images) if top.name not in ignored]
        named = [(label, (rename or {}).get(top.name, top.name), images_in(top, top)) for label, top in enumerate(tops)]
        return _halved(named, stream)

    return read


def _pets(folder: Path, stream: random.Random) -> Splits:
    def read(name: str) -> list[Item]:
        return list(_parsed(folder / "annotations" / name, pet))

    def pet(line: str) -> Item:
        image, label, *_ = line.split(" ")
        return folder / "images" / f"{image}.jpg", int(label) - 1, image.rpartition("_")[0].lower()

    trainval = read("trainval.txt")
    test = read("test.txt")
    return {**_held_out(trainval, stream), "test": test}


def _flowers(folder: Path, stream: random.Random) -> Splits:
    labels = read_matlab(folder / "imagelabels.mat")["labels"][0]
    path = folder / "cat_to_name.json"
    names = json.loads(read_text(path))
    by_label: dict[int, list[Path]] = {}
    for number, label in enumerate(labels, 1):
        by_label.setdefault(int(label), []).append(folder / "jpg" / f"image_{number:05d}.jpg")
    if missing := [label for label in by_label if str(label) not in names]:
        raise ValueError(f"{path} has no name for class {missing[0]}")
    return _halved([(label - 1, names[str(label)], images) for label, images in by_label.items()], stream)


def _cars(folder: Path, stream: random.Random) -> Splits:
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


def _aircraft(folder: Path, stream: random.Random) -> Splits:
    labels = {name: label for label, name in enumerate(_parsed(folder / "variants.txt", str.strip))}

    def plane(line: str) -> Item:
        image, _, name = line.partition(" ")
        return folder / "images" / f"{image}.jpg", labels[name], name

    return {split: list(_parsed(folder / f"images_variant_{split}.txt", plane)) for split in ("train", "val", "test")}


def _scenes(folder: Path, stream: random.Random) -> Splits:
    labels = {name: label for label, name in enumerate(_parsed(folder / "ClassName.txt", lambda line: line[1:]))}

    def scene(line: str) -> Item:
        image = line[1:]
        place = image.rpartition("/")[0]
        return folder / "SUN397" / image, labels[place], " ".join(reversed(place.split("/")[1:]))

    trainval = list(_parsed(folder / "Training_01.txt", scene))
    return {**_held_out(trainval, stream), "test": list(_parsed(folder / "Testing_01.txt", scene))}


def _actions(folder: Path, stream: random.Random) -> Splits:
    lists = folder / "ucfTrainTestlist"

    def numbered(line: str) -> tuple[str, int]:
        label, action = line.split(" ")
        return action, int(label) - 1

    labels = dict(_parsed(lists / "classInd.txt", numbered))

    def video(line: str) -> Item:
        action, name = line.split(" ", maxsplit=1)[0].split("/")
        spaced = "_".join(re.findall("[A-Z][^A-Z]*", action))
        return folder / "UCF-101-midframes" / spaced / name.replace(".avi", ".jpg"), labels[action], spaced

    trainval = list(_parsed(lists / "trainlist01.txt", video))
    return {**_held_out(trainval, stream), "test": list(_parsed(lists / "testlist01.txt", video))}


def _imagenet(folder: Path, stream: random.Random) -> Splits:
    """The official validation images are the test; there is no validation split."""
    return {split: _synsets(folder, f"images/{part}") for split, part in (("train", "train"), ("test", "val"))}


def _imagenet_variant(images: str) -> Annotated:
    """Only a test split; labels are those of its own class folders."""

    def read(folder: Path, stream: random.Random) -> Splits:
        return {"test": _synsets(folder, images)}

    return read


def _imagenet_v2(folder: Path, stream: random.Random) -> Splits:
    """Its folders are named 0 to 999, the position in the list of names."""
    names = list(_synset_names(folder).values())
    top = folder / "imagenetv2-matched-frequency-format-val"
    numbered = sorted((int(part.name), part) for part in folders_in(top) if part.name.isdecimal())
    if numbered and numbered[-1][0] >= len(names):
        raise ValueError(f"{numbered[-1][1]} is beyond the {len(names)} names of {folder / 'classnames.txt'}")
    return {"test": [(image, label, names[label]) for label, part in numbered for image in images_in(part, part)]}


def _synsets(folder: Path, images: str) -> list[Item]:
    names = _synset_names(folder)
    tops = folders_in(folder / images)
    if strange := [top for top in tops if top.name not in names]:
        raise ValueError(f"{folder / 'classnames.txt'} has no name for {strange[0]}")
    return [(image, label, names[top.name]) for label, top in enumerate(tops) for image in images_in(top, top)]


def _synset_names(folder: Path) -> dict[str, str]:
    def named(line: str) -> tuple[str, str]:
        synset, _, name = line.partition(" ")
        return synset, name

    return dict(_parsed(folder / "classnames.txt", named))


def _parsed(path: Path, parse: Callable[[str], T]) -> Iterator[T]:
    """The lines of a list, each understood or an error with its number."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                yield parse(line.strip())
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path}, line {number} cannot be understood: {line!r:.80}") from error


def read_matlab(path: Path) -> Any:
    """The variables of a MATLAB file.

    Raises:
        ValueError: scipy is not installed. FileNotFoundError: no such file.
    """
    try:
        scipy = importlib.import_module("scipy.io")
    except ModuleNotFoundError as error:
        raise ValueError(f"{path} is a MATLAB file: `pip install scipy` to read it, or add the split file") from error
    if not path.is_file():
        raise FileNotFoundError(2, "missing", str(path))
    return scipy.loadmat(path)


SETS = {
    "imagenet": CoopSet("imagenet", _imagenet, counts=Counts(1000, 1281167, 0, 50000)),
    "caltech101": CoopSet(
        "caltech-101",
        _class_folders(
            "101_ObjectCategories",
            {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"},
            ("BACKGROUND_Google", "Faces_easy"),
        ),
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        counts=Counts(100, 4128, 1649, 2465),
    ),
    "oxford-pets": CoopSet(
        "oxford_pets", _pets, "images", "split_zhou_OxfordPets.json", counts=Counts(37, 2944, 736, 3669)
    ),
    "stanford-cars": CoopSet(
        "stanford_cars", _cars, ".", "split_zhou_StanfordCars.json", counts=Counts(196, 6509, 1635, 8041)
    ),
    "flowers102": CoopSet(
        "oxford_flowers", _flowers, "jpg", "split_zhou_OxfordFlowers.json", counts=Counts(102, 4093, 1633, 2463)
    ),
    "food101": CoopSet(
        "food-101",
        _class_folders("images"),
        "images",
        "split_zhou_Food101.json",
        counts=Counts(101, 50500, 20200, 30300),
    ),
    "fgvc-aircraft": CoopSet("fgvc_aircraft", _aircraft, counts=Counts(100, 3334, 3333, 3333)),
    "sun397": CoopSet("sun397", _scenes, "SUN397", "split_zhou_SUN397.json", counts=Counts(397, 15880, 3970, 19850)),
    "dtd": CoopSet(
        "dtd",
        _class_folders("images"),
        "images",
        "split_zhou_DescribableTextures.json",
        counts=Counts(47, 2820, 1128, 1692),
    ),
    "eurosat": CoopSet(
        "eurosat",
        _class_folders(
            "2750",
            {
                "AnnualCrop": "Annual Crop Land",
                "Forest": "Forest",
                "HerbaceousVegetation": "Herbaceous Vegetation Land",
                "Highway": "Highway or Road",
                "Industrial": "Industrial Buildings",
                "Pasture": "Pasture Land",
                "PermanentCrop": "Permanent Crop Land",
                "Residential": "Residential Buildings",
                "River": "River",
                "SeaLake": "Sea or Lake",
            },
        ),
        "2750",
        "split_zhou_EuroSAT.json",
        counts=Counts(10, 13500, 5400, 8100),
    ),
    "ucf101": CoopSet(
        "ucf101", _actions, "UCF-101-midframes", "split_zhou_UCF101.json", counts=Counts(101, 7639, 1898, 3783)
    ),
    "imagenetv2": CoopSet("imagenetv2", _imagenet_v2, counts=Counts(1000, 0, 0, 10000)),
    "imagenet-sketch": CoopSet("imagenet-sketch", _imagenet_variant("images"), counts=Counts(1000, 0, 0, 50889)),
    "imagenet-a": CoopSet("imagenet-adversarial", _imagenet_variant("imagenet-a"), counts=Counts(200, 0, 0, 7500)),
    "imagenet-r": CoopSet("imagenet-rendition", _imagenet_variant("imagenet-r"), counts=Counts(200, 0, 0, 30000)),
}
"""The eleven of the paper, and four that look at ImageNet's classes in another way.

The counts of the eleven were checked against statistics that others publish of CoOp's splits, those of ImageNet-A and
-R against public listings. ImageNetV2's and ImageNet-Sketch's (its page rounds to 50,000) have not been checked."""
