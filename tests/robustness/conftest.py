"""Rights, folders and images for the tests of faults."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that users without rights can reach, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="maotune-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged(shared: Path) -> Iterator[None]:
    """Root may write everywhere; so the test runs as nobody, where it began as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)
