"""Tar shards: pictures are read where they lie, and what is broken in them is found."""

import io
import os
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from maotune.data.images.decode import ImageFile
from maotune.data.images.scan import scan_images
from maotune.data.images.shards import read_shard
from maotune.data.sets.dataset import ImageRef, Sample, UnreadableImage
from maotune.data.sets.folders import read_unlabelled


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (12, 9), random.Random(name).randbytes(3 * 12 * 9)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, names: Sequence[str], **others: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in [*((name, picture(name)) for name in names), *others.items()]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def names(images: Sequence[ImageRef]) -> list[str]:
    return [Path(image.name).name for image in images]


def test_pictures_of_a_shard_are_those_of_the_files(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", ["b/2.png", "a.png", "10.png"], **{"a.json": b"{}", "a.cls": b"3"})
    images = read_shard(path)
    assert [image.name for image in images] == [f"{path}/{name}" for name in ("10.png", "a.png", "b/2.png")]
    for image, name in zip(images, ("10.png", "a.png", "b/2.png"), strict=True):
        file = tmp_path / "outside.png"
        file.write_bytes(picture(name))
        assert image.digest() == ImageFile(file).digest(), "features of a picture are shared with its file"
        assert image.read().tobytes() == ImageFile(file).read().tobytes()
        file.unlink()


def test_digest_of_a_picture_in_an_archive_that_is_written_again(tmp_path: Path) -> None:
    path, digests = tmp_path / "pool.tar", []
    for colour in ("red", "blue"):
        Image.new("RGB", (4, 4), colour).save(tmp_path / "a.bmp")
        with tarfile.open(path, "w") as shard:
            shard.add(tmp_path / "a.bmp", "a.bmp")
        os.utime(path, ns=(10**18, 10**18))
        (image,) = read_shard(path)
        digests.append(image.digest())
    assert digests[0] != digests[1]


def test_the_order_of_files_and_members_does_not_matter(tmp_path: Path) -> None:
    members = [f"{number}.png" for number in range(12)]
    listed = []
    for trial in range(4):
        shuffled = random.Random(trial)
        heap = tmp_path / str(trial)
        parts = [("s/1.tar", members[:5]), ("s/0.tar", members[5:9]), ("z.tar", members[9:11])]
        for name, of_shard in shuffled.sample(parts, len(parts)):
            shard(heap / name, shuffled.sample(of_shard, len(of_shard)))
        (heap / members[11]).write_bytes(picture(members[11]))
        found = read_unlabelled(heap).unlabelled
        assert {sample.label for sample in found} == {-1}
        listed.append([sample.image.name.removeprefix(str(heap)) for sample in found])
    assert listed[0][0] == "/11.png"
    assert listed[0][1:5] == ["/s/0.tar/5.png", "/s/0.tar/6.png", "/s/0.tar/7.png", "/s/0.tar/8.png"]
    assert all(other == listed[0] for other in listed)


def test_one_shard_several_by_a_pattern_or_a_folder(tmp_path: Path) -> None:
    shard(tmp_path / "a-0.tar", ["0.png"])
    shard(tmp_path / "a-1.tar", ["1.png"])
    shard(tmp_path / "more" / "b.tar", ["2.png"])
    assert names([s.image for s in read_unlabelled(tmp_path / "a-0.tar").unlabelled]) == ["0.png"]
    assert names([s.image for s in read_unlabelled(tmp_path / "a-*.tar").unlabelled]) == ["0.png", "1.png"]
    assert names([s.image for s in read_unlabelled(tmp_path / "**" / "*.tar").unlabelled]) == [
        "0.png",
        "1.png",
        "2.png",
    ]
    assert names([s.image for s in read_unlabelled(tmp_path).unlabelled]) == ["0.png", "1.png", "2.png"]
    with pytest.raises(ValueError, match="holds no images"):
        read_unlabelled(tmp_path / "c-*.tar")
    with pytest.raises(NotADirectoryError, match=r"neither a folder nor a .tar file"):
        read_unlabelled(tmp_path / "c")
    for compressed in ("c.tar.gz", "c.tgz"):
        (tmp_path / compressed).touch()
        with pytest.raises(ValueError, match=r"is compressed; only a \.tar file can be read in place"):
            read_unlabelled(tmp_path / compressed)


def test_broken_members_are_unreadable_pictures(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "0.tar", ["a.png", "b.png"], **{"c.png": b"<html>404", "d.png": b"", "e.png": picture("e")[:90]}
    )
    kept, skipped = scan_images([Sample(image, -1) for image in read_shard(path)])
    assert names([sample.image for sample in kept]) == ["a.png", "b.png"]
    assert [(Path(s.name).name, s.kind) for s in skipped] == [
        ("c.png", "not a picture"),
        ("d.png", "empty"),
        ("e.png", "truncated"),
    ]


def test_a_shard_that_is_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", ["a.png", "b.png", "c.png"])
    with tarfile.open(path) as file:
        middle = file.getmembers()[1].offset_data
    path.write_bytes(path.read_bytes()[: middle + 60])
    kept, skipped = scan_images([Sample(image, -1) for image in read_shard(path)])
    assert names([sample.image for sample in kept]) == ["a.png"]
    assert [s.name for s in skipped] == [f"{path}/b.png", str(path)]
    assert all("cut off" in s.reason for s in skipped)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", ["a.png", "b.png", "c.png"])
    with tarfile.open(path) as file:
        header = file.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[header : header + 100] = b"\xff" * 100
    path.write_bytes(content)
    *whole, lost = read_shard(path)
    assert names(whole) == ["a.png"]
    with pytest.raises(UnreadableImage, match=f"what follows is not read .damaged at byte {header}"):
        lost.read()
    with pytest.raises(UnreadableImage):
        lost.digest()


def test_a_size_below_nothing_does_not_send_the_reader_round_in_circles(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    (lost,) = read_shard(path)
    assert isinstance(lost, ImageRef)
    with pytest.raises(UnreadableImage, match="negative size"):
        lost.read()


@pytest.mark.parametrize("content", [b"", b"no tar", b"\x1f\x8b compressed"], ids=["empty", "text", "gzip"])
def test_what_is_no_shard_is_listed_as_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(content)
    kept, skipped = scan_images(read_unlabelled(path).unlabelled)
    assert not kept
    assert "no tar archive that can be read in place" in skipped[0].reason


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as file:
        for content in (b"old", picture("new")):
            info = tarfile.TarInfo("a.png")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    assert [image.read().size for image in read_shard(path)] == [(12, 9)]


def test_a_shard_that_vanishes_is_told(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", ["a.png"])
    (image,) = read_shard(path)
    path.unlink()
    for use in (image.read, image.digest):
        with pytest.raises(UnreadableImage, match="the archive cannot be read"):
            use()


def test_a_picture_of_a_format_that_is_not_read_is_listed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in {"1.png": picture("1.png"), "2.cr2": b"II*\0raw", "2.json": b"{}"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    kept, skipped = scan_images(read_unlabelled(tmp_path / "a.tar").unlabelled)
    assert len(kept) == 1
    assert [(Path(item.name).name, item.kind) for item in skipped] == [("2.cr2", "format not supported")]
