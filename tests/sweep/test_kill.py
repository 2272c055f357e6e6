"""A sweep whose processes are killed at random moments comes out as if nothing had happened."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from maotune.sweep.manifest import Sweep
from tests.sweep.processes import children, kill, maotune, until

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


def numbers(folder: Path) -> dict[str, tuple[list[Any], list[float], list[float], dict[str, torch.Tensor]]]:
    """What a sweep has learned and scored, by trial: counts, scores, losses, prompts; not how long it took."""
    told = {}
    for trial in Sweep.read(folder).trials:
        result = trial.result()
        assert result is not None
        assert trial.scoring() is not None
        counts = [
            result.scored_with,
            [[stage[key] for key in ("name", "updates", "images")] for stage in result.stages],
        ]
        losses = [loss for stage in result.stages for epoch in stage["losses"] for loss in epoch.values()]
        prompts = load_file(trial.folder / f"{result.stages[-1]['name']}.safetensors")
        told[trial.name] = (counts, [*result.scores.values(), *result.zeroshot.values()], losses, prompts)
    return told


def identity(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files of the finished trials: another inode or time would be another writing."""
    files = [file for result in folder.glob("*/result.json") for file in result.parent.iterdir() if file.name != "lock"]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    whole, torn, output = tmp_path / "whole", tmp_path / "torn", tmp_path / "torn.txt"
    # A feature bank of its own, so that the kills hit those who fill the other one, too.
    tuning = run(whole, {**environment, "MAOTUNE_CACHE": str(tmp_path / "cache")})
    draw = random.Random(5)
    plan = [*("trial",) * 5, *("server",) * 2, *("driver",) * 3]
    draw.shuffle(plan)
    pause = tuning / len(plan) / 2
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
            ahead = driver.returncode == 0
        now = identity(torn)
        assert finished.items() <= now.items(), "what is finished is not written again"
        finished = now
        if ahead:  # of the last kills, on a machine that has become faster since the first run
            break
    assert len(plan) <= 5, output.read_text()
    run(torn, environment)
    assert finished.items() <= identity(torn).items()
    undisturbed, disturbed = numbers(whole), numbers(torn)
    assert disturbed.keys() == undisturbed.keys()
    for name, (counts, scores, losses, prompts) in undisturbed.items():
        assert disturbed[name][0] == counts
        # Not to the last bit: a kill also changes which images' features are computed together.
        assert disturbed[name][1] == pytest.approx(scores, abs=0.6), f"{name}: more than an image apart"
        assert disturbed[name][2] == pytest.approx(losses, rel=1e-3), name
        for key, tensor in prompts.items():
            torch.testing.assert_close(disturbed[name][3][key], tensor, rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")


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
