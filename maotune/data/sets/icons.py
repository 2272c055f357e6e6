"""`icons-11`: eleven small recognition sets of real drawings that ship with the package, and sets that are another
domain.

Each set is one zip file of bare drawings (lossless WebP, 64 x 64; see the licences in the same folder) and an
`index.json`. An image is one of these drawings, composed on a background with a seeded pose, noise and blur when it
is read: the same name always gives the same pixels. In icons-11 each training image of a class is another artist's
drawing, and no drawing is on two sides. Importing this module reads nothing; `load` checks each file against its
recorded checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import RandomState
from PIL import Image, ImageFilter

from maotune.data.sets.dataset import Dataset, Sample, UnreadableImage

SETS: tuple[str, ...] = (
    "icons-arrows",
    "icons-devices",
    "icons-editing",
    "icons-files",
    "icons-generic",
    "icons-leisure",
    "icons-medicine",
    "icons-nature",
    "icons-places",
    "icons-signs",
    "icons-work",
)
"""Names of the eleven sets of icons-11."""

FIRST_EDITION: tuple[str, ...] = (
    "icons-activities",
    "icons-animals",
    "icons-flags",
    "icons-food",
    "icons-logos",
    "icons-objects",
    "icons-people",
    "icons-smileys",
    "icons-symbols",
    "icons-travel",
    "icons-weather",
)
"""Coloured emoji, flags, logos and weather, by few artists: the suite's first edition, now targets in another
domain."""

CLIPART = "icons-clipart"
"""Clip art by amateurs, of classes that icons-11 has: test images only, a target in another domain."""

SHIFTS: tuple[str, ...] = (CLIPART, *FIRST_EDITION)
"""The sets in another domain: styles that no training image of icons-11 has."""

SHIPPED: tuple[str, ...] = (*SETS, *SHIFTS)
"""Every set that ships with the package."""

SIZE = 64
"""Side of every image, in pixels."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

FOLDER = Path(__file__).parents[2] / "assets" / "icons-11"
_CHECKSUMS = "SHA256SUMS"
_REPAIR = "Install maotune again (pip install --force-reinstall maotune) to restore it."

_COMPOSITION = 1
"""Version of the composition below: part of every image's digest."""

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class _Archive:
    """A set in memory: its index, the digest of its file, its pictures decoded, and which of them are black ink."""

    index: dict[str, Any]
    digest: str
    pictures: dict[str, Image.Image]
    ink: frozenset[str]


def _read_archive(name: str) -> tuple[bytes, str]:
    """Read the file of a set; return it with its digest, which must be the recorded one."""
    path, sums = FOLDER / f"{name}.zip", FOLDER / _CHECKSUMS
    try:
        content = path.read_bytes()
        lines = [line.split() for line in sums.read_text(encoding="utf-8").splitlines()]
        recorded = {file: digest for digest, file in lines}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename}: this file of the set {name!r} is missing. {_REPAIR}") from None
    digest = hashlib.sha256(content).hexdigest()
    if recorded.get(path.name) != digest:
        raise ValueError(
            f"{path}: this file of the set {name!r} was changed: its SHA-256 is {digest[:12]}..., "
            f"{sums.name} has {recorded.get(path.name, 'no entry')[:12]}... {_REPAIR}"
        )
    return content, digest


@lru_cache(maxsize=len(SHIPPED))
def _archive(name: str) -> _Archive:
    content, digest = _read_archive(name)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        index = json.loads(file.read("index.json"))
        pictures = {
            entry: Image.open(io.BytesIO(file.read(entry)))
            .convert("RGBA")
            .convert("RGBa")  # premultiplied: poses clean
            for entry in file.namelist()
            if entry.endswith(".webp")
        }
    return _Archive(index, digest, pictures, frozenset(entry for entry in pictures if _is_ink(pictures[entry])))


@dataclass(frozen=True, slots=True)
class IconImage:
    """One image of the suite; its name is the seed of its composition."""

    dataset: str
    """Name of the set."""
    split: Split
    label: int
    """Index of its class."""
    index: int
    """Its number within class and split."""

    @property
    def name(self) -> str:
        """For instance `icons-animals/test/cat-face/03.png`: also its path when the set is exported."""
        slug = _archive(self.dataset).index["slugs"][self.label]
        return f"{self.dataset}/{self.split}/{slug}/{self.index:02d}.png"

    def read(self) -> Image.Image:
        """Compose the picture, 64 x 64 RGB.

        Raises:
            UnreadableImage: the file of the set is missing or was changed.
        """
        try:
            archive = _archive(self.dataset)
        except (FileNotFoundError, ValueError) as error:
            raise UnreadableImage(str(error), "missing" if isinstance(error, FileNotFoundError) else "broken") from None
        return _compose(archive, self.split, self.label, self.index, self.name)

    def digest(self) -> str:
        """Return the SHA-256 of what the pixels depend on: the file of the set and the name of the image."""
        return hashlib.sha256(f"{_COMPOSITION} {_archive(self.dataset).digest} {self.name}".encode()).hexdigest()


def load(name: str) -> Dataset:
    """Load one of `SHIPPED`, with its class names in alphabetical order; its images are composed when they are read.

    Raises:
        FileNotFoundError: the file of the set is missing.
        ValueError: there is no such set, or its file was changed since it was made.
    """
    if name not in SHIPPED:
        raise ValueError(f"no shipped set {name!r}; there are {', '.join(SHIPPED)}")
    index = _archive(name).index
    train, val, test = (
        tuple(
            Sample(IconImage(name, split, label, number), label)
            for label in range(len(index["classes"]))
            for number in range(_images(index, split, label))
        )
        for split in SPLITS
    )
    return Dataset(name=name, classes=tuple(index["classes"]), train=train, val=val, test=test)


def _images(index: dict[str, Any], split: Split, label: int) -> int:
    """Number of images of a class in a split; in files of the first edition one number holds for all classes."""
    images: int | list[int] = index["images"][split]
    return images if isinstance(images, int) else images[label]


def _compose(archive: _Archive, split: Split, label: int, number: int, name: str) -> Image.Image:
    """Compose picture, pose, background, blur and grain, drawn from a generator that is seeded with the image's name.

    `RandomState` because numpy promises that its stream never changes, which it does not promise of `default_rng`.
    """
    index = archive.index
    style = index["composition"]
    rng = RandomState(np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32))
    entries: list[str] = index["pictures"][split][label]
    entry = entries[number % len(entries)]
    field = _background(archive, split, label, style, rng)
    # an object fills the larger part of its image
    smallest, largest = style["scale"]
    posed = _posed(archive.pictures[entry], smallest, largest, style["turn"], 0.05, rng)
    cover = posed[..., 3:] / 255
    if entry in archive.ink:
        posed[..., :3] = _ink(field, rng) * cover
    elif abs(posed[..., :3].sum() / (3 * cover.sum() + 1e-3) - field.mean()) < 40:
        field = (
            255 - field if abs(field.mean() - 127.5) > 40 else field * 0.35
        )  # as bright as the object: hard even to see
    image = field * (1 - cover) + posed[..., :3]
    image += np.frombuffer(rng.bytes(SIZE * SIZE), np.int8).reshape(SIZE, SIZE, 1) * (
        rng.random_sample() * style["grain"]
    )
    contrast = 1 + style["contrast"] * (rng.random_sample() - 0.6)
    image = (image - 127.5) * contrast + 127.5
    result = Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))
    radius = rng.random_sample() * style["blur"]
    return result.filter(ImageFilter.BoxBlur(radius)) if rng.random_sample() < 0.35 else result


def _is_ink(picture: Image.Image) -> bool:
    """Whether a picture is a plain black drawing, which takes its colour from the composition."""
    return all(band.getextrema() == (0, 0) for band in picture.split()[:3])


def _ink(field: Floats, rng: RandomState) -> Floats:
    """Draw a colour that stands out from the background: dark on light ones, light on dark ones."""
    color = rng.random_sample(3) * 110
    return np.asarray(color if field.mean() > 120 else 255 - color, np.float32)


def _posed(picture: Image.Image, low: float, high: float, turn: float, slack: float, rng: RandomState) -> Floats:
    """Scale, rotate, stretch and shift a premultiplied picture: (64, 64, 4) in 0..255."""
    size = low + (high - low) * rng.random_sample()
    angle = np.deg2rad(turn * (2 * rng.random_sample() - 1))
    stretch = 1 + 0.2 * (rng.random_sample() - 0.5)
    cos, sin = float(np.cos(angle)) / size, float(np.sin(angle)) / size
    free = (1 - size + slack) * SIZE / 2
    left, top = SIZE / 2 + free * (2 * rng.random_sample(2) - 1)
    a, b, d, e = cos * stretch, -sin, sin * stretch, cos
    matrix = (a, b, SIZE / 2 - a * left - b * top, d, e, SIZE / 2 - d * left - e * top)
    moved = picture.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.array(moved, np.float32)


def _background(archive: _Archive, split: Split, label: int, style: dict[str, Any], rng: RandomState) -> Floats:
    """Draw a plain colour, a gradient, soft spots, or faded other pictures of the split: (64, 64, 3) in 0..255."""
    plain = 255 - 90 * rng.random_sample(3) if rng.random_sample() < 0.45 else 255 * rng.random_sample(3)
    field: Floats = np.broadcast_to(plain.astype(np.float32), (SIZE, SIZE, 3))
    kind = rng.random_sample()
    if kind < 0.55:
        cells = (2, 5, 11)[int(kind / 0.55 * 3)]
        spots = plain + 200 * style["spots"] * (rng.random_sample((cells, cells, 3)) - 0.5)
        smooth = Image.fromarray(spots.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return np.asarray(smooth, np.float32)
    if kind < 0.55 + style["clutter"]:
        pictures = archive.index["pictures"][split]
        for _ in range(2):
            step = 1 + int(rng.random_sample() * (len(pictures) - 1))  # to another class, never to its own
            thing = _posed(archive.pictures[pictures[(label + step) % len(pictures)][0]], 0.25, 0.6, 30, 0.6, rng)
            thing *= 0.25 + 0.4 * rng.random_sample()
            field = np.asarray(field * (1 - thing[..., 3:] / 255) + thing[..., :3], np.float32)
    return field
