"""One thread for each process, and Ctrl-C that interrupts, however the tests were started."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.toys import paint_photos

torch.set_num_threads(1)  # on a shared machine, threads that wait for each other cost more than they give
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own, in which relative paths count, with ``photos`` and ``heap``, and a cache of its own."""
    root = tmp_path_factory.mktemp("place")
    paint_photos(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("MAOTUNE_CACHE", str(root / "cache"))
        yield root
