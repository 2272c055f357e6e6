"""Views: the pixels that CLIP sees, as a pure function of the picture and a seed."""

import hashlib
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

if TYPE_CHECKING:
    from maotune.clip.preprocess import Preprocess


class View(Protocol):
    """Turns a picture into pixels."""

    @property
    def seed(self) -> int | None:
        """Seed of the run that the views of an image depend on; None: the same views in all runs."""
        ...

    @property
    def fingerprint(self) -> str:
        """All that the pixels depend on except the picture and the number of the view."""
        ...

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return the normalised pixels of an RGB picture, (3, h, w) float32."""
        ...


def view_seed(seed: int | None, digest: str, view: int) -> int:
    """Return the seed of a view of an image, the same in the feature bank and in batches of pixels.

    Args:
        seed: of the run; None: the same views in all runs.
        digest: of the image's content.
        view: its number: the epochs' from 0 on; view -1-v is the partner of view v, for learners that compare two.
    """
    parts = (digest, view) if seed is None else (seed, digest, view)
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


@dataclass(frozen=True, slots=True)
class TestView:
    """The model's own view: the picture is resized and its centre cropped or padded. The seed is ignored."""

    __test__: ClassVar[bool] = False  # keeps pytest from collecting it for its name
    seed: ClassVar[None] = None

    preprocess: "Preprocess"

    @property
    def fingerprint(self) -> str:
        """See ``View``."""
        return f"test-1 {self.preprocess.fingerprint}"

    def __call__(self, image: Image.Image, seed: int = 0) -> Tensor:
        """Return the pixels, (3, size, size) float32."""
        short = min(image.size)
        if self.preprocess.resize == "shortest" and max(image.size) > 16 * short:
            # A very thin picture would grow to gigabytes; only its middle is used.
            image = ImageOps.fit(image, (min(image.width, 16 * short), min(image.height, 16 * short)))
        if (resized := _resized(image.width, image.height, self.preprocess)) != image.size:
            image = image.resize(resized, _filter(self.preprocess))
        return _normalised(_centre(image, self.preprocess), self.preprocess)


def _resized(width: int, height: int, preprocess: "Preprocess") -> tuple[int, int]:
    """Return width and height after resizing, rounded as torchvision and open_clip round them."""
    side = preprocess.resize_to or preprocess.size
    if preprocess.resize == "squash":
        return side, side
    if preprocess.resize == "shortest":
        short = min(width, height)
        return side * width // short, side * height // short
    ratio = max(width, height) / side
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _centre(image: Image.Image, preprocess: "Preprocess") -> Image.Image:
    """Crop the centre; where the picture is smaller, pad it."""
    size = preprocess.size
    if image.size == (size, size):
        return image
    left, top = (round((side - size) / 2) if side > size else -((size - side) // 2) for side in image.size)
    if min(image.size) >= size:
        return image.crop((left, top, left + size, top + size))
    canvas = Image.new("RGB", (size, size), (preprocess.fill,) * 3)
    canvas.paste(image, (-left, -top))
    return canvas


@dataclass(frozen=True, slots=True)
class TrainView:
    """CoOp's augmentation: a random crop of random aspect ratio (3/4 to 4/3), resized, flipped with probability 1/2."""

    preprocess: "Preprocess"
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest fraction of the picture's area."""
    flip: bool = True
    seed: int | None = None
    """Seed of the run that the crops and flips of an image depend on; None: the same ones in all runs."""

    @property
    def fingerprint(self) -> str:
        """See ``View``."""
        seed = "" if self.seed is None else f" seed {self.seed}"
        return f"train-1 {self.scale[0]:g}..{self.scale[1]:g} flip {self.flip}{seed} {self.preprocess.fingerprint}"

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Return the pixels, (3, size, size) float32."""
        stream = random.Random(seed)
        size = self.preprocess.size
        crop = image.crop(_crop_box(image.width, image.height, self.scale, stream))
        crop = crop.resize((size, size), _filter(self.preprocess))
        if self.flip and stream.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _normalised(crop, self.preprocess)


def _crop_box(width: int, height: int, scale: tuple[float, float], stream: random.Random) -> tuple[int, int, int, int]:
    """Draw left, top, right, bottom: ten attempts, then the largest centred crop within the ratios, as torchvision."""
    narrowest, widest = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * stream.uniform(*scale)
        ratio = math.exp(stream.uniform(math.log(narrowest), math.log(widest)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = stream.randint(0, width - w), stream.randint(0, height - h)
            return left, top, left + w, top + h
    ratio = min(max(width / height, narrowest), widest)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _filter(preprocess: "Preprocess") -> Image.Resampling:
    return Image.Resampling[preprocess.interpolation.upper()]


def _normalised(image: Image.Image, preprocess: "Preprocess") -> Tensor:
    # NumPy and not torch: this runs in many threads, and torch would start a team of workers in each.
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    normalised = (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32))
