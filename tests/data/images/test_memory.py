"""Memory of decoding: no picture and no number of threads takes more than 1 GiB."""

import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack

import pytest
from PIL import Image

from maotune.data.images.decode import MAX_BYTES, ImageFile
from maotune.data.images.memory import LIMIT, decoding_job, reserve
from maotune.data.images.threads import map_in_threads
from maotune.data.sets.dataset import UnreadableImage

SIDE = 9459
"""Of the largest square that is not refused."""

MEASURE = """
import resource, sys
from pathlib import Path
from maotune.data.images.decode import ImageFile
from maotune.data.images.scan import scan_images
from maotune.data.sets.dataset import Sample
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = scan_images([Sample(ImageFile(Path(path)), 0) for path in sys.argv[1:]])
print(len(found.skipped), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def peak(*paths: Path) -> int:
    """MiB that a scan of these pictures takes in a process of its own, on all of its threads."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True
    )
    skipped, mebibytes = map(int, ended.stdout.split())
    assert not skipped
    return mebibytes


def png(path: Path, bits: int, colour: int, height: int = SIDE) -> Path:
    """Zeros of 9459 x ``height`` pixels; ``bits`` and ``colour`` (0 grey, 2 RGB, 6 RGBA) as PNG's header has them."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(1)
    row = bytes(1 + SIDE * samples * bits // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = ((b"IHDR", pack(">IIBBBBB", SIDE, height, bits, colour, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    body = b"".join(pack(">I", len(d)) + kind + d + pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_large_picture_of_sixteen_bits_takes_less_than_a_gibibyte(tmp_path: Path) -> None:
    assert peak(png(tmp_path / "a.png", bits=16, colour=0)) < 1024


@pytest.mark.slow
def test_many_large_pictures_together_take_less_than_a_gibibyte(tmp_path: Path) -> None:
    paths = [png(tmp_path / "grey16.png", 16, 0), png(tmp_path / "rgba.png", 8, 6)]
    paths.append(png(tmp_path / "rgb16.png", 16, 2, height=8000))  # read twice, once for each byte of a value
    for name, mode, options in (
        ("grey.tif", "F", {"compression": "tiff_adobe_deflate"}),
        ("progressive.jpg", "RGB", {"progressive": True, "subsampling": 0}),
        ("cmyk.jpg", "CMYK", {}),
    ):
        Image.new(mode, (SIDE, SIDE)).save(tmp_path / name, **options)
        paths.append(tmp_path / name)
    Image.new("RGBA", (7000, 7000), (9, 9, 9, 100)).save(tmp_path / "a.webp", lossless=True)
    assert peak(*paths, tmp_path / "a.webp", *paths) < 1024


def test_what_needs_more_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "wide.webp")
    with pytest.raises(UnreadableImage, match=r"wide\.webp: more than 59 million pixels; make a smaller copy"):
        ImageFile(tmp_path / "wide.webp").read()
    with (tmp_path / "long.webp").open("wb") as file:  # no bytes on disk
        file.write(b"RIFF\0\0\0\0WEBPVP8X" + bytes(16))
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UnreadableImage, match=r"long\.webp: more than 64 MiB, too many for this format"):
        ImageFile(tmp_path / "long.webp").read()


def test_threads_take_turns_and_never_wait_for_each_other() -> None:
    """Jobs hold what they reserve until their ends; a job that needs more gets it at once."""
    counter, held, most = threading.Lock(), 0, 0

    def use(size: int) -> None:
        nonlocal held, most
        with decoding_job():
            with reserve(size):
                pass
            with counter:
                held += size
                most = max(most, held)
            with reserve(LIMIT):  # a second picture of the same job
                pass
            with counter:
                held -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [LIMIT // 3, LIMIT // 2, LIMIT, 1] * 50))
        assert most == LIMIT
        assert held == 0
        list(pool.map(use, [5 * LIMIT, LIMIT] * 20))  # alone, also where it is more than all
    assert len(list(map_in_threads(use, [LIMIT] * 9))) == 9
