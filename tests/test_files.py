"""Atomic writes, locks and checksums."""

import errno
import hashlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from maotune.files import (
    CHECKSUM,
    DamagedFile,
    LockTaken,
    is_locked,
    lock,
    open_atomic,
    open_regular,
    read_byte_rows,
    read_json,
    read_tensors,
    remove_leftovers,
    sha256,
    write_atomic,
    write_json,
    write_tensors,
)

LAW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_text_and_bytes_are_written_as_they_are_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, "été\r\n1\n")
    assert path.read_bytes() == b"\xc3\xa9t\xc3\xa9\r\n1\n"
    assert sha256(path) == hashlib.sha256(b"\xc3\xa9t\xc3\xa9\r\n1\n").hexdigest()
    write_atomic(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    assert list(path.parent.iterdir()) == [path]


def test_a_library_can_write_into_the_open_file(tmp_path: Path) -> None:
    with open_atomic(tmp_path / "table.npy") as file:
        np.save(file, np.arange(3))
    assert np.load(tmp_path / "table.npy").tolist() == [0, 1, 2]


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def interrupted() -> None:
        with open_atomic(path) as file:
            file.write(b"half of the n")
            file.flush()
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomic(tmp_path / "folder", "a folder is in the way")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "folder"]


def test_a_file_gets_the_permissions_that_the_user_asks_of_new_files(tmp_path: Path) -> None:
    write_atomic(tmp_path / "atomic", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def holder(path: Path, has: Event, ever: Event) -> None:
    with lock(path, 0):
        has.set()
        ever.wait()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path, context = tmp_path / "lock", get_context("fork")
    has, ever = context.Event(), context.Event()
    assert not is_locked(path), "there is no file yet"
    process = context.Process(target=holder, args=(path, has, ever))
    process.start()
    assert has.wait(600)
    assert is_locked(path)
    said = f"is in use by another process ({process.pid} on {socket.gethostname()})"
    try:
        with pytest.raises(LockTaken, match=re.escape(said)), lock(path, 0.1):
            pass
    finally:
        process.kill()
    process.join()
    assert not is_locked(path)
    with lock(path, 0):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_that_is_freed_within_the_patience_is_taken(tmp_path: Path) -> None:
    path, context = tmp_path / "lock", get_context("fork")
    has, ever = context.Event(), context.Event()
    process = context.Process(target=holder, args=(path, has, ever))
    process.start()
    assert has.wait(600)
    ever.set()
    with lock(path, 600):
        assert is_locked(path)
    process.join()


def test_a_look_at_a_lock_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert list(tmp_path.iterdir()) == []
    path.touch(0o444)
    tmp_path.chmod(0o555)
    before = path.stat().st_mtime_ns
    assert not is_locked(path)
    assert (path.stat().st_mtime_ns, list(tmp_path.iterdir())) == (before, [path])
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("module", ["maotune.files", "maotune.report.build", "maotune.sweep.manifest"])
def test_reports_need_no_fcntl(module: str) -> None:
    """Windows has none."""
    code = f"import sys; sys.modules['fcntl'] = None; import {module}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_until_full(path: Path, limit: int) -> None:
    """In a process of its own: a file can have ``limit`` bytes, as if the disk were full then."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write_atomic(path, b"x" * 1_000_000)


@pytest.mark.parametrize("limit", [0, 1, 5000, 999_999])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, limit: int) -> None:
    write_atomic(tmp_path / "file", "old")
    process = get_context("fork").Process(target=write_until_full, args=(tmp_path / "file", limit))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_leftovers_are_deleted_by_their_age_and_nothing_else_is(tmp_path: Path) -> None:
    old, new = (tmp_path / f".result.json.{digit * 16}.tmp" for digit in "0a")
    others = [tmp_path / name for name in ("result.json", ".result.json.tmp", "notes.0000000000000000.tmp")]
    for path in (old, new, *others):
        path.touch()
    os.utime(old, (time.time() - 100, time.time() - 100))
    remove_leftovers(tmp_path, older_than=50)
    assert sorted(tmp_path.iterdir()) == sorted([new, *others])
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path / "none")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(DamagedFile, match=f"{path} is damaged .it is no regular file"):
            open_regular(path)
        with pytest.raises(DamagedFile):
            read_json(path)
        with pytest.raises(DamagedFile):
            read_tensors(path)
        with pytest.raises(DamagedFile):
            read_byte_rows(path, "keys")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


@LAW
@given(st.dictionaries(st.text().filter(lambda key: key != CHECKSUM), JSON, max_size=5), st.sampled_from([1, None]))
def test_json_comes_back_with_any_spacing_and_without_its_checksum(tmp_path: Path, tree: object, indent: int) -> None:
    path = tmp_path / "file.json"
    write_json(path, tree, indent=indent)
    assert read_json(path) == tree
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7), encoding="utf-8")
    assert read_json(path) == tree
    write_atomic(path, json.dumps(tree))
    assert read_json(path) == tree, "an older version wrote no checksum"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 9999])
def test_what_is_no_json_object_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"file\.json is damaged"):
        read_json(tmp_path / "file.json")


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"scores": {"h": 71.06}, "numbers": (1, 2)})
    text = (tmp_path / "file.json").read_text()
    (tmp_path / "file.json").write_text(text.replace("71.06", "79.06"))
    with pytest.raises(DamagedFile, match="does not fit its checksum; whoever edits it must delete that line"):
        read_json(tmp_path / "file.json")


def test_tensors_come_back_and_others_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.safetensors"
    tensors = {"b": torch.randn(3, 2), "a": torch.arange(4), "half": torch.ones(1, dtype=torch.bfloat16)}
    write_tensors(path, tensors, {"said": "été", "then": "x"})
    content = read_tensors(path)
    assert (content.texts, content.checked) == ({"said": "été", "then": "x"}, True)
    for read in (content.tensors, load_file(path)):
        assert read.keys() == tensors.keys()
        assert all(
            torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items()
        )
    first = path.read_bytes()
    write_tensors(path, tensors, {"then": "x", "said": "été"})
    assert read_tensors(path).texts == content.texts
    write_tensors(path, tensors, {"said": "été", "then": "x"})
    assert path.read_bytes() == first, "the same content is the same file"
    save_file(tensors, path, {"said": "été"})
    assert read_tensors(path)[1:] == ({"said": "été"}, False), "of an older version"
    save_file(tensors, path)
    assert read_tensors(path)[1:] == ({}, False)


def test_every_flipped_bit_of_a_file_of_tensors_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.tensor([0.5, -1.25]), "keys": torch.ones(2, 3, dtype=torch.uint8)}, {"said": "so"})
    whole, content = read_tensors(path), bytearray(path.read_bytes())
    noticed = 0
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        try:
            now = read_tensors(path)
        except DamagedFile:
            noticed += 1
            continue
        assert now.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(value, whole.tensors[name]) for name, value in now.tensors.items())
        assert now.texts.get("said") == "so"
    assert noticed > 0.8 * 8 * len(content), "all but those in the name of the checksum and in the padding"


def test_rows_of_bytes_are_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    keys = torch.arange(12, dtype=torch.uint8).view(4, 3)
    write_tensors(path, {"features": torch.zeros(4, 100), "keys": keys}, {})
    assert np.array_equal(read_byte_rows(path, "keys"), keys.numpy())
    content = path.read_bytes()
    for damaged in (b"", content[:5], content[:50], content[:-500], b"\xff" * 8 + content[8:], b"hello " * 20):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile):
            read_byte_rows(path, "keys")
    with pytest.raises(DamagedFile):
        read_byte_rows(path, "lock")
