"""What a user of the installed package sees first."""

import subprocess
import sys
from importlib.resources import files

import pytest

import maotune


def test_dir_lists_what_is_imported_on_first_use() -> None:
    assert {*maotune.__all__} <= {*dir(maotune)}
    for name in maotune.__all__:
        assert getattr(maotune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tuna'; there are Run"):
        maotune.tuna  # noqa: B018


def test_python_m_maotune_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "maotune", "--help"], capture_output=True, text=True, check=True)
    assert "maotune [OPTIONS]" in done.stdout


def test_the_package_is_typed() -> None:
    assert (files("maotune") / "py.typed").is_file()
