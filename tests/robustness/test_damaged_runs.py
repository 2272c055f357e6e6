"""Damage to the files of one run is named or mended, and the other runs go on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import maotune
from maotune.cli import call
from maotune.recipe import load_recipe
from maotune.report.frame import read_experiments
from maotune.runs.fingerprint import DataComparison
from maotune.runs.folder import choose_run_folder, find_run_folder
from maotune.runs.result import Result, is_finished
from maotune.sweep.manifest import Sweep
from maotune.sweep.status import StatusReader
from maotune.train.session import CheckpointError

SMALL = {"method": "mao", "shots": 1, "epochs": 2, "data__views": 1}
SWEEP = ("run", "base-to-new", "--data", "icons-weather", "--learners", "coop", "--methods", "plain", "--seeds", "1,2")
SIZE = ("--shots", "1", "--epochs", "2", "data.views=1", "--jobs", "2")
FILES = ("result.json", "recipe.json", "scoring.json")


def flip(content: bytes) -> bytes:
    """One digit of a number becomes another."""
    place = content.index(b'"seed": ') + 8 if b'"seed": ' in content else content.index(b"0")
    return content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "other": lambda content: b"[]",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache: str) -> Path:
    """A finished sweep of two trials."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAOTUNE_CACHE", cache)
        assert call([*SWEEP, *SIZE, "--folder", str(folder)]) == 0
    return folder


def numbers(sweep: Path) -> dict[str, Any]:
    return {
        trial.name: (result.scores, result.zeroshot, [stage["losses"] for stage in result.stages])
        for trial in Sweep.read(sweep).trials
        if (result := trial.result())
    }


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_trial_blocks_no_sweep(
    tmp_path: Path, swept: Path, cache: str, file: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", cache)
    sweep = tmp_path / "sweep"
    shutil.copytree(swept, sweep)
    first, second = sorted(trial.folder for trial in Sweep.read(sweep).trials)
    (first / file).write_bytes(DAMAGES[damage]((first / file).read_bytes()))
    states = {state.trial.folder: state for state in StatusReader(Sweep.read(sweep).trials).read()}
    assert states[second].state == "finished"
    if file == "result.json":
        assert "result.json is damaged" in states[first].reason
        (runs,) = read_experiments(Sweep.read(sweep))
        assert [run.trial.folder for run in runs.finished] == [second]
        assert [trial.folder for trial, _ in runs.failed] == [first]
    assert call(["report", str(sweep), "--formats", "text"]) == 0
    assert call([*SWEEP, *SIZE, "--folder", str(sweep)]) == 0
    assert numbers(sweep) == numbers(swept)


def test_a_trial_of_another_version_is_named_and_the_others_go_on(
    tmp_path: Path, swept: Path, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", cache)
    sweep = tmp_path / "sweep"
    shutil.copytree(swept, sweep)
    first, second = sorted(trial.folder for trial in Sweep.read(sweep).trials)
    (first / "recipe.json").write_text('{"epochs": "many"}', encoding="utf-8")
    (second / "result.json").unlink()
    assert call([*SWEEP, *SIZE, "--folder", str(sweep), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [run["folder"] for run in answer["runs"]] == [str(second)]
    assert [(run["folder"], "is no recipe of this version" in run["reason"]) for run in answer["failed"]] == [
        (str(first), True)
    ]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_of_a_single_run_is_made_again(
    tmp_path: Path, cache: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", cache)
    command = ["train", "--data", "icons-weather", "--shots", "1", "--epochs", "2", "data.views=1"]
    command += ["--folder", str(tmp_path)]
    assert call(command) == 0
    (path,) = tmp_path.glob("*/result.json")
    whole = Result.find(path.parent)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    recipe = load_recipe(None, {"data.source": "icons-weather", "shots": 1, "epochs": 2, "data.views": 1})
    assert find_run_folder(tmp_path, recipe) == path.parent, "its checkpoint says what it is"
    assert not is_finished(path.parent)
    assert choose_run_folder(tmp_path, recipe, DataComparison()).result is None
    assert call(command) == 1, "it is resumed only when that is asked for"
    assert call([*command, "--resume"]) == 0
    again = Result.find(path.parent)
    assert whole is not None
    assert again is not None
    assert (again.scores, again.zeroshot) == (whole.scores, whole.zeroshot)


def test_damaged_prompts_are_written_again_as_the_error_says(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAOTUNE_CACHE", cache)
    command = ["train", "--data", "icons-weather", "--shots", "1", "--epochs", "2", "data.views=1", "--mao"]
    command += ["--folder", str(tmp_path), "--resume"]
    assert call(command) == 0
    (path,) = tmp_path.glob("*/prompts.safetensors")
    whole = maotune.load(path).stages
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"delete result\.json there and resume the run"):
        maotune.load(path)
    (path.parent / "result.json").unlink()
    assert call(command) == 0
    again = maotune.load(path).stages
    assert {(name, key): value.tolist() for name, stage in again.items() for key, value in stage.tensors.items()} == {
        (name, key): value.tolist() for name, stage in whole.items() for key, value in stage.tensors.items()
    }


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    import os
    import socket
    from multiprocessing import get_context

    from maotune.runs.folder import hold

    context = get_context("fork")
    held, ever = context.Event(), context.Event()

    def keep() -> None:
        with hold(tmp_path / "run"):
            held.set()
            ever.wait()

    holder = context.Process(target=keep)
    holder.start()
    try:
        assert held.wait(600)
        with pytest.raises(CheckpointError, match=f"{holder.pid} on {socket.gethostname()}.: wait until it has ended"):
            maotune.tune("icons-weather", folder=tmp_path / "run", **SMALL)
        assert os.listdir(tmp_path / "run") == ["lock"]
    finally:
        holder.kill()
        holder.join()
    assert maotune.tune("icons-weather", folder=tmp_path / "run", data__bank=False, **SMALL).result.scores
