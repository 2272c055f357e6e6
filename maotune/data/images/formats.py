"""Formats of pictures: which can be read here, how they are recognised, and what helps where one cannot be read."""

import contextlib
import importlib
from pathlib import PurePath
from typing import NamedTuple

from PIL import Image

with contextlib.suppress(ModuleNotFoundError):  # the extra maotune[heif]
    importlib.import_module("pillow_heif").register_heif_opener()
Image.init()

_TRUSTED = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "ICO", "ICNS", "DIB", "DDS"),
    *("PCX", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM"),
)
"""Never formats that run other programs (EPS), or that need a library of their own (GRIB, HDF5, WMF)."""
_BY_ENDING = ("TGA",)
"""Formats that no first bytes distinguish: only a file of this ending is tried as one."""

FORMATS = tuple(name for name in _TRUSTED if name in Image.OPEN)
"""What Pillow may decode, recognised by the first bytes of a file, whatever its ending."""

SUFFIXES = frozenset(
    ending for ending, name in Image.registered_extensions().items() if name in (*FORMATS, *_BY_ENDING, "MPO")
)
"""File name endings (lower case) of pictures that can be read here."""

READABLE = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and others that Pillow reads"
"""These formats, for messages."""

_HEIF = ("a HEIC picture, which needs an extra package", 'pip install "maotune[heif]"')
_CONVERT = "export it as JPEG, PNG or TIFF"
_ENDINGS = {
    "HEIC": ("format not supported", _HEIF, ".heic .heics .heif .heifs .hif .avci"),
    "AVIF": ("format not supported", ("an AVIF picture", _CONVERT), ".avif .avifs"),
    "raw": (
        "format not supported",
        ("a raw picture of a camera", _CONVERT),
        ".3fr .arw .cr2 .cr3 .crw .dng .erf .kdc .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 .srf .srw .x3f",
    ),
    "other": (
        "format not supported",
        ("a picture of a format that is not read", _CONVERT),
        ".ai .cdr .dcm .dicom .djvu .emf .eps .exr .fit .fits .hdr .jxl .jxr .pcd .pdf .psb .svg .svgz .wmf .xcf",
    ),
    "video": (
        "video",
        ("a video", "extract its frames"),
        ".3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv",
    ),
    "archive": ("archive", ("an archive", "unpack it"), ".7z .bz2 .gz .rar .tar .tgz .xz .zip .zst"),
}
_BY_SUFFIX = {
    suffix: (kind, what, remedy)
    for kind, (what, remedy), suffixes in _ENDINGS.values()
    for suffix in suffixes.split()
    if suffix not in SUFFIXES
}
UNREADABLE_SUFFIXES = frozenset(suffix for suffix, (kind, *_) in _BY_SUFFIX.items() if kind == "format not supported")
"""Endings (lower case) of pictures that cannot be read here."""

_FIRST_BYTES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG2000"),
    (b"qoif", "QOI"),
    (b"8BPS\0\1", "PSD"),
)
_DOCUMENTS = frozenset(
    (
        *(".doc", ".docx", ".odt", ".xls", ".xlsx", ".rtf", ".db", ".sqlite", ".parquet", ".pkl", ".mat", ".h5"),
        *(".pt", ".pth", ".safetensors", ".onnx", ".mp3", ".wav"),
    )
)
"""Endings (lower case) of files that hold no picture and are no text."""
HEAD = 32
"""Number of first bytes by which a picture is recognised."""


class Unsupported(NamedTuple):
    """A file that is no picture of a format that can be read."""

    kind: str
    """``format not supported``, ``video``, ``archive``, ``document``, ``not a picture``."""
    reason: str
    """What it is, and what helps."""


def recognise(head: bytes) -> str | None:
    """Return the format of the picture that begins with ``head`` (``HEAD`` bytes); None: no picture as it seems."""
    for first, name in _FIRST_BYTES:
        if head.startswith(first):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}:
            return "HEIF"
    return None


def why_unreadable(name: str, head: bytes) -> Unsupported | None:
    """Return why the file ``name`` that begins with ``head`` is not read; None: it can be tried."""
    suffix = PurePath(name).suffix.lower()
    content = recognise(head)
    if content in FORMATS and (suffix not in _BY_SUFFIX or content != "TIFF"):  # raw pictures begin as TIFF does
        return None
    if content == "HEIF" and content not in FORMATS:
        suffix = ".heic"
    if suffix in _BY_SUFFIX:
        kind, what, remedy = _BY_SUFFIX[suffix]
        return Unsupported(kind, f"{what}: {remedy}")
    if suffix in SUFFIXES:
        return None
    is_document = suffix in _DOCUMENTS or _is_text(head)
    return Unsupported("document", "a text or document") if is_document else Unsupported("not a picture", "no picture")


def _is_text(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a text: it has no control characters, or a mark of UTF-16."""
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or all(byte > 31 or byte in b"\t\n\f\r\x1b" for byte in head)


def formats_of(name: str) -> tuple[str, ...]:
    """Return the formats to try for a file of this name."""
    own = Image.registered_extensions().get(PurePath(name).suffix.lower())
    return (*FORMATS, own) if own in _BY_ENDING else FORMATS
