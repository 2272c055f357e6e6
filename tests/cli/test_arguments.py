"""Arguments that are empty are refused, several runs are named, and no code page stops the output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Maotune


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("predict", "run", ""), "run is followed by nothing"),
        (("predict", "", "a.png"), "predict is followed by nothing"),
        (("predict", "run", "a.png", "--classes", " "), "--classes is followed by nothing"),
        (("train", "--data", "", "--mao"), "--data is followed by nothing"),
        (("train", "--unlabelled="), "--unlabelled= is followed by nothing"),
        (("train", "data.unlabelled="), "'data.unlabelled=' has no value"),
    ],
)
def test_an_empty_argument_is_not_the_working_directory(
    maotune: Maotune, arguments: tuple[str, ...], what: str
) -> None:
    answer = maotune(*arguments)
    assert answer.code == 2
    assert what in answer.err


def test_several_runs_are_refused(maotune: Maotune, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prompts.safetensors").write_bytes(b"")
    answer = maotune("evaluate", tmp_path / "a", tmp_path / "b")
    assert answer.code == 2
    assert "several runs were given" in answer.err
    answer = maotune("evaluate", tmp_path / "*")
    assert answer.code == 1
    assert f"matches {tmp_path / 'a'}, {tmp_path / 'b'}: name one run" in answer.err.replace("\n", "")


def test_a_name_that_the_code_page_cannot_write_does_not_stop_the_output(tmp_path: Path) -> None:
    for name in ("дом", "木"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (number, len(name), 9)).save(tmp_path / name / f"{number}.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    command = [sys.executable, "-m", "maotune", "data", "check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
    assert "\\u0434\\u043e\\u043c" in done.stdout + done.stderr
