"""Where the public data sets come from, and whether what lies on disk is whole.

Nothing is downloaded: the rows name the page and the archives, the user gets them under the licence of each data set.
Archive names and layouts are those of CoOp's ``DATASETS.md``, and of the authors' pages where they have moved since.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maotune.data.sets import coop
from maotune.data.sets.coop import Counts
from maotune.data.sets.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Piece:
    """A file or folder of a data set, and what it is made from."""

    path: str
    """Below the folder of the data set."""
    sources: Mapping[str, str]
    """By archive, each enough alone: the path in it (``.`` for all of it; after a ``!``, in the archive that lies
    there), or nothing where it is the file itself."""
    annotation: bool = False
    """Not needed where the split file is."""
    sibling: str | None = None
    """Below the root: the same file of another data set."""
    also: str | None = None
    """An archive that is needed beside."""


@dataclass(frozen=True, slots=True)
class Original:
    """Where one data set comes from."""

    page: str
    pieces: tuple[Piece, ...]
    note: str = ""
    """What a person should know who gets it."""


def _as_it_is(*files: str) -> tuple[Piece, ...]:
    return tuple(Piece(file, {file: ""}, annotation=True) for file in files)


def _inside(archive: str, folder: str, *paths: str, annotation: bool = False) -> tuple[Piece, ...]:
    return tuple(Piece(path, {archive: f"{folder}{path}"}, annotation) for path in paths)


_NAMES = Piece("classnames.txt", {"classnames.txt": ""}, sibling="imagenet/classnames.txt")
_NAMES_NOTE = "classnames.txt (a line a class: synset, name) is linked from CoOp's DATASETS.md"
_OFFICIAL_VGG = "https://www.robots.ox.ac.uk/~vgg/data"

ORIGINALS: Mapping[str, Original] = {
    "imagenet": Original(
        "https://image-net.org/download.php",
        (
            Piece("images/train", {"ILSVRC2012_img_train.tar": "."}),
            Piece("images/val", {"ILSVRC2012_img_val.tar": "."}, also="ILSVRC2012_devkit_t12.tar.gz"),
            _NAMES,
        ),
        f"needs an account there; {_NAMES_NOTE}",
    ),
    "caltech101": Original(
        "https://data.caltech.edu/records/mzrjq-6wc02",
        (
            Piece(
                "101_ObjectCategories",
                {
                    "caltech-101.zip": "caltech-101/101_ObjectCategories.tar.gz!101_ObjectCategories",
                    "101_ObjectCategories.tar.gz": "101_ObjectCategories",
                },
            ),
        ),
    ),
    "oxford-pets": Original(
        f"{_OFFICIAL_VGG}/pets/",
        (
            *_inside("images.tar.gz", "", "images"),
            *_inside("annotations.tar.gz", "", "annotations", annotation=True),
        ),
    ),
    "stanford-cars": Original(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        (
            *_inside("cars_train.tgz", "", "cars_train"),
            *_inside("cars_test.tgz", "", "cars_test"),
            *_inside("car_devkit.tgz", "", "devkit", annotation=True),
            *_as_it_is("cars_test_annos_withlabels.mat"),
        ),
        "the links on the page are dead; copies circulate under the same file names",
    ),
    "flowers102": Original(
        f"{_OFFICIAL_VGG}/flowers/102/",
        (*_inside("102flowers.tgz", "", "jpg"), *_as_it_is("imagelabels.mat", "cat_to_name.json")),
        "cat_to_name.json is linked from CoOp's DATASETS.md",
    ),
    "food101": Original(
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        _inside("food-101.tar.gz", "food-101/", "images"),
    ),
    "fgvc-aircraft": Original(
        f"{_OFFICIAL_VGG}/fgvc-aircraft/",
        _inside(
            "fgvc-aircraft-2013b.tar.gz",
            "fgvc-aircraft-2013b/data/",
            "images",
            "variants.txt",
            "images_variant_train.txt",
            "images_variant_val.txt",
            "images_variant_test.txt",
        ),
    ),
    "sun397": Original(
        "https://vision.princeton.edu/projects/2010/SUN/",
        (
            *_inside("SUN397.tar.gz", "", "SUN397"),
            *_inside("Partitions.zip", "", "ClassName.txt", "Training_01.txt", "Testing_01.txt", annotation=True),
        ),
    ),
    "dtd": Original(f"{_OFFICIAL_VGG}/dtd/", _inside("dtd-r1.0.1.tar.gz", "dtd/", "images")),
    "eurosat": Original(
        "https://zenodo.org/records/7711810",
        (Piece("2750", {"EuroSAT.zip": "2750", "EuroSAT_RGB.zip": "EuroSAT_RGB"}),),
    ),
    "ucf101": Original(
        "https://www.crcv.ucf.edu/data/UCF101.php",
        (
            *_inside("UCF-101-midframes.zip", "", "UCF-101-midframes"),
            *_inside("UCF101TrainTestSplits-RecognitionTask.zip", "", "ucfTrainTestlist", annotation=True),
        ),
        "the page has videos, of which one frame each is used: get UCF-101-midframes.zip, linked from CoOp's "
        "DATASETS.md, or take the middle frame of every video yourself (ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi "
        "becomes Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg); videos are not decoded here",
    ),
    "imagenetv2": Original(
        "https://github.com/modestyachts/ImageNetV2",
        (
            *_inside("imagenetv2-matched-frequency.tar.gz", "", "imagenetv2-matched-frequency-format-val"),
            _NAMES,
        ),
        _NAMES_NOTE,
    ),
    "imagenet-sketch": Original(
        "https://github.com/HaohanWang/ImageNet-Sketch",
        (Piece("images", {"ImageNet-Sketch.zip": "sketch"}), _NAMES),
        _NAMES_NOTE,
    ),
    "imagenet-a": Original(
        "https://github.com/hendrycks/natural-adv-examples",
        (*_inside("imagenet-a.tar", "", "imagenet-a"), _NAMES),
        _NAMES_NOTE,
    ),
    "imagenet-r": Original(
        "https://github.com/hendrycks/imagenet-r",
        (*_inside("imagenet-r.tar", "", "imagenet-r"), _NAMES),
        _NAMES_NOTE,
    ),
}
"""A row a data set of ``coop.SETS``."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A piece that is needed and not there."""

    path: str
    """Where it belongs."""
    archives: tuple[str, ...]
    """What it is made from: the first of these that there is."""
    also: str | None
    """And this."""

    @classmethod
    def of(cls, piece: Piece) -> "Missing":
        """A piece that is not there."""
        return cls(piece.path, tuple(piece.sources), piece.also)

    def __str__(self) -> str:
        needed = " or ".join(self.archives) + (f", with {self.also}" if self.also else "")
        return f"missing: {self.path}" + ("" if self.archives == (self.path,) else f", made from {needed}")


@dataclass(frozen=True, slots=True)
class SetCheck:
    """What lies on disk of one data set."""

    name: str
    state: str
    """``complete``, ``differs`` (all there, counts unlike the original's), ``incomplete`` or ``missing``."""
    folder: str
    page: str
    missing: tuple[Missing, ...]
    split: str | None
    """The name of its split file, if it has one."""
    split_there: bool
    expected: Counts
    found: Counts | None
    """None where it cannot be listed."""
    gone: int
    """Images that are listed and not there."""
    example: str | None
    """One of those."""
    problem: str | None
    """Why it cannot be listed."""
    note: str

    def advice(self, root: Path) -> list[str]:
        """What is wrong and what to do, a sentence each; empty where nothing is."""
        said = [self.problem] if self.problem and not self.missing else []
        said += map(str, self.missing)
        if self.missing:
            said.append(f"get this from {self.page}" + (f"; {self.note}" if self.note else ""))
            said.append(f"put it into {self.folder}, then: maotune data prepare {self.name} --root {root}")
        if self.split and not self.split_there:
            said.append(
                f"{self.split}, linked from CoOp's DATASETS.md, belongs in {self.folder}: without it the split is "
                "drawn by CoOp's rules, and is not the published one"
            )
        if self.gone:
            said.append(f"{self.gone} images are listed and not there, for instance {self.example}")
        if self.found is not None:
            pairs = zip(Counts._fields, self.found, self.expected, strict=True)
            if differing := [f"{what} {got:,} (expected {wanted:,})" for what, got, wanted in pairs if got != wanted]:
                said.append("counts differ from the original's: " + ", ".join(differing))
        return said


def check(name: str, root: Path) -> SetCheck:
    """What is there of the data set ``name`` (a key of ``coop.SETS``) below ``root``.

    Lists and counts; no image is opened.
    """
    row, original = coop.SETS[name], ORIGINALS[name]
    folder = root / row.folder
    split_there = row.split is not None and (folder / row.split).is_file()
    missing = tuple(
        Missing.of(piece)
        for piece in original.pieces
        if not (piece.annotation and split_there) and not is_there(folder / piece.path)
    )
    problem: str | None = None
    found: Counts | None = None
    gone: list[str] = []
    if folder.is_dir():
        try:
            dataset = coop.load(name, root)
        except (ValueError, OSError) as error:
            problem = str(error)
        else:
            found = Counts(len(dataset.classes), *(len(split) for split in (dataset.train, dataset.val, dataset.test)))
            gone = _gone(dataset)
    return SetCheck(
        name=name,
        state=_state(folder.is_dir(), bool(missing or gone or problem), found == row.counts),
        folder=str(folder),
        page=original.page,
        missing=missing,
        split=row.split,
        split_there=split_there,
        expected=row.counts,
        found=found,
        gone=len(gone),
        example=gone[0] if gone else None,
        problem=problem,
        note=original.note,
    )


def _state(there: bool, lacks: bool, as_expected: bool) -> str:
    if not there:
        return "missing"
    if lacks:
        return "incomplete"
    return "complete" if as_expected else "differs"


def is_there(path: Path) -> bool:
    """A file, or a folder with something in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _gone(dataset: Dataset) -> list[str]:
    """Images that the splits name and that do not exist, by one look into each folder."""
    listed: dict[str, set[str]] = {}
    gone = []
    for split in (dataset.train, dataset.val, dataset.test):
        for sample in split:
            parent, name = os.path.split(sample.image.name)
            if parent not in listed:
                listed[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
            if name not in listed[parent]:
                gone.append(sample.image.name)
    return gone
