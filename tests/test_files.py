"""Atomic writes, locks and checksums."""

import hashlib
import subprocess
import sys
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from maotune.files import LockTaken, is_locked, lock, open_atomic, sha256, write_atomic


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
    with pytest.raises(LockTaken, match="in use by another process"), lock(path, 0.1):
        pass
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
