"""Reading pictures of every kind, and refusing what is none."""

import hashlib
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maotune.data.images import decode
from maotune.data.images.decode import MAX_PIXELS, ImageFile, MemoryImage
from maotune.data.images.formats import SUFFIXES
from maotune.data.sets.dataset import ImageRef, UnreadableImage
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


ENDINGS = [
    *("avif", "bmp", "dds", "dib", "gif", "icns", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
    *("pcx", "png", "apng", "ppm", "qoi", "sgi", "tga", "tif", "tiff", "webp"),
]


@pytest.mark.parametrize("suffix", ENDINGS)
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if f".{suffix}" not in SUFFIXES:
        pytest.skip("Pillow was built without it")
    halves().resize((32, 32)).save(path)
    pixels = colours(path).astype(int)
    assert abs(pixels[len(pixels) // 8, 8] - RED).max() < 12  # an icon may be enlarged
    assert abs(pixels[-len(pixels) // 8, 8] - GREEN).max() < 12


def test_formats_that_run_programs_or_that_only_an_ending_tells_are_not_tried(tmp_path: Path) -> None:
    assert not SUFFIXES & {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5"}
    halves().save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match="no picture in a format that can be read") as refused:
        ImageFile(tmp_path / "a.jpg").read()
    assert refused.value.kind == "not a picture"


@pytest.mark.skipif(".heic" in SUFFIXES, reason="pillow-heif is installed")
@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg", "a"])
def test_a_heic_picture_is_refused_with_what_helps(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(UnreadableImage, match=r'HEIC picture.*pip install "maotune\[heif\]"') as refused:
        ImageFile(tmp_path / name).read()
    assert refused.value.kind == "format not supported"


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


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_camera_of_fewer_bits_is_not_black(tmp_path: Path, bits: int, suffix: str) -> None:
    """Many cameras store 12 bits in the lower part of 16."""
    most = 2**bits - 1
    Image.fromarray(np.array([[0, most // 2, most]], np.uint16)).save(tmp_path / f"a.{suffix}")
    assert colours(tmp_path / f"a.{suffix}")[0, :, 0].tolist() == [0, 127, 255]


def deep_png(values: np.ndarray) -> bytes:
    """A colour PNG of 16 bits, which Pillow does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_tiff(values: np.ndarray, order: str) -> bytes:
    """A colour TIFF of 16 bits, which Pillow does not write."""
    height, width, channels = values.shape
    content = values.astype(f"{order}u2").tobytes()
    bits = 8 + 2 + 12 * 9 + 4
    short = [(256, width), (257, height), (259, 1), (262, 2), (277, channels), (278, height)]
    entries = [(tag, 3, 1, struct.pack(f"{order}HH", value, 0)) for tag, value in short]
    long = [(258, 3, channels, bits), (273, 4, 1, bits + 2 * channels), (279, 4, 1, len(content))]
    entries += [(tag, kind, count, struct.pack(f"{order}I", value)) for tag, kind, count, value in long]
    ifd = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(entries))
    return head + ifd + bytes(4) + struct.pack(f"{order}{channels}H", *[16] * channels) + content


@pytest.mark.parametrize("kind", ["png", "tif <", "tif >"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_of_fewer_bits_are_not_black(tmp_path: Path, bits: int, kind: str) -> None:
    most = 2**bits - 1
    values = np.array([[[0, most // 2, most], [most, most // 4, 0]]])
    path = tmp_path / f"a.{kind[:3]}"
    path.write_bytes(deep_png(values) if kind == "png" else deep_tiff(values, kind[-1]))
    assert np.abs(colours(path).astype(int) - [[[0, 127, 255], [255, 63, 0]]]).max() <= 1


def test_transparency_of_fewer_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep_png(np.array([[[4095, 0, 0, 4095], [0, 0, 0, 0]]])))
    assert colours(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("others", [255, 1023, 4095, 16383])
def test_saturated_pixels_darken_no_picture(tmp_path: Path, others: int) -> None:
    Image.fromarray(np.array([[0, others, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert colours(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("no_data", [-999.0, -9999.0, -3.4028235e38, 1e37, np.nan, np.inf, -32768.0])
def test_pixels_without_data_do_not_count(tmp_path: Path, no_data: float) -> None:
    Image.fromarray(np.array([[280, 290, 300, no_data]], np.float32)).save(tmp_path / "a.tif")
    assert colours(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255, 0]


def test_a_tag_names_the_value_of_pixels_without_data(tmp_path: Path) -> None:
    values = np.array([[0, 2047, 4095, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={42113: "65535"})
    assert colours(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 127, 255, 0]
    Image.fromarray(np.full((2, 2), -9999, np.float32)).save(tmp_path / "empty.tif")
    assert colours(tmp_path / "empty.tif").max() == 0


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


def test_the_limit_of_pixels_is_a_limit(tmp_path: Path) -> None:
    Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)).save(tmp_path / "large.png")
    with pytest.raises(UnreadableImage, match="more than 89 million pixels"):
        ImageFile(tmp_path / "large.png").read()


def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert (colours(tmp_path / "a.png") == np.asarray(halves())).all()


def rewrite(path: Path, content: bytes) -> None:
    """Write in place, with the old modification time; the time of the change is another, however coarse the clock."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("later", [0, 10**10], ids=["just written", "written long ago"])
def test_digest_of_a_file_that_is_written_again(later: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + later)
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    assert ImageFile(path).digest() == hashlib.sha256(b"first").hexdigest()
    rewrite(path, b"again")
    assert ImageFile(path).digest() == hashlib.sha256(b"again").hexdigest()
    other = tmp_path / "other"
    other.write_bytes(b"third")
    os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert ImageFile(path).digest() == hashlib.sha256(b"third").hexdigest()


def test_digest_of_a_relative_path_after_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.png").write_text(place)
        os.utime(tmp_path / place / "a.png", ns=(10**18, 10**18))
        monkeypatch.chdir(tmp_path / place)
        assert ImageFile(Path("a.png")).digest() == hashlib.sha256(place.encode()).hexdigest()


def test_digest_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)
    digest = ImageFile(tmp_path / "a.png").digest()
    monkeypatch.delattr(decode, "sha256")
    assert ImageFile(tmp_path / "a.png").digest() == digest


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
