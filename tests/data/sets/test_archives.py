"""Archives from elsewhere: what is wanted comes out, and nothing that an attacker put in."""

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from maotune.data.sets.archives import ArchiveError, Limits, unpack


def tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    quick = {} if mode in ("w", "w:xz") else {"compresslevel": 1}
    with tarfile.open(path, mode, **quick) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def special(path: Path, **attributes: object) -> Path:
    """A tar with a good file, then a member of another kind, then a file that would go through it."""
    with tarfile.open(path, "w") as file:
        good = tarfile.TarInfo("images/a.jpg")
        good.size = 3
        file.addfile(good, io.BytesIO(b"abc"))
        member = tarfile.TarInfo("images/x")
        for name, value in attributes.items():
            setattr(member, name, value)
        file.addfile(member)
        through = tarfile.TarInfo("images/x/evil")
        through.size = 4
        file.addfile(through, io.BytesIO(b"evil"))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = {"top/images/a/1.jpg": b"one", "./top/images/b/2.jpg": b"two", "top/list.txt": b"list", "other.txt": b"no"}
JUNK = {"top/images/._1.jpg": b"finder", "__MACOSX/top/images/1.jpg": b"finder"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_what_is_wanted_comes_out_of_any_kind_whatever_its_name(tmp_path: Path, target: Path, mode: str) -> None:
    path = tmp_path / "archive"
    archive = zipped(path, GOOD | JUNK) if mode == "zip" else tar(path, GOOD | JUNK, mode)
    heard: list[tuple[int, int]] = []
    unpack(archive, target, {"top/images": "0", "top/list.txt": "1"}, progress=lambda *at: heard.append(at))
    assert tree(target) == {"0/a/1.jpg": b"one", "0/b/2.jpg": b"two", "1": b"list"}
    assert heard == sorted(heard)
    assert {total for _, total in heard} == {archive.stat().st_size}


def test_all_of_an_archive(tmp_path: Path, target: Path) -> None:
    unpack(tar(tmp_path / "a.tar", {"n1.JPEG": b"1", "d/n2.JPEG": b"2"}), target, {".": "val"})
    assert tree(target) == {"val/n1.JPEG": b"1", "val/d/n2.JPEG": b"2"}


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize(
    "name",
    ["../evil", "images/../../evil", "/etc/evil", "//evil", "images/..", "C:/evil", "c:evil", "images\\..\\evil"],
)
def test_no_member_leaves_the_target(
    tmp_path: Path, target: Path, name: str, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = make(tmp_path / "bad", {"images/a.jpg": b"good", name: b"evil"})
    with pytest.raises(ArchiveError, match="would leave the folder"):
        unpack(archive, target, {".": "0"})
    assert not list(tmp_path.rglob("*evil*"))
    if make is zipped:
        assert not tree(target), "all names are looked at before anything is written"


@pytest.mark.parametrize("unwanted", ["../evil", "/evil"])
def test_a_member_that_is_not_wanted_is_judged_too(tmp_path: Path, target: Path, unwanted: str) -> None:
    with pytest.raises(ArchiveError, match="would leave"):
        unpack(tar(tmp_path / "bad.tar", {unwanted: b"evil", "images/a.jpg": b"good"}), target, {"images": "0"})


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc"},
        {"type": tarfile.SYMTYPE, "linkname": "../.."},
        {"type": tarfile.SYMTYPE, "linkname": "a.jpg"},
        {"type": tarfile.LNKTYPE, "linkname": "../../secret"},
        {"type": tarfile.LNKTYPE, "linkname": "images/a.jpg"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE, "devmajor": 8},
        {"type": tarfile.FIFOTYPE},
    ],
    ids=lambda attributes: attributes["type"].decode() + attributes.get("linkname", ""),
)
def test_links_and_devices_are_refused(tmp_path: Path, target: Path, attributes: dict[str, object]) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ArchiveError, match=r"member 'images/x' is (a link|no plain file): not unpacked"):
        unpack(special(tmp_path / "bad.tar", **attributes), target, {"images": "images"})
    assert tree(target) == {"images/a.jpg": b"abc"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_link_in_a_zip_is_refused(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images/a.jpg", b"abc")
        link = zipfile.ZipInfo("images/x")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc")
    with pytest.raises(ArchiveError, match="'images/x' is no plain file"):
        unpack(archive, target, {"images": "0"})
    assert not tree(target)


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("images/x")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "images/x",
            "GNU.sparse.realsize": str(10**12),
        }
        content = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    with pytest.raises(ArchiveError, match=r"unpacks to more than|no plain file"):
        unpack(archive, target, {"images": "0"})
    assert not tree(target)


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb_does_not_go_off(tmp_path: Path, target: Path, make: Callable[[Path, dict[str, bytes]], Path]) -> None:
    zeros = bytes(10**7)
    archive = make(tmp_path / "bomb", {f"images/{number}.jpg": zeros for number in range(4)})
    assert archive.stat().st_size < 200_000
    with pytest.raises(ArchiveError, match="unpacks to more than 100 times its size"):
        unpack(archive, target, {"images": "0"})
    assert sum(map(len, tree(target).values())) < 4 * 10**7


def test_a_bomb_among_what_is_not_wanted_does_not_go_off_either(tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "bomb", {"elsewhere": bytes(4 * 10**7)})
    with pytest.raises(ArchiveError, match="unpacks to more than 100 times its size"):
        unpack(archive, target, {"images": "0"})


@pytest.mark.parametrize("make", [tar, zipped])
def test_members_and_bytes_are_counted(
    tmp_path: Path, target: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = make(tmp_path / "many", {f"images/{number}.jpg": os.urandom(100) for number in range(20)})
    with pytest.raises(ArchiveError, match="holds more than 19 files"):
        unpack(archive, target, {"images": "0"}, Limits(members=19))
    with pytest.raises(ArchiveError, match="unpacks to more than 0 GB"):
        unpack(archive, target, {"images": "0"}, Limits(bytes=1999))
    unpack(archive, target, {"images": "1"}, Limits(members=20, bytes=2000))
    assert len(tree(target / "1")) == 20


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "zip"])
def test_a_download_that_was_cut_off_is_told(tmp_path: Path, target: Path, mode: str) -> None:
    members = {f"images/{number}.jpg": os.urandom(5000) for number in range(5)}
    path = tmp_path / "cut"
    archive = zipped(path, members) if mode == "zip" else tar(path, members, mode)
    whole = archive.read_bytes()
    ends = {"w": 0, "w:gz": 1, "w:xz": 1, "zip": 1}[mode]
    for length in (12_000, 5632 + 100, len(whole) - ends):
        archive.write_bytes(whole[:length])
        if length < len(whole):
            with pytest.raises(ArchiveError, match="get it again"):
                unpack(archive, target, {"images": "0"})


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "a.tar", {"images/a.jpg": b"a", "images/b.jpg": b"b"}, "w")
    content = bytearray(archive.read_bytes())
    content[1024:1124] = b"\xff" * 100
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged at byte 1024.*get it again"):
        unpack(archive, target, {"images": "0"})


def test_what_is_no_archive_is_told(tmp_path: Path, target: Path) -> None:
    page = tmp_path / "images.tar.gz"
    page.write_text("<html>quota exceeded</html>")
    with pytest.raises(ArchiveError, match="cut off or no archive"):
        unpack(page, target, {"images": "0"})
    with pytest.raises(ArchiveError, match="does not hold images: is it another archive"):
        unpack(tar(tmp_path / "other.tgz", {"documents/a.txt": b"a"}), target, {"images": "0"})
    with pytest.raises(FileNotFoundError, match="no such file"):
        unpack(tmp_path / "gone.tgz", target, {"images": "0"})


def test_a_damaged_zip_member_is_found(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"images/a.jpg": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    content[2000:2010] = bytes(10)
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="get it again"):
        unpack(archive, target, {"images": "0"})


@pytest.mark.parametrize("mode", ["w", "w:gz", "zip"])
def test_damage_anywhere_is_told_or_does_no_harm(tmp_path: Path, mode: str) -> None:
    members = {f"images/{name}.jpg": name.encode() * 20 for name in ("a", "é", "x" * 150)}
    path = tmp_path / "archive"
    whole = (zipped(path, members) if mode == "zip" else tar(path, members, mode)).read_bytes()
    damage = random.Random(mode)
    told = 0
    for number in range(150):
        content = bytearray(whole)
        for _ in range(damage.choice([1, 3, 30])):
            content[damage.randrange(len(content))] = damage.randrange(256)
        path.write_bytes(content)
        target = tmp_path / "targets" / str(number)
        target.mkdir(parents=True)
        try:
            unpack(path, target, {"images": "0"})
        except ArchiveError:
            told += 1
        assert all(name.startswith("0") for name in tree(target))
    assert told > 50
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["archive", "targets"]
