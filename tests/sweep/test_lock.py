from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from maotune.sweep.lock import Held, hold, is_held


def holder(path: Path, has: Event, ever: Event) -> None:
    with hold(path, 0):
        has.set()
        ever.wait()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock, context = tmp_path / "lock", get_context("fork")
    has, ever = context.Event(), context.Event()
    assert not is_held(lock), "there is no file yet"
    process = context.Process(target=holder, args=(lock, has, ever))
    process.start()
    assert has.wait(600)
    assert is_held(lock)
    with pytest.raises(Held, match="in use by another process"), hold(lock, 0.1):
        pass
    process.kill()
    process.join()
    assert not is_held(lock)
    with hold(lock, 0):
        assert is_held(lock)
    assert not is_held(lock)


def test_a_holder_who_is_about_to_go_is_waited_for(tmp_path: Path) -> None:
    lock, context = tmp_path / "lock", get_context("fork")
    has, ever = context.Event(), context.Event()
    process = context.Process(target=holder, args=(lock, has, ever))
    process.start()
    assert has.wait(600)
    ever.set()
    with hold(lock, 600):
        assert is_held(lock)
    process.join()
