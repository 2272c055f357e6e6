import json
import time
from pathlib import Path

import pytest

from maotune.files import lock
from maotune.recipe import Recipe, load_recipe
from maotune.runs.folder import LOCK
from maotune.runs.result import Result
from maotune.sweep.manifest import Sweep, Trial
from maotune.sweep.status import DurationModel, StatusReader, TrialState, count_states, estimate_seconds_left
from maotune.sweep.trial import ERROR, PROGRESS


def recipe(seed: int = 1, method: str = "plain", learner: str = "coop", source: str = "icons-weather") -> Recipe:
    return load_recipe(
        None, {"data.source": source, "seed": seed, "method": method, "learner.name": learner, "epochs": 4}
    )


def result(of: Recipe, seconds: float) -> Result:
    return Result(
        dataset=of.data.source,
        protocol="base-to-new",
        learner=of.title,
        method=of.method,
        seed=of.seed,
        shots=16,
        scores={"base": 60.0, "new": 40.0, "h": 48.0},
        scored_with={"base": "plain", "new": "plain"},
        zeroshot={"base": 50.0, "new": 50.0, "h": 50.0},
        stages=[{"name": "plain", "updates": 4, "images": 8, "seconds": 1.0, "losses": [], "accuracy": {}}],
        pseudo_labels=None,
        skipped=[],
        templates=["a photo of a {}."],
        parameters=1,
        peak_memory=1,
        seconds=seconds,
        environment={},
        recipe=of.model_dump(mode="json"),
    )


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    planned = [Trial(tmp_path / one.slug, "base-to-new", "", one) for one in map(recipe, range(5))]
    return list(Sweep.plan(tmp_path, planned, "maotune run").trials)


def test_every_state_is_told_apart(trials: list[Trial]) -> None:
    finished, running, failed, broken, waiting = trials
    result(finished.recipe, 60.0).save(finished.folder)
    (failed.folder / ERROR).write_text("Traceback ...\nValueError: no image\n", encoding="utf-8")
    (broken.folder / "result.json").write_text("{", encoding="utf-8")
    progress = {"host": "here", "pid": 7, "started": time.time() - 20, "stage": "plain", "done": 3, "total": 9}
    (running.folder / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in finished.folder.parent.rglob("*")}
    watch = StatusReader(trials)
    with lock(running.folder / LOCK, 0):
        states = {one.trial.name: one for one in watch.read()}
    assert [states[trial.name].state for trial in trials] == ["finished", "running", "failed", "failed", "waiting"]
    assert states[failed.name].reason == "ValueError: no image"
    assert "was not written by this version" in states[broken.name].reason
    assert states[running.name].progress == progress
    assert states[running.name].seconds_left == pytest.approx(40, abs=5)
    assert states[waiting.name].seconds_left == pytest.approx(60)
    assert count_states(list(states.values())) == {"finished": 1, "running": 1, "failed": 2, "waiting": 1}
    assert estimate_seconds_left(list(states.values())) == pytest.approx(100, abs=5)
    assert estimate_seconds_left(list(states.values()), jobs=2) == pytest.approx(60)
    new = {path for path in finished.folder.parent.rglob("*") if path not in before}
    assert {path.name for path in new} == {LOCK}, "made by the one who runs it, in this test"
    # A process that is killed leaves its progress behind; the lock went with it.
    assert {one.trial.name: one.state for one in watch.read()}[running.name] == "waiting"


def test_the_same_folder_counts_once(trials: list[Trial]) -> None:
    twice = [*trials, *(Trial(one.folder, one.experiment, "again", one.recipe) for one in trials)]
    assert len(StatusReader(twice).read()) == len(trials)


def test_pace_goes_by_what_is_most_alike() -> None:
    pace = DurationModel()
    assert pace.predict(recipe()) is None
    for of, seconds in (
        (recipe(1), 10.0),
        (recipe(2), 20.0),
        (recipe(1, source="icons-food"), 90.0),
        (recipe(1, learner="maple"), 200.0),
        (recipe(1, "zeroshot"), 2.0),
    ):
        pace.add(of, result(of, seconds))
    assert pace.predict(recipe(3)) == 15.0
    assert pace.predict(recipe(3, source="icons-flags")) == 40.0, "the learner on other data sets"
    assert pace.predict(recipe(3, "mao", "maple")) == 200.0, "the learner by another method"
    assert pace.predict(recipe(3, learner="tcp")) == 80.0, "whatever tunes"
    assert pace.predict(recipe(1, "zeroshot", source="icons-food")) == 2.0


def test_time_is_not_told_from_too_little(trials: list[Trial]) -> None:
    states = [TrialState(trial, "waiting") for trial in trials]
    assert estimate_seconds_left(states) is None
    assert estimate_seconds_left([TrialState(trials[0], "waiting", seconds_left=9.0), *states[1:]]) is None
    assert estimate_seconds_left([TrialState(trial, "failed") for trial in trials]) == 0.0
