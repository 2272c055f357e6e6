"""How an image becomes pixels for the image tower, as the files of a model say."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from maotune.files import parse_json, read_text

log = logging.getLogger(__name__)

OPEN_CLIP_CONFIG = "open_clip_config.json"
"""What open_clip writes beside the weights: settings of the model, and of its preprocessing."""
ResizeMode = Literal["shortest", "longest", "squash"]
"""The side that an image is resized by; ``squash``: both sides, whatever its shape."""
Channels = tuple[float, float, float]
"""A number for each of red, green and blue."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image is resized, cropped and normalised for the image tower; the defaults are OpenAI's."""

    size: int = 224
    """Height and width of the result, in pixels."""
    mean: Channels = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted from red, green and blue in 0..1."""
    std: Channels = (0.26862954, 0.26130258, 0.27577711)
    """Divides the differences."""
    interpolation: str = "bicubic"
    """Filter for resizing: a name in ``PIL.Image.Resampling``, in lower case."""
    resize: ResizeMode = "shortest"
    """The side that becomes ``resize_to`` pixels long; then the centre is cropped, or padded, to ``size``."""
    resize_to: int | None = None
    """Default: ``size``."""
    fill: int = 0
    """Grey value, 0 to 255, around an image that is smaller than ``size``."""

    @property
    def fingerprint(self) -> str:
        """All settings in one line; how it is resized and padded only where that is not OpenAI's way."""
        mean, std = (" ".join(f"{value:.8g}" for value in numbers) for numbers in (self.mean, self.std))
        text = f"{self.size} {self.interpolation} mean {mean} std {std}"
        resizing = (self.resize, self.resize_to or self.size, self.fill)
        return text if resizing == ("shortest", self.size, 0) else f"{text} {resizing[0]} {resizing[1]} {resizing[2]}"


def read_preprocess(folder: Path, image_size: int) -> Preprocess:
    """Read the preprocessing of a model from the files beside its weights; without any, it is OpenAI's.

    Read are transformers' ``processor_config.json`` and ``preprocessor_config.json``, then open_clip's config.

    Args:
        folder: of the model.
        image_size: of its image tower.

    Raises:
        ValueError: a setting that cannot be applied, by name.
    """
    readings = list(_readings(folder, image_size))
    if len({preprocess.fingerprint for _, preprocess in readings}) > 1:
        names = ", ".join(path.name for path, _ in readings)
        log.warning("%s: %s differ in the preprocessing of images: the first counts", folder, names)
    return readings[0][1] if readings else Preprocess(image_size)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ValueError: not JSON, or not an object.
    """
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object")
    return content


def _readings(folder: Path, image_size: int) -> Iterator[tuple[Path, Preprocess]]:
    """Yield what each file says, the one that counts first."""
    for name in ("processor_config.json", "preprocessor_config.json", OPEN_CLIP_CONFIG):
        path = folder / name
        content = read_json(path) if path.is_file() else {}
        if name == OPEN_CLIP_CONFIG:
            if settings := content.get(
                "preprocess_cfg", {key: content[key] for key in ("mean", "std") & content.keys()}
            ):
                yield path, _read_open_clip(_Settings(path, settings), image_size)
        elif settings := content.get("image_processor") if name == "processor_config.json" else content:
            yield path, _read_transformers(_Settings(path, settings), image_size)


class _Settings:
    """Settings of a file, checked as they are read; null stands for the default."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"{path}: the settings of images should be an object, not {values!r:.80}")
        self.path = path
        self.values = {key: value for key, value in values.items() if value is not None}

    def refusal(self, reason: str, *names: str) -> ValueError:
        stated = ", ".join(f"{name} = {self.values.get(name, 'not stated')}" for name in names)
        return ValueError(f"{self.path}: {stated}: {reason}")

    def positive(self, name: str, default: float) -> float:
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.refusal("should be a number above 0", name)
        return value

    def channels(self, name: str, default: Channels) -> Channels:
        """Return a number for each channel; a single one stands for all."""
        values = self.values.get(name, default)
        try:
            red, green, blue = map(float, [values] * 3 if isinstance(values, int | float) else values)
        except (TypeError, ValueError):
            raise self.refusal("should be three numbers", name) from None
        if name.endswith("std") and min(red, green, blue) <= 0:
            raise self.refusal("should be three numbers above 0", name)
        return red, green, blue

    def filter(self, name: str, default: str) -> str:
        """Return the name of Pillow's filter, which is stated by name or number."""
        value = self.values.get(name, default)
        filters = {each.value: each.name.lower() for each in Image.Resampling}
        chosen = filters.get(value, "") if isinstance(value, int) else str(value).lower()
        if chosen not in filters.values():
            raise self.refusal(f"not a filter for resizing: choose {', '.join(filters.values())}", name)
        return chosen

    def square(self, name: str, default: int) -> tuple[str, int]:
        """Return the keys of a size (none for a bare number) and its one length in pixels."""
        value = self.values.get(name, default)
        if isinstance(value, list | tuple):
            value = dict(zip(("height", "width"), value, strict=False))
        sides = {key: side for key, side in value.items() if side} if isinstance(value, Mapping) else {"": value}
        lengths = {*sides.values()}
        if len(lengths) != 1 or not isinstance(length := lengths.pop(), int) or length < 1:
            raise self.refusal("only a square of whole pixels is supported", name)
        return " ".join(sorted(sides)), length


_HALF = (0.5, 0.5, 0.5)
_PROCESSORS: Mapping[str, Preprocess] = {
    **dict.fromkeys(("CLIP", "ChineseCLIP", "Bit"), Preprocess()),
    "ViT": Preprocess(224, _HALF, _HALF, "bilinear", "squash"),
    "Siglip": Preprocess(224, _HALF, _HALF, "bicubic", "squash"),
}
"""Image processors of transformers that do nothing but resize, crop and normalise, with their defaults."""
_STEPS = frozenset({"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"})
"""The steps of these. Images are always RGB here."""


def _read_transformers(settings: _Settings, image_size: int) -> Preprocess:
    """Read the settings of an image processor of transformers."""
    values = settings.values
    kind = "image_processor_type" if "image_processor_type" in values else "feature_extractor_type"
    family = re.sub("(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", str(values.get(kind, "CLIP")))
    if family not in _PROCESSORS:
        raise settings.refusal(f"only image processors of {', '.join(_PROCESSORS)} are supported", kind)
    defaults = _PROCESSORS[family]
    steps = {key for key, wanted in values.items() if key.startswith(("do_", "use_square")) and wanted}
    if strange := sorted(steps - _STEPS):
        raise settings.refusal("no such step is supported", *strange)
    if not values.get("do_resize", True):
        raise settings.refusal("images of other sizes do not fit the image tower", "do_resize")
    keys, resize_to = settings.square("size", image_size)
    modes: dict[str, ResizeMode] = {"": defaults.resize, "shortest_edge": "shortest", "height width": "squash"}
    if (mode := modes.get(keys)) is None:
        raise settings.refusal("only shortest_edge, or height and width, are supported", "size")
    cropped = values.get("do_center_crop", defaults.resize == "shortest")
    if not cropped and mode == "shortest":
        raise settings.refusal("the image tower takes squares, so do_center_crop is needed", "do_center_crop", "size")
    size = settings.square("crop_size", image_size)[1] if cropped else resize_to
    if size != image_size:
        tower = f"the image tower takes {image_size} x {image_size} pixels"
        raise settings.refusal(tower, "crop_size" if cropped else "size")
    mean, std = _normalisation(settings, defaults)
    return Preprocess(size, mean, std, settings.filter("resample", defaults.interpolation), mode, resize_to)


def _normalisation(settings: _Settings, defaults: Preprocess) -> tuple[Channels, Channels]:
    """Return mean and deviation for values in 0..1, whatever range transformers rescales them to."""
    mean, std = settings.channels("image_mean", defaults.mean), settings.channels("image_std", defaults.std)
    if not settings.values.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    rescaled = settings.values.get("do_rescale", True)
    white = 255 * settings.positive("rescale_factor", 1 / 255) if rescaled else 255.0
    if math.isclose(white, 1):
        return mean, std
    return (mean[0] / white, mean[1] / white, mean[2] / white), (std[0] / white, std[1] / white, std[2] / white)


def _read_open_clip(settings: _Settings, image_size: int) -> Preprocess:
    """Read open_clip's ``preprocess_cfg``; its ``size`` does not count there: the image tower has its own."""
    values, defaults = settings.values, Preprocess()
    if values.get("mode", "RGB") != "RGB":
        raise settings.refusal("images are always RGB here", "mode")
    mode = values.get("resize_mode", "shortest")
    if mode not in get_args(ResizeMode):
        raise settings.refusal(f"choose {', '.join(get_args(ResizeMode))}", "resize_mode")
    random = values.get("interpolation") == "random"  # in training; else open_clip takes bicubic
    fill = values.get("fill_color", 0)
    if not isinstance(fill, int) or not 0 <= fill <= 255:
        raise settings.refusal("should be a whole number from 0 to 255", "fill_color")
    return Preprocess(
        image_size,
        settings.channels("mean", defaults.mean),
        settings.channels("std", defaults.std),
        "bicubic" if random else settings.filter("interpolation", "bicubic"),
        mode,
        image_size,
        fill,
    )
