"""A feature bank that the tests of sweeps share, one thread a process."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "MAOTUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.txt"
