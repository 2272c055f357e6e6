"""Reading pictures of every kind, and refusing what is none."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maotune.data.images.decode import MAX_PIXELS, ImageFile, MemoryImage
from maotune.data.images.scan import scan
from maotune.data.sets.dataset import ImageRef, Sample, UnreadableImage
from tests.data.conftest import Paint

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def colours(path: Path) -> np.ndarray:
    picture = ImageFile(path).read()
    assert picture.mode == "RGB"
    return np.asarray(picture)


def halves() -> Image.Image:
    """Red above, green below."""
    image = Image.new("RGB", (16, 32), RED)
    image.paste(GREEN, (0, 16, 16, 32))
    return image


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    halves().save(path)
    pixels = colours(path).astype(int)
    assert abs(pixels[4, 8] - RED).max() < 12
    assert abs(pixels[28, 8] - GREEN).max() < 12


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    halves().save(path, "PNG")
    assert (colours(path) == np.asarray(halves())).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """A camera that is held otherwise stores other pixels and says so; the upright picture is the same."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = halves() if undo is None else halves().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert (colours(tmp_path / "a.png") == np.asarray(halves())).all()


def test_cmyk(tmp_path: Path) -> None:
    halves().convert("CMYK").save(tmp_path / "a.jpg")
    assert abs(colours(tmp_path / "a.jpg")[4, 8].astype(int) - RED).max() < 12


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "RGB"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, *RED])
        image.paste(0, (0, 0, 4, 8))
        image.save(path, transparency=0)
    elif mode == "RGB":
        image = Image.new("RGB", (8, 8), RED)
        image.paste((1, 2, 3), (0, 0, 4, 8))
        image.save(path, transparency=(1, 2, 3))
    else:
        image = Image.new("RGBA", (8, 8), (*RED, 255))
        image.paste((9, 9, 9, 0), (0, 0, 4, 8))
        image.convert(mode).save(path)
    pixels = colours(path)
    assert tuple(pixels[0, 0]) == WHITE
    assert tuple(pixels[0, 7]) == ((76, 76, 76) if mode == "LA" else RED)


def test_half_transparent_mixes_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "a.png")
    assert tuple(colours(tmp_path / "a.png")[0, 0]) == (204, 204, 204)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert colours(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([-10, 0, 10], [0, 128, 255]),
        ([3, 3, 3], [0, 0, 0]),
        ([0, np.nan, 1], [0, 0, 255]),
    ],
)
def test_floating_point_grey(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    assert colours(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_thirty_two_bit_grey_is_stretched(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 500_000, 1_000_000]], np.int32)).save(tmp_path / "a.tif")
    assert colours(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (colours(tmp_path / f"a.{suffix}") == RED).all()


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
    kept, skipped = found = scan(
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
        scan(samples, strict=True)
    assert scan(samples[:1], strict=True).summary() == "all 1 images can be read"


def test_the_limit_of_pixels_is_a_limit(tmp_path: Path) -> None:
    Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(tmp_path / "large.png")
    with pytest.raises(UnreadableImage, match="more than 89 million pixels"):
        ImageFile(tmp_path / "large.png").read()


def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert (colours(tmp_path / "a.png") == np.asarray(halves())).all()


def test_digest_follows_the_content(tmp_path: Path, paint: Paint) -> None:
    first, second = paint("a.png"), paint("b.png")
    digest = ImageFile(first).digest()
    assert digest != ImageFile(second).digest()
    second.write_bytes(first.read_bytes())
    assert ImageFile(second).digest() == digest
    with pytest.raises(UnreadableImage, match="no such file"):
        ImageFile(tmp_path / "gone.png").digest()


def test_pictures_in_memory(paint: Paint) -> None:
    path = paint("a.png")
    with Image.open(path) as image:
        image.load()
    ref = MemoryImage(image, "mine")
    assert isinstance(ref, ImageRef)
    assert isinstance(ImageFile(path), ImageRef)
    assert ref.read().tobytes() == ImageFile(path).read().tobytes()
    assert ref.digest() == MemoryImage(image.copy(), "other").digest()
    assert ref.digest() != MemoryImage(image.rotate(180), "mine").digest()
