"""What people give to a tuned run: class names as a file or a list, images as paths, pictures, arrays or bytes."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maotune.data.images.decode import EncodedImage, ImageFile, MemoryImage
from maotune.data.images.shards import SHARD
from maotune.data.sets.catalog import load_unlabelled
from maotune.data.sets.class_names import did_you_mean, is_file, read_class_names
from maotune.data.sets.dataset import ImageRef, Sample, Skipped, missed
from maotune.runs.saved import PROMPTS

OneImage = str | Path | Image.Image | np.ndarray | bytes
Images = OneImage | Iterable[OneImage]
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
    several: Any = images
    if isinstance(images, str | Path | Image.Image | bytes | bytearray | memoryview) or _is_picture(images):
        several = [images]
    if not isinstance(several, Iterable) or isinstance(several, Mapping) or hasattr(several, "read"):
        raise _refusal(several, "what was given")
    samples: list[Sample] = []
    left_out: list[Skipped] = []
    for number, image in enumerate(several):
        if not isinstance(image, str | Path):
            samples.append(Sample(_in_memory(image, f"image {number}"), -1))
            continue
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
        else:
            samples.append(Sample(ImageFile(path), -1))
    if not samples and not left_out:
        raise ValueError("no image was given: the list is empty")
    return samples, left_out


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; a text that can be no path is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_picture(given: Any) -> bool:
    """Tell the array of one picture from that of several."""
    return isinstance(given, np.ndarray) and given.ndim < 4


def _in_memory(image: Any, name: str) -> ImageRef:
    """Return a picture in memory, whatever holds it."""
    if isinstance(image, Image.Image):
        return MemoryImage(image, name)
    if isinstance(image, bytes | bytearray | memoryview):
        return EncodedImage(bytes(image), name)
    if not isinstance(image, np.ndarray):
        raise _refusal(image, name)
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not image.size or not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(
            f"{name} is an array of {image.dtype} and shape {image.shape}: give (height, width, 3) of uint8; "
            "fractions of 1 as (255 * array).round().astype('uint8'), channels first as array.transpose(1, 2, 0)"
        )
    return MemoryImage(Image.fromarray(image.reshape(image.shape[:2]) if grey else image), name)


def _refusal(given: Any, name: str) -> ValueError:
    return ValueError(
        f"{name} is a {type(given).__name__}: give paths, Pillow images, NumPy arrays (height, width, 3) of uint8, or "
        "the bytes of image files"
    )
