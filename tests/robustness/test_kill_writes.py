"""A kill at any write of any file loses nothing: the same command ends with the same numbers and leaves no rest."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from maotune.cli import call
from maotune.files import read_json, read_tensors
from maotune.runs.result import Result
from maotune.train.loop import FitSettings, fit
from tests.train.toy import Toy, two_stages

WRITES = ("os.rename", "os.remove", "os.mkdir")


def kill_at(moment: int, folder: Path, work: Callable[[], Any]) -> None:
    """Do the work in this process, and die at the given one of the changes to the folder, before it happens."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = event in WRITES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE)
        if changes and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(str(folder)):
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(watch)
    work()


def is_killed(moment: int, folder: Path, work: Callable[[], Any]) -> bool:
    """Whether the work had so many changes; in a process of its own."""
    process = get_context("fork").Process(target=kill_at, args=(moment, folder, work))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def check_whole(folder: Path) -> None:
    """Every file under its own name is whole."""
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            read_tensors(path)


def test_a_kill_at_each_write_of_a_run_changes_no_bit(tmp_path: Path) -> None:
    settings = FitSettings(checkpoint_seconds=0)
    whole = fit(Toy(), two_stages(1, 2), settings, folder=tmp_path / "whole")
    moment, killed = 0, True
    while killed:
        folder = tmp_path / str(moment)
        killed = is_killed(moment, folder, lambda: fit(Toy(), two_stages(1, 2), settings, folder=folder))  # noqa: B023
        check_whole(folder)
        resumed = fit(Toy(), two_stages(1, 2), settings, folder=folder, resume=True)
        for name in ("base", "new"):
            prompts = resumed[name].prompts
            assert all(torch.equal(value, prompts[key]) for key, value in whole[name].prompts.items())
            assert (folder / f"{name}.safetensors").read_bytes() == (
                tmp_path / "whole" / f"{name}.safetensors"
            ).read_bytes()
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
        moment += 1
    assert moment > 20


TRAIN = ["train", "--data", "icons-weather", "--mao", "--shots", "1", "--epochs", "2", "data.views=1", "--resume"]


@pytest.mark.slow
@pytest.mark.long
def test_a_kill_at_each_write_of_the_command_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path / "cache"))
    assert call([*TRAIN, "--folder", str(tmp_path / "whole")]) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    moment, killed = 0, True
    while killed:
        runs = tmp_path / str(moment)
        killed = is_killed(moment, runs, lambda: call([*TRAIN, "--folder", str(runs)]))  # noqa: B023
        check_whole(runs)
        assert call([*TRAIN, "--folder", str(runs)]) == 0
        (folder,) = runs.iterdir()
        first, again = Result.find(whole), Result.find(folder)
        assert first is not None
        assert again is not None
        assert (again.scores, again.zeroshot, again.pseudo_labels) == (
            first.scores,
            first.zeroshot,
            first.pseudo_labels,
        )
        for name in ("base.safetensors", "new.safetensors"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()
        assert not list(folder.glob(".*"))
        moment += 1
    print(f"killed at {moment - 1} writes of a run")
    assert moment > 30


@pytest.mark.slow
@pytest.mark.long
def test_a_kill_at_each_write_of_a_report_leaves_whole_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", str(tmp_path / "cache"))
    runs = tmp_path / "runs"
    assert call([*TRAIN, "--folder", str(runs)]) == 0
    moment, killed = 0, True
    while killed:
        killed = is_killed(
            moment, runs / "report", lambda: call(["report", str(runs), "--formats", "html,markdown,csv"])
        )
        for page in (runs / "report").glob("*.html"):
            assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
        moment += 1
    print(f"killed at {moment - 1} writes of a report")
    assert moment > 3
