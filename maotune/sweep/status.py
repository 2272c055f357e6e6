"""Status of a sweep: which trials are finished, running, failed or waiting, and how long the rest will take."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from maotune.files import is_locked, read_json
from maotune.mao.methods import ZEROSHOT
from maotune.recipe import Recipe
from maotune.runs.folder import LOCK
from maotune.runs.forecast import forecast
from maotune.runs.result import Result
from maotune.sweep.manifest import MANIFEST, Sweep, Trial
from maotune.sweep.trial import PROGRESS, failure_reason
from maotune.train.session import CheckpointError

State = Literal["finished", "running", "failed", "waiting"]


@dataclass(frozen=True)
class TrialState:
    """State of one trial."""

    trial: Trial
    state: State
    result: Result | None = None
    reason: str = ""
    """Reason of a failure."""
    progress: dict[str, Any] = field(default_factory=dict)
    """Progress of a running trial: host, pid, started, stage, done, total, images_a_second."""
    seconds_left: float | None = None
    """Estimate, unless the trial is finished; None where no similar trial has been finished yet."""


class DurationModel:
    """Durations of finished trials, to predict those of others."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = {}

    def add(self, recipe: Recipe, result: Result) -> None:
        """Add a finished trial; an interrupted one counts with all of its tuning."""
        seconds = max(result.seconds, sum(stage["seconds"] for stage in result.stages))
        for key in self._keys(recipe):
            self._seconds.setdefault(key, []).append(seconds)

    def predict(self, recipe: Recipe) -> float | None:
        """Return the mean duration of the most similar finished trials; None where there are none."""
        return next((fmean(self._seconds[key]) for key in self._keys(recipe) if key in self._seconds), None)

    @staticmethod
    def _keys(recipe: Recipe) -> list[tuple[str, ...]]:
        """Return the groups of similar trials that this one belongs to, the narrowest first."""
        if recipe.method == ZEROSHOT:
            return [(ZEROSHOT, recipe.data.source), (ZEROSHOT,)]
        title, method, size = recipe.title, recipe.method, f"{recipe.data.shots} {recipe.epochs}"
        return [(recipe.data.source, title, method, size), (title, method, size), (title, size), (title,), ()]


class StatusReader:
    """Reads the state of trials repeatedly; a finished one is read once.

    Args:
        trials: whose state is read.
        others: more trials, of which only the durations count, where they are finished.
    """

    def __init__(self, trials: Iterable[Trial], others: Iterable[Trial] = ()) -> None:
        self.trials = list({trial.folder: trial for trial in trials}.values())
        self.durations = DurationModel()
        for trial in others:
            with contextlib.suppress(CheckpointError):
                if (result := trial.result()) is not None:
                    self.durations.add(trial.recipe, result)
        self._finished: dict[Path, Result] = {}

    def read(self) -> list[TrialState]:
        """Return the current state of every trial."""
        broken: dict[Path, str] = {}
        for trial in self.trials:
            if trial.folder not in self._finished:
                try:
                    result = trial.result()
                except CheckpointError as error:
                    broken[trial.folder] = str(error)
                    continue
                if result is not None:
                    self._finished[trial.folder] = result
                    self.durations.add(trial.recipe, result)
        return [self._state(trial, broken.get(trial.folder)) for trial in self.trials]

    def _state(self, trial: Trial, broken: str | None) -> TrialState:
        folder = trial.folder
        if folder in self._finished:
            return TrialState(trial, "finished", self._finished[folder])
        if broken is not None:
            return TrialState(trial, "failed", reason=broken)
        expected = self.durations.predict(trial.recipe)
        if is_locked(folder / LOCK):
            progress = read_progress(folder)
            return TrialState(trial, "running", progress=progress, seconds_left=_left(progress, expected))
        reason = failure_reason(folder)
        if reason is not None:
            return TrialState(trial, "failed", reason=reason)
        return TrialState(trial, "waiting", seconds_left=expected)


def planned_states(trials: Sequence[Trial], folder: Path) -> list[TrialState]:
    """Return the states of trials before they are planned; finished ones in ``folder`` tell how long they take."""
    before = Sweep.read(folder).trials if (folder / MANIFEST).exists() else ()
    return StatusReader(trials, before).read()


def forecast_states(states: Sequence[TrialState], threads: int | None = None) -> list[TrialState]:
    """Return the states with the durations of waiting trials as measured now (``forecast``), with ``threads`` each.

    Raises:
        ValueError: a model, data set or learner cannot be built; the message says why.
    """
    waiting = [state.trial for state in states if state.state == "waiting"]
    costs = forecast([trial.recipe for trial in waiting], threads)
    seconds = {trial.folder: cost.seconds for trial, cost in zip(waiting, costs, strict=True)}
    return [replace(state, seconds_left=seconds.get(state.trial.folder, state.seconds_left)) for state in states]


def read_progress(folder: Path) -> dict[str, Any]:
    """Read what the running process of a trial has reported; empty before its first report."""
    try:
        counted: dict[str, Any] = read_json(folder / PROGRESS)
    except (FileNotFoundError, ValueError):
        return {}
    return counted


def _left(progress: dict[str, Any], expected: float | None) -> float | None:
    if expected is None:
        return None
    now = time.time()
    return max(0.0, expected - (now - float(progress.get("started", now))))


def count_states(states: Sequence[TrialState]) -> dict[State, int]:
    """Count the trials in each state."""
    counted = Counter(state.state for state in states)
    return {state: counted[state] for state in ("finished", "running", "failed", "waiting")}


def estimate_seconds_left(states: Sequence[TrialState], jobs: int | None = None) -> float | None:
    """Estimate the seconds until all is done, with ``jobs`` (or as many as run now) at a time; None if unknown."""
    open_ones = [state for state in states if state.state in ("running", "waiting")]
    known = [state.seconds_left for state in open_ones if state.seconds_left is not None]
    if not known or 2 * len(known) < len(open_ones):
        return 0.0 if not open_ones else None
    at_a_time = jobs or max(1, sum(state.state == "running" for state in states))
    total = sum(known) * len(open_ones) / len(known)
    return max(total / at_a_time, *known)
