"""``maotune run`` and ``maotune status``: what they say, refuse and leave."""

import json
import os
import re
import shlex
import signal
import threading
import time
from pathlib import Path

import pytest

from maotune.cli import call
from maotune.files import lock
from maotune.recipe import load_recipe
from maotune.sweep.manifest import Sweep, Trial
from tests.cli.conftest import Maotune
from tests.sweep import processes
from tests.toys import paint_photos

SMALL = ("--learners", "coop", "--methods", "plain", "--seeds", 1, "--shots", 1, "--epochs", 2, "data.views=1")
WEATHER = ("run", "base-to-new", "--data", "icons-weather", *SMALL)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("base-to-knew",), "did you mean base-to-new"),
        (("base-to-new", "--suite", "icons"), "unknown suite 'icons'"),
        (("base-to-new", "--data", "icons-wether"), "did you mean icons-weather"),
        (("base-to-new", "--data", "dtd", "--clip", "iconclip"), "dtd is not shipped"),
        (("base-to-new", "--learners", "coop", "mapel"), "did you mean maple"),
        (("base-to-new", "--methods", "maoo"), "did you mean mao"),
        (("base-to-new", "--seeds", "1", "two"), "--seeds 1,two: give whole numbers"),
        (("base-to-new", "--seeds", ","), "--seeds has no number"),
        (("base-to-new", "epoch=3"), "did you mean epochs"),
        (("base-to-new", "--shots", "0"), "data.shots"),
        (("base-to-new", "--engine", "rya"), "did you mean ray"),
        (("base-to-new", "--data", "icons-weather", "--address", "auto"), "--engine ray"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(
    maotune: Maotune, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    answer = maotune("run", *given, "--folder", tmp_path / "sweep")
    assert answer.code in (1, 2)
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.glob("sweep/*/result.json"))


def test_a_dry_run_shows_the_plan_and_writes_nothing(maotune: Maotune, tmp_path: Path) -> None:
    command = ("run", "base-to-new", "--learners", "coop", "--seeds", 1, 2, "lr=0.01", "--dry-run", "--folder")
    said = maotune(*command, tmp_path / "sweep").out
    assert "77 trials, seeds 1, 2" in " ".join(said.split()), "11 x (zero-shot + 3 methods x 2 seeds)"
    assert "0/2" in said
    assert "your settings: lr=0.01" in said
    assert re.search(r"about [\d.]+ (s|min|h) with \d+ at a time, going by a few images and updates", said)
    assert not (tmp_path / "sweep").exists()
    document = maotune(*command, tmp_path / "sweep", "shots=2", "--json").json
    assert document["waiting"] == len(document["trials"]) == 77
    assert document["settings"] == {"lr": 0.01, "data.shots": 2}
    assert document["seconds_left"] > 0
    assert all(trial["seconds_left"] > 0 for trial in document["trials"] if trial["method"] != "zeroshot")
    assert not (tmp_path / "sweep").exists()


def test_a_dry_run_says_why_the_time_is_not_known(maotune: Maotune, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    answer = maotune(*WEATHER, "--clip", tmp_path / "clip", "--dry-run", "--folder", tmp_path / "sweep")
    assert answer.code == 0, answer.err
    assert "how long it takes is not known: " in answer.out


def test_a_sweep_goes_to_its_end_and_is_not_run_again(maotune: Maotune, tmp_path: Path) -> None:
    first = maotune(*WEATHER, "--folder", tmp_path / "sweep")
    assert first.code == 0, first.err
    assert "[1/1] icons-weather coop plain, seed 1: base" in first.err
    assert f"maotune report {tmp_path / 'sweep'}" in first.err
    (trial,) = Sweep.read(tmp_path / "sweep").trials
    written = {path: path.stat().st_mtime_ns for path in trial.folder.iterdir()}
    again = maotune(*WEATHER, "--folder", tmp_path / "sweep")
    assert "0 of them to run" in again.err
    assert again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in trial.folder.iterdir()} == written
    command = Sweep.read(tmp_path / "sweep").commands
    assert command == (f"maotune {' '.join(map(str, WEATHER))} --folder {tmp_path / 'sweep'}",)

    status = maotune("status", tmp_path / "sweep", "--json").json
    assert (status["finished"], status["waiting"], status["seconds_left"]) == (1, 0, 0.0)
    assert status["trials"][0]["scores"]["base"] > 0
    assert "1 of 1 finished" in maotune("status", tmp_path / "sweep", "--watch").out
    two = maotune(*WEATHER, "--seeds", 2, "--dry-run", "--folder", tmp_path / "sweep").out
    assert "going by those that are finished" in two


def test_a_failing_trial_is_listed_and_tried_again(maotune: Maotune, tmp_path: Path) -> None:
    photos = paint_photos(tmp_path / "own")
    for other in ("rain", "snow", "sun"):  # base-to-new needs two classes
        for split in ("train", "val", "test"):
            (photos / split / other).rename(tmp_path / f"{split}-{other}")
    command = ("run", "base-to-new", "--data", photos, "icons-weather", "--clip", "iconclip", *SMALL)
    for _ in range(2):
        answer = maotune(*command, "--folder", tmp_path / "sweep")
        assert answer.code == 1
        assert "1 of" in answer.err
        assert "error.txt: ValueError" in answer.err
    results = [trial.result() for trial in Sweep.read(tmp_path / "sweep").trials]
    assert sorted(result is None for result in results) == [False, True], "the other one was run"
    status = maotune("status", tmp_path / "sweep")
    assert "1 failed" in status.out
    assert "ValueError" in status.out
    for other in ("rain", "snow", "sun"):
        for split in ("train", "val", "test"):
            (tmp_path / f"{split}-{other}").rename(photos / split / other)
    assert maotune(*command, "--folder", tmp_path / "sweep").code == 0
    assert not list((tmp_path / "sweep").glob("*/error.txt"))


def test_status_shows_what_runs_where(maotune: Maotune, tmp_path: Path) -> None:
    from maotune.recipe import load_recipe
    from maotune.sweep.manifest import Trial

    recipes = [load_recipe(None, {"data.source": "icons-weather", "seed": seed}) for seed in (1, 2)]
    sweep = Sweep.plan(tmp_path, [Trial(tmp_path / one.slug, "base-to-new", "", one) for one in recipes], "")
    told = {"host": "far-away", "pid": 77, "started": time.time(), "stage": "plain", "done": 3, "total": 9}
    (sweep.trials[0].folder / "progress.json").write_text(
        json.dumps(told | {"images_a_second": 12.3}), encoding="utf-8"
    )
    with lock(sweep.trials[0].folder / "lock", 0):
        said = maotune("status", tmp_path).out
    assert "1 running 0/2" in said
    assert "0 of 2 finished" in said
    for part in ("plain 3/9", "12 images/s", "far-away:77"):
        assert part in said


def test_watching_ends_where_nothing_runs(maotune: Maotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maotune.recipe import load_recipe
    from maotune.sweep.manifest import Trial

    recipe = load_recipe(None, {"data.source": "icons-weather"})
    Sweep.plan(tmp_path, [Trial(tmp_path / recipe.slug, "base-to-new", "", recipe)], "maotune run base-to-new")
    monkeypatch.setattr("maotune.cli.experiments.POLL", 0.01)
    monkeypatch.setattr("maotune.cli.experiments.PATIENCE", 0.03)
    answer = maotune("status", tmp_path, "--watch")
    assert answer.code == 0
    assert "nothing has run here for 0 s; resume with: maotune run base-to-new" in answer.out + answer.err


def test_status_of_no_sweep(maotune: Maotune, tmp_path: Path) -> None:
    answer = maotune("status", tmp_path)
    assert answer.code == 1
    assert "holds no sweep.json" in answer.err


@pytest.mark.slow
def test_ctrl_c_stops_everything_and_says_how_to_go_on(tmp_path: Path, environment: dict[str, str]) -> None:
    folder, output = tmp_path / "sweep", tmp_path / "output.txt"
    long = (
        "run",
        "base-to-new",
        "--data",
        "icons-weather",
        "--learners",
        "coop",
        "--methods",
        "plain,mao",
        "--seeds",
        "1",
    )
    command = (*long, "--epochs", "4000", "--shots", "1", "data.views=1", "--jobs", "2", "--folder", folder)
    with processes.maotune(*command, output=output, environment=environment) as driver:
        tuning = lambda: [path for path in folder.glob("*/progress.json") if '"done": 1' in path.read_text()]  # noqa: E731
        processes.until(lambda: driver.poll() is not None or len(tuning()) == 2, "two trials")
        below = processes.children(driver.pid)
        assert len(below) >= 3
        driver.send_signal(signal.SIGINT)
        assert driver.wait() == 130
        processes.until(lambda: not {*below} & {*processes.children(1)}, "all to end")
    said = output.read_text()
    assert "stopped; what was done is kept. Resume with: maotune run base-to-new" in said
    assert "Traceback" not in said
    logs = [path.read_text(encoding="utf-8") for path in folder.glob("*/log.txt")]
    assert not any("Traceback" in log for log in logs)
    assert len(list(folder.glob("*/checkpoint.safetensors"))) == 2


def test_ctrl_c_ends_a_watch_with_the_exit_code_of_shells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(None, {"data.source": "icons-weather"})
    Sweep.plan(tmp_path, [Trial(tmp_path / recipe.slug, "base-to-new", "", recipe)], "")
    interrupt = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    assert call(["status", str(tmp_path), "--watch"]) == 130, "it ends by the interrupt alone: a trial is waiting"
    interrupt.join()
    assert "error: stopped" in capsys.readouterr().err


@pytest.mark.slow
def test_two_drivers_share_a_sweep(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "sweep"
    command = ("run", "base-to-new", "--data", "icons-weather", "--learners", "coop", "--methods", "plain,mao")
    command = (*command, "--seeds", "1,2", "--shots", "1", "--epochs", "6", "data.views=1", "--jobs", "1")  # type: ignore[assignment]
    outputs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with (
        processes.maotune(*command, "--folder", folder, output=outputs[0], environment=environment) as first,
        processes.maotune(*command, "--folder", folder, output=outputs[1], environment=environment) as second,
    ):
        assert (first.wait(), second.wait()) == (0, 0), "\n".join(output.read_text() for output in outputs)
    results = [trial.result() for trial in Sweep.read(folder).trials]
    assert len(results) == 4
    assert all(results)
    assert not list(folder.glob("*/error.txt"))


def test_the_page_on_sweeps_runs_as_it_stands(maotune: Maotune, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True)[1:] for line in "".join(blocks).splitlines() if line[:8] == "maotune "]
    assert {"run", "status"} == {command[0] for command in commands}
    for command in commands:
        answer = maotune(*command, cwd=tmp_path)
        assert answer.code == 0, answer.err
    assert len(Sweep.read(tmp_path / "runs" / "small").trials) == 4
