"""Which of many images can be read."""

import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from maotune.data.images.decode import ImageFile
from maotune.data.images.scan import scan_images
from maotune.data.sets.dataset import Sample, UnreadableImage
from tests.data.conftest import Paint


def bomb() -> bytes:
    """A PNG of a few bytes that claims 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(file, "PNG")
    return file.getvalue()


def broken(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and of what kind each is."""
    jpeg = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(jpeg, "JPEG")
    content = {
        "empty.jpg": (b"", "empty"),
        "page.jpg": (b"<html>404</html>", "not a picture"),
        "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        "cut.jpg": (jpeg.getvalue()[:900], "truncated"),
        "cut.png": (png((64, 64))[:2000], "truncated"),
        "bomb.png": (bomb(), "too large"),
        "flipped.png": (png((64, 64))[:60] + b"\xff" * 60 + png((64, 64))[120:], "broken"),
    }
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    kinds = {name: kind for name, (_, kind) in content.items()}
    return kinds | {"folder.jpg": "not a picture", "pipe.jpg": "not a picture", "gone.jpg": "missing"}


def test_bad_files_are_skipped_counted_listed_and_left_alone(tmp_path: Path, paint: Paint) -> None:
    kinds = broken(tmp_path)
    good = [paint("good/1.png"), paint("good/2.png")]
    paths = [good[0], *(tmp_path / name for name in kinds), good[1]]
    before = {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    seen: list[tuple[int, int]] = []
    kept, skipped = found = scan_images(
        [Sample(ImageFile(path), label) for label, path in enumerate(paths)], progress=lambda *done: seen.append(done)
    )
    assert [sample.label for sample in kept] == [0, len(paths) - 1]
    assert {Path(image.name).name: image.kind for image in skipped} == kinds
    assert all(image.reason.startswith(image.name) for image in skipped)
    assert seen == [(done, len(paths)) for done in range(1, len(paths) + 1)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    summary = found.summary(most=3)
    assert summary.startswith("10 of 12 images cannot be used: 1 broken, 1 empty, 1 missing, 4 not a picture")
    assert summary.endswith("and 7 more")


def test_strict_makes_a_bad_file_fatal(tmp_path: Path, paint: Paint) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no")
    samples = [Sample(ImageFile(paint("a.png")), 0), Sample(ImageFile(tmp_path / "bad.jpg"), 0)]
    with pytest.raises(UnreadableImage, match=r"1 of 2 images cannot be used: 1 not a picture\n.*bad\.jpg"):
        scan_images(samples, strict=True)
    assert scan_images(samples[:1], strict=True).summary() == "all 1 images can be read"
