"""Decode one picture, as a camera, phone or scanner wrote it, into upright RGB, or refuse it with a reason."""

import contextlib
import functools
import hashlib
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from maotune.data.images.formats import HEAD, READABLE, formats_of, recognise, why_unreadable
from maotune.data.images.memory import LIMIT, reserve
from maotune.data.sets.dataset import UnreadableImage
from maotune.files import sha256

MAX_PIXELS = 89_478_485
"""Larger pictures are refused undecoded: a few bytes of PNG can unpack to gigabytes (Pillow's own limit)."""
MAX_BYTES = 1 << 26
"""Larger files are refused unread where the decoder of their format holds the whole file in memory (``_IN_MEMORY``)."""

_IN_MEMORY = ("WEBP", "AVIF", "HEIF", "JPEG2000")
_BYTES_PER_PIXEL = {"WEBP": 16, "AVIF": 24, "HEIF": 24, "JPEG2000": 24}
"""Memory of decoding at its peak, as measured, where it is more than the picture (4) and its RGB copy (4)."""
_TILE = 1 << 18
"""Pixels that are converted at a time where a conversion needs more memory than its result."""

_GDAL_NODATA = 42113
"""TIFF tag: the value of pixels without data."""
_NO_DATA = (-999.0, -9999.0, -99999.0, -32768.0)
"""Usual values for it."""
_SATURATED = 65535.0
"""The value of dead and saturated pixels, whatever the number of bits of the others."""
_FULL_RANGES = tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 16))

Progress = Callable[[int, int], None]
"""``progress(done, total)``, called from the calling thread."""


def upright_rgb(file: BinaryIO, name: str) -> Image.Image:
    """Decode an open file into the upright RGB picture.

    The EXIF orientation is applied; transparency lies on white; 16-bit values, and floating point grey values, are
    scaled to 8 bits (``_grey_range``); of several frames the first is used.

    Raises:
        UnreadableImage: broken, cut off, no picture, or too large: of more than ``MAX_PIXELS`` pixels (fewer in some
        formats), or of more than ``MAX_BYTES``. The message begins with ``name``.
    """
    with _refusals(name), _turn_to_open(file, name), _open(file, name) as image:
        pixels, bytes_each = image.width * image.height, _bytes_per_pixel(image)
        if pixels > (most := min(MAX_PIXELS, LIMIT // bytes_each)):
            raise UnreadableImage.about(name, _too_many_pixels(most), "too large")
        with reserve(pixels * bytes_each):
            other_bytes = _tiles_of_other_bytes(image)
            image.load()
            if other_bytes and np.max(image.getextrema()) < 1 << 6:
                _scale_up(image, _open_again(file, name, other_bytes))
            return _rgb(_upright(image, in_place=True), _no_data(image))


def _bytes_per_pixel(image: Image.Image) -> int:
    bits: tuple[int, ...] = getattr(image, "tag_v2", {}).get(
        TiffImagePlugin.BITSPERSAMPLE, ()
    )  # a strip may be the whole picture
    known = _BYTES_PER_PIXEL.get(image.format or "", 12 if _tiles_of_other_bytes(image) else 8)
    return max(known, 4 + sum(bits) // 8, 10 if "progressive" in image.info else 0)  # JPEG's coefficients


def _too_many_pixels(most: int) -> str:
    return f"more than {most / 1e6:.0f} million pixels; make a smaller copy"


def _turn_to_open(file: BinaryIO, name: str) -> AbstractContextManager[None]:
    """Refuse a file that is too large to be opened; one that Pillow decodes when it opens it has all memory."""
    head = file.read(HEAD)
    if recognise(head) in _IN_MEMORY and file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise UnreadableImage.about(name, f"more than {MAX_BYTES >> 20} MiB, too many for this format", "too large")
    file.seek(0)
    return reserve(LIMIT) if head.startswith((b"\0\0\1\0", b"icns")) else contextlib.nullcontext()  # icons


def _open(file: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=formats_of(name))
    except UnidentifiedImageError:
        file.seek(0)
        refusal = why_unreadable(name, file.read(HEAD))
        if refusal is not None and refusal.kind not in ("not a picture", "document"):
            raise UnreadableImage.about(name, refusal.reason, refusal.kind) from None
        raise


def _tiles_of_other_bytes(image: Image.Image) -> list[Any]:
    """Return the parts of a colour file of 16 bits, to be read by the lower byte of each value; none in other files.

    Pillow keeps the upper byte. Given the other byte order it keeps the lower one.
    """
    swapped = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
    tiles = []
    for tile in getattr(image, "tile", ()) if image.mode in ("RGB", "RGBA") else ():
        raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if str(raw)[-4:] not in swapped:
            return []
        raw = raw[:-4] + swapped[raw[-4:]]
        tiles.append(tile._replace(args=(raw, *rest) if isinstance(tile.args, tuple) else raw))
    return tiles


def _open_again(file: BinaryIO, name: str, tiles: list[Any]) -> Image.Image:
    file.seek(0)
    image: Any = _open(file, name)
    image.tile = tiles
    image.load()
    lower: Image.Image = image
    return lower


def _scale_up(upper: Image.Image, lower: Image.Image) -> None:
    """Scale a colour picture of few bits in a 16-bit file, in place; ``upper`` and ``lower`` are its bytes."""
    high = max(
        int((np.asarray(upper.crop(box)).astype(np.uint16) << 8 | np.asarray(lower.crop(box))).max())
        for box in _tiles(upper)
    )
    full = next(most for most in _FULL_RANGES if high <= most)
    for box in _tiles(upper):
        values = np.asarray(upper.crop(box)).astype(np.float64) * 256 + np.asarray(lower.crop(box))
        upper.paste(Image.fromarray(np.round(values * (255 / full)).astype(np.uint8), upper.mode), box)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn any error in the block into ``UnreadableImage``: decoders raise errors of any type on broken input."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        kind, reason = _kind_and_reason(error)
        raise UnreadableImage.about(name, reason, kind) from error


def _upright(image: Image.Image, in_place: bool = False) -> Image.Image:
    with contextlib.suppress(Exception):  # the picture is good even where its EXIF block is not
        if not in_place:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image, no_data: float | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        low, high = _grey_range(image, no_data)
        return _by_tiles(image, lambda tile: Image.fromarray(_eight_bits(tile, no_data, low, high)).convert("RGB"))
    if image.has_transparency_data:
        return _by_tiles(image, _on_white)
    return image.convert("RGB")


def _by_tiles(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return an RGB picture, converted a tile at a time: a conversion of the whole could take several times as much."""
    canvas = Image.new("RGB", image.size)
    for box in _tiles(image):
        canvas.paste(convert(image.crop(box)), box)
    return canvas


def _tiles(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    width = max(1, min(image.width, _TILE))
    height = _TILE // width
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            yield left, top, min(left + width, image.width), min(top + height, image.height)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _no_data(image: Image.Image) -> float | None:
    """Return the value that stands for "no data" in a GeoTIFF."""
    try:
        return float(getattr(image, "tag_v2", {})[_GDAL_NODATA])
    except (KeyError, ValueError):
        return None


def _values(grey: Image.Image, no_data: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the values, and which are data: not NaN, infinite, ``no_data`` or a usual value for it."""
    values = np.asarray(grey).astype(np.float64)
    present = (
        np.isfinite(values)
        & (np.abs(values) < 1e30)
        & ~np.isin(values, (*_NO_DATA, np.nan if no_data is None else no_data))
    )
    return values, present


def _grey_range(grey: Image.Image, no_data: float | None) -> tuple[float, float]:
    """Return which values become 0 and 255.

    That is the full range of 8, 10, 12, 14 or 16 bits, the least that holds the values but saturated ones, or of
    fractions; else the smallest and the largest value.
    """
    low, high = np.inf, -np.inf
    for box in _tiles(grey):
        values, present = _values(grey.crop(box), no_data)
        low = float(values.min(where=present, initial=low))
        high = float(values.max(where=present & (values != _SATURATED), initial=high))
    full = (1.0,) if grey.mode == "F" else _FULL_RANGES
    if low >= 0 and high <= full[-1]:
        return 0.0, next(most for most in full if high <= most)
    return low, high


def _eight_bits(grey: Image.Image, no_data: float | None, low: float, high: float) -> np.ndarray:
    """Scale the range to 0..255; pixels without data are black."""
    values, present = _values(grey, no_data)
    scaled = np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255)
    return np.where(present, np.round(scaled), 0).astype(np.uint8)


def _kind_and_reason(error: Exception) -> tuple[str, str]:
    """Return kind and reason of a refusal, in words for people."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too large", _too_many_pixels(MAX_PIXELS)
    if isinstance(error, UnidentifiedImageError):
        return "not a picture", f"no picture in a format that can be read ({READABLE})"
    if isinstance(error, FileNotFoundError):
        return "missing", "there is no such file"
    if isinstance(error, PermissionError):
        return "no access", "this user may not read it"
    text = str(error) or type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated", f"the file is cut off ({text})"
    return "broken", f"cannot be decoded ({text})"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """Path of the file."""
        return str(self.path)

    def read(self) -> Image.Image:
        """Decode the upright RGB picture.

        Raises:
            UnreadableImage: see ``upright_rgb``; also where the file is missing, empty, or no regular file.
        """
        self._status()
        with _refusals(self.name), self.path.open("rb") as file:
            return upright_rgb(file, self.name)

    def digest(self) -> str:
        """Return the hex SHA-256 of the file."""
        status = self._status()
        with _refusals(self.name):
            return _file_digest(self.path, file_version(status)) if is_settled(status) else sha256(self.path)

    def _status(self) -> os.stat_result:
        with _refusals(self.name):
            status = self.path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            raise UnreadableImage.about(self.name, "a folder or a device, not a file", "not a picture")
        if status.st_size == 0:
            raise UnreadableImage.about(self.name, "the file is empty", "empty")
        return status


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """A picture in memory, from the caller of the library."""

    image: Image.Image
    name: str

    def read(self) -> Image.Image:
        """Convert to the upright RGB picture, by the rules of ``upright_rgb``.

        Raises:
            UnreadableImage: its colours cannot be converted, or its file turns out broken when it is loaded.
        """
        with _refusals(self.name), reserve(8 * self.image.width * self.image.height):
            return _rgb(_upright(self.image), _no_data(self.image))

    def digest(self) -> str:
        """Return the hex SHA-256 of size and RGB pixels."""
        picture = self.read()
        return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file in memory, from the caller of the library."""

    content: bytes
    name: str

    def read(self) -> Image.Image:
        """Decode the upright RGB picture.

        Raises:
            UnreadableImage: see ``upright_rgb``.
        """
        return upright_rgb(io.BytesIO(self.content), self.name)

    def digest(self) -> str:
        """Return the hex SHA-256 of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


def file_version(status: os.stat_result) -> tuple[int, ...]:
    """Return what differs between two files under one path, and for one file whenever it is written again."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_settled(status: os.stat_result) -> bool:
    """Whether a file was written so long ago that writing it again gives it another time, on any file system."""
    return time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) > 2_000_000_000


@functools.lru_cache(maxsize=1 << 18)
def _file_digest(path: Path, version: tuple[int, ...]) -> str:
    """Hash a file once as long as it is not written again."""
    return sha256(path)
