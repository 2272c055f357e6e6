"""What version 0.1.0 wrote on 25 November 2026 still loads, resumes and reports: an unfinished and a finished run of
CoOp with MAO on icons-weather, and a sweep of which one trial was killed; settings whose default has changed are given.

The model that shipped then is `iconclip-1`; a package of links stands in for an installation that has it.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import maotune as package
from maotune.train.session import load_prompts
from tests.cli.conftest import Answer, Maotune

BEFORE = Path(__file__).parent / "before"
CHANGED = ["mao.fill=distinct", "data.shared_views=true", "lr=0.002", "mao.lr=0.0035"]
TRAIN = [
    "train",
    "--data",
    "icons-weather",
    "--learner",
    "coop",
    "--method",
    "mao",
    "--seeds",
    "1",
    "shots=4",
    "epochs=8",
    *CHANGED,
]
RUN = [
    *("run", "base-to-new", "--data", "icons-weather", "--learners", "coop"),
    *("--methods", "zeroshot", "plain", "mao", "--seeds", "1", "shots=4", "epochs=8", *CHANGED),
]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    shutil.copytree(BEFORE, tmp_path / "before")
    return tmp_path / "before"


SCORE = """
import json, sys
import maotune
from maotune.runs.build import build_splits
from maotune.runs.pipeline import Pipeline
run = maotune.load(sys.argv[1])
pipeline, tests = Pipeline(run.clip, run.recipe), build_splits(run.recipe).splits.tests
print(json.dumps({name: pipeline.score(run.learner(test.classes), test).accuracy for name, test in tests.items()}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installation that has the former IconCLIP."""
    place, here = tmp_path_factory.mktemp("installed"), Path(package.__file__).parent
    (place / "maotune" / "assets").mkdir(parents=True)
    for path in (*here.iterdir(), *(here / "assets").iterdir()):
        if path.name not in ("assets", "iconclip", "__pycache__"):
            (place / "maotune" / path.relative_to(here)).symlink_to(path)
    (place / "maotune" / "assets" / "iconclip").symlink_to(BEFORE.parent / "iconclip-1")
    return place


def python(installed: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python with that installation: a program and its arguments, or `-m` and those of a module."""
    command = [sys.executable, *(arguments if arguments[0] == "-m" else ("-c", *arguments))]
    env = {**environment, "PYTHONPATH": str(installed)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=installed, env=env)


@pytest.fixture(scope="module")
def maotune(installed: Path, environment: dict[str, str]) -> Maotune:
    """The command line of that installation."""

    def run(*arguments: object) -> Answer:
        done = python(installed, environment, "-m", "maotune", *map(str, arguments))
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_unfinished_run_is_resumed_to_the_result_of_an_uninterrupted_one(before: Path, maotune: Maotune) -> None:
    (folder,) = (before / "killed").iterdir()
    base = (folder / "base.safetensors").read_bytes()
    answer = maotune(*TRAIN, "--folder", before / "killed")
    assert answer.code == 1
    assert "holds an unfinished run of this recipe" in answer.err
    answer = maotune(*TRAIN, "--folder", before / "killed", "--resume")
    assert answer.code == 0, answer.err
    assert [*(before / "killed").iterdir()] == [folder], "no folder beside the old one"
    assert (folder / "base.safetensors").read_bytes() == base, "a finished stage is not tuned again"
    (whole,) = (before / "whole").iterdir()
    resumed, uninterrupted = (load_prompts(path / "prompts.safetensors")[0] for path in (folder, whole))
    assert resumed.keys() == uninterrupted.keys()
    for name, value in uninterrupted.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4)  # processors round differently


def test_a_finished_run_is_reused_and_its_prompts_score_what_they_scored(
    before: Path, maotune: Maotune, installed: Path, environment: dict[str, str]
) -> None:
    (folder,) = (before / "whole").iterdir()
    files = contents(folder)
    answer = maotune(*TRAIN, "--folder", before / "whole")
    assert answer.code == 0, answer.err
    assert f"finished before, in {folder}" in answer.err
    assert contents(folder) == files
    recorded = json.loads((folder / "result.json").read_text(encoding="utf-8"))["scores"]
    scored = python(installed, environment, SCORE, str(folder))
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout) == pytest.approx({name: recorded[name] for name in ("base", "new")}, abs=1.0)


def test_a_sweep_goes_on_and_is_reported(before: Path, maotune: Maotune) -> None:
    sweep = before / "sweep"
    finished = {name: content for name, content in contents(sweep).items() if "-mao-" not in name}
    states = maotune("status", sweep, "--json").json
    assert (states["finished"], states["waiting"]) == (2, 1)
    answer = maotune(*RUN, "--folder", sweep, "--jobs", "1")
    assert answer.code == 0, answer.err
    after = contents(sweep)
    assert {name: after[name] for name in finished if name != "sweep.json"} == {
        name: content for name, content in finished.items() if name != "sweep.json"
    }, "what was finished is left alone"
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == 3
    answer = maotune("report", sweep)
    assert answer.code == 0, answer.err
    assert "3 finished runs" in answer.out
    assert (sweep / "report" / "index.html").exists()
