"""What people give to a tuned run: class names as a file or a list; images as paths, tables, pictures or arrays."""

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from maotune.data.images.decode import EncodedImage, ImageFile, MemoryImage
from maotune.data.images.shards import SHARD
from maotune.data.sets.catalog import load_unlabelled
from maotune.data.sets.class_names import did_you_mean, is_file, read_class_names
from maotune.data.sets.dataset import ImageRef, Sample, Skipped, missed
from maotune.data.sets.tables import SUFFIXES_OF_TABLES, paths_of
from maotune.runs.saved import PROMPTS

OneImage = str | Path | Image.Image | np.ndarray | Tensor | bytes | BinaryIO | ImageRef
"""A path, a picture, an array, or the content of an image file."""
Images: TypeAlias = OneImage | pd.DataFrame | Iterable[OneImage]
"""One or several; a table (a CSV, TSV or JSON lines file, a data frame) stands for the paths in it."""
ClassNames = str | Path | Sequence[str]
"""Names; or one text: the path of a class names file, or names separated by commas."""

_ENDINGS = (".txt", ".tsv", ".csv", ".json", ".jsonl", ".yaml", ".yml", ".names", ".list", ".lst", ".md")
_ADVICE = "give a text file with one name a line, or at least two names with a comma between them"


def class_names_of(given: ClassNames) -> tuple[str, ...]:
    """Return class names from names, from a file of them, or from ``a,b,c``.

    Raises:
        ValueError: none, or a text that is neither an existing file nor a list of names.
    """
    if not isinstance(given, str | Path):
        return tuple(given)
    text = str(given).strip()
    if not text:
        raise ValueError(f"the class names are empty (is a shell variable unset?): {_ADVICE}")
    if is_file(path := Path(text).expanduser()):
        return tuple(read_class_names(path).values())
    names = [name.strip() for name in text.split(",") if name.strip()]
    paths = [name for name in names if name.lower().endswith(_ENDINGS) or name.startswith((".", "/", "~"))]
    if isinstance(given, Path) or paths or len(names) < 2:
        wrong = Path(paths[0] if paths else text)
        raise ValueError(f"{str(wrong)!r} is not a file of class names{did_you_mean(wrong)}: {_ADVICE}")
    return tuple(names)


def samples_of(images: Images) -> tuple[list[Sample], list[Skipped]]:
    """Return the images, and what was left out of folders.

    Raises:
        ValueError: something that is no image, or an empty path.
    """
    several: Any = paths_of(images) if isinstance(images, pd.DataFrame) else images
    if isinstance(images, str | Path | Image.Image | bytes | bytearray | memoryview) or _is_picture(images):
        several = [images]
    if not isinstance(several, Iterable) or isinstance(several, Mapping):
        raise _refusal(several, "what was given")
    samples: list[Sample] = []
    left_out: list[Skipped] = []
    for number, image in enumerate(several):
        if not isinstance(image, str | Path):
            samples.append(Sample(image_of(image, f"image {number}"), -1))
            continue
        refuse_address(image)
        if not str(image).strip():
            raise ValueError("the path of an image is empty (is a shell variable unset?): give a file or a folder")
        path = Path(image)
        if is_file(path / PROMPTS):
            raise ValueError(
                f"{path} is the folder of a run, not of images: where a pattern such as runs/photos-*/ matches several "
                "runs, name one of them"
            )
        pattern = glob.has_magic(str(path)) and not is_there(path)
        if pattern or (is_there(path) and path.is_dir()) or path.suffix.lower() == SHARD:
            pool = load_unlabelled(path, list_left_out=False)
            samples += pool.unlabelled
            left_out += missed(pool.skipped)
        elif path.suffix.lower() in SUFFIXES_OF_TABLES and is_file(path):
            samples += (Sample(ImageFile(row), -1) for row in paths_of(path))
        else:
            samples.append(Sample(ImageFile(path), -1))
    if not samples and not left_out:
        raise ValueError("no image was given: the list is empty")
    return samples, left_out


def refuse_address(source: str | Path) -> None:
    """Refuse an address of the network in place of a path.

    Raises:
        ValueError: it is one.
    """
    if re.match(r"(?!hub:)[a-zA-Z][\w+.-]+:/", str(source)):  # a drive has one letter
        raise ValueError(f"{source} is an address: nothing is fetched from there; download it, and give the file")


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; a text that can be no path is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_picture(given: Any) -> bool:
    """Tell one picture (an array of numbers, an open file) from several."""
    numbers = isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype != object)
    return (numbers and given.ndim < 4 and not _are_texts(given)) or hasattr(given, "read")


def _are_texts(given: Any) -> bool:
    return isinstance(given, np.ndarray) and given.dtype.kind in "US"


def image_of(image: Any, name: str) -> ImageRef:
    """Return a reference to one image, whatever holds it: a path, a picture, an array, or the content of a file.

    Raises:
        ValueError: something that is no image.
    """
    if isinstance(image, str | Path):
        refuse_address(image)
        return ImageFile(Path(image))
    if isinstance(image, ImageRef):
        return image
    if isinstance(image, Image.Image):
        return MemoryImage(image, name)
    if isinstance(image, bytes | bytearray | memoryview):
        return EncodedImage(bytes(image), name)
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise ValueError(f"{name} is a file that was opened as text: open it with mode 'rb'")
        return EncodedImage(content, str(getattr(image, "name", name)))
    if isinstance(image, Tensor):
        image = _array_of(image, name)
    if not isinstance(image, np.ndarray):
        raise _refusal(image, name)
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not image.size or not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(
            f"{name} is an array of {image.dtype} and shape {image.shape}: give (height, width, 3) of uint8; "
            "fractions of 1 as (255 * array).round().astype('uint8'), channels first as array.transpose(1, 2, 0)"
        )
    return MemoryImage(Image.fromarray(image.reshape(image.shape[:2]) if grey else image), name)


def _array_of(tensor: Tensor, name: str) -> np.ndarray:
    """Return (height, width, channels) of uint8 of a tensor as torchvision has it: channels first, or fractions of 1.

    Raises:
        ValueError: fractions below 0 or above 1, as of a picture that was normalised.
    """
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        if tensor.numel() and not 0 <= float(tensor.min()) <= float(tensor.max()) <= 1:
            raise ValueError(
                f"{name} is a tensor of values from {float(tensor.min()):.2f} to {float(tensor.max()):.2f}: give "
                "fractions from 0 to 1, or uint8; a picture must not be normalised, as the model's own way is applied"
            )
        tensor = (255 * tensor.float()).round().byte()
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4) and tensor.shape[2] not in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _refusal(given: Any, name: str) -> ValueError:
    return ValueError(
        f"{name} is a {type(given).__name__}: give paths, Pillow images, NumPy arrays (height, width, 3) of uint8, "
        "tensors (3, height, width), open image files or their bytes, or a table with a column path"
    )
