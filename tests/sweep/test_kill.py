"""A sweep whose processes are killed at random moments comes out as if nothing had happened."""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from maotune.sweep.manifest import Sweep
from tests.sweep.processes import children, kill, maotune, runs, until

COMMAND = (
    *("run", "base-to-new", "--data", "icons-weather", "--learners", "coop,kgcoop", "--methods", "plain,mao"),
    *("--seeds", "1,2", "--shots", "2", "--epochs", "4", "data.views=2", "--jobs", "2"),
)


def run(folder: Path, environment: dict[str, str]) -> float:
    """To the end; returns the seconds since the first trial began."""
    output = folder.with_suffix(".txt")
    with maotune(*COMMAND, "--folder", folder, output=output, environment=environment) as driver:
        until(lambda: driver.poll() is not None or bool(list(folder.glob("*/progress.json"))), "a trial")
        start = time.monotonic()
        assert driver.wait() == 0, output.read_text()
    return time.monotonic() - start


def running(folder: Path, driver: int) -> list[int]:
    """The processes of trials below a driver."""
    told = [json.loads(path.read_text(encoding="utf-8"))["pid"] for path in folder.glob("*/progress.json")]
    return sorted({*told} & {*children(driver)})


def numbers(folder: Path) -> dict[str, dict[str, Any]]:
    """What a sweep has learned and scored, by trial; not how long it took."""
    told = {}
    for trial in Sweep.read(folder).trials:
        result, scoring = trial.result(), trial.scoring()
        assert result is not None
        assert scoring is not None
        stages = [
            {key: stage[key] for key in ("name", "updates", "images", "losses", "accuracy")} for stage in result.stages
        ]
        told[trial.name] = {
            "scores": (result.scores, result.zeroshot, result.scored_with, result.pseudo_labels),
            "stages": stages,
            "predicted": scoring.predicted,
            "pseudo_labels": scoring.pseudo_labels,
            "prompts": (trial.folder / f"{stages[-1]['name']}.safetensors").read_bytes(),
        }
    return told


def identity(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files of the finished trials: another inode or time would be another writing."""
    files = [file for result in folder.glob("*/result.json") for file in result.parent.iterdir() if file.name != "lock"]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.mark.slow
@pytest.mark.parametrize("kills", [10, pytest.param(30, marks=pytest.mark.long)])
def test_kills_change_nothing(tmp_path: Path, environment: dict[str, str], kills: int) -> None:
    whole, torn, output = tmp_path / "whole", tmp_path / "torn", tmp_path / "torn.txt"
    # A feature bank of its own, so that the kills hit those who fill the other one, too.
    tuning = run(whole, {**environment, "MAOTUNE_CACHE": str(tmp_path / "cache")})
    draw = random.Random(5)
    plan = [*("trial",) * (kills // 2), *("server",) * (kills // 5), *("driver",) * (3 * kills // 10)]
    draw.shuffle(plan)
    pause = tuning / len(plan) / 2  # so that the sweep does not end ahead of the kills
    finished: dict[Path, tuple[int, int]] = {}
    while plan:
        with maotune(*COMMAND, "--folder", torn, output=output, environment=environment) as driver:
            while plan and driver.poll() is None:
                until(lambda: driver.poll() is not None or bool(running(torn, driver.pid)), "a trial")
                time.sleep(draw.uniform(0, pause))
                trials = running(torn, driver.pid)
                others = sorted({*children(driver.pid)} - {*trials})  # what trials fork from, and what watches over it
                victims = {"trial": trials, "server": others, "driver": [driver.pid]}[plan[-1]]
                if victims and driver.poll() is None:
                    kill(draw.choice(victims))
                    if plan.pop() == "driver":
                        driver.wait()
            assert driver.returncode != 0, f"finished ahead of {len(plan)} kills: {output.read_text()}"
        now = identity(torn)
        assert finished.items() <= now.items(), "what is finished is not written again"
        finished = now
    run(torn, environment)
    assert finished.items() <= identity(torn).items()
    assert numbers(torn) == numbers(whole)


SLOW_IMPORT = """
import sys, time
from pathlib import Path

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.endswith("modeling_clip"):
            Path({begun!r}).touch()
            time.sleep(1800)

if any("forkserver" in argument for argument in sys.orig_argv):
    sys.meta_path.insert(0, Finder())
"""
"""A start-up file of Python that lets the fork server take half an hour for an import."""


def gone(driver: int) -> float:
    """Kill a driver; return the seconds until all processes below it have ended."""
    below = children(driver)
    assert below
    kill(driver)
    start = time.monotonic()
    until(lambda: not any(map(runs, below)), "the end of all processes", seconds=120)
    return time.monotonic() - start


@pytest.mark.slow
def test_the_fork_server_ends_with_its_driver_even_while_it_imports(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    begun, output = tmp_path / "begun", tmp_path / "output.txt"
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.format(begun=str(begun)), encoding="utf-8")
    search = os.pathsep.join(filter(None, (str(tmp_path), environment.get("PYTHONPATH"))))
    slow = {**environment, "PYTHONPATH": search}
    with maotune(*COMMAND, "--folder", tmp_path / "sweep", output=output, environment=slow) as driver:
        until(lambda: driver.poll() is not None or begun.exists(), "the import")
        assert driver.poll() is None, output.read_text()
        print(f"the fork server ended {gone(driver.pid):.2f} s after its driver")


@pytest.mark.slow
def test_no_trial_outlives_its_driver(tmp_path: Path, environment: dict[str, str]) -> None:
    folder, output = tmp_path / "sweep", tmp_path / "output.txt"
    with maotune(*COMMAND, "--folder", folder, output=output, environment=environment) as driver:
        until(lambda: driver.poll() is not None or bool(running(folder, driver.pid)), "a trial")
        assert driver.poll() is None, output.read_text()
        print(f"trials and server ended {gone(driver.pid):.2f} s after their driver")


@pytest.mark.slow
def test_a_trial_that_is_always_killed_is_given_up(tmp_path: Path, environment: dict[str, str]) -> None:
    folder, output = tmp_path / "sweep", tmp_path / "output.txt"
    one = ("--learners", "coop", "--methods", "plain", "--seeds", "1", "--epochs", "2", "--shots", "1", "data.views=1")
    command = ("run", "base-to-new", "--data", "icons-weather", *one, "--folder", folder)
    with maotune(*command, output=output, environment=environment) as driver:
        seen: set[int] = set()
        while driver.poll() is None:
            for lock in folder.glob("*/progress.json"):
                pid = json.loads(lock.read_text(encoding="utf-8"))["pid"]
                if pid not in seen and pid in children(driver.pid):
                    seen.add(pid)
                    kill(pid)
            time.sleep(0.01)
        assert driver.returncode == 1
    said = output.read_text()
    assert "killed (out of memory?), 4 times without getting any further" in said
    assert "error.txt" in said
    with maotune(*command, output=output, environment=environment) as driver:
        assert driver.wait() == 0, output.read_text()
    assert not list(folder.glob("*/error.txt"))
