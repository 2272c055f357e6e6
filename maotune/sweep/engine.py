"""Scheduling shared by all back ends: retries, locks, failures."""

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from maotune.files import is_locked
from maotune.runs.folder import LOCK
from maotune.runs.result import is_finished
from maotune.sweep.trial import LOG, ExitStatus, checkpoint_time, failure_reason, record_failure

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Largest number of kills in a row without a new checkpoint before a trial counts as failed."""
TICK = 1.0
"""Seconds between checks for processes that have ended."""
GRACE = 60.0
"""Seconds that stopped trials get for the current update and a checkpoint."""


class SweepError(ValueError):
    """Trials cannot be run here; the message says why."""


class TrialExit(NamedTuple):
    """Exit of a trial's process."""

    folder: Path
    status: ExitStatus | None
    """None: the process was killed, or lost with its machine."""
    reason: str = ""
    """Reason of a loss; of a failure, what the engine knows beyond ``error.txt``."""


class Engine(ABC):
    """Back end that runs trials in processes. As a context manager it leaves none behind."""

    jobs: int | None
    """Number of trials at a time; None: as many as fit."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def start(self, folders: Sequence[Path]) -> None:
        """Start the trials in ``folders``, each in a process of its own that calls ``trial.run_process``."""

    @abstractmethod
    def wait(self, seconds: float) -> list[TrialExit]:
        """Return the exits since the last call; wait up to ``seconds`` if there are none."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all trials to stop at their next checkpoint."""

    @abstractmethod
    def close(self) -> None:
        """Kill what still runs."""


@dataclass
class SweepProgress:
    """State of all trials of a sweep."""

    waiting: deque[Path] = field(default_factory=deque)
    running: set[Path] = field(default_factory=set)
    """Handed to the engine; on a cluster they may still be queued."""
    foreign: set[Path] = field(default_factory=set)
    """Being run by another sweep on the same folder."""
    finished: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    """Folder -> reason."""

    @property
    def remaining(self) -> int:
        """Number of trials that have not ended yet."""
        return len(self.waiting) + len(self.running) + len(self.foreign)


def run_trials(
    engine: Engine, folders: Sequence[Path], callback: Callable[[SweepProgress], None] = lambda progress: None
) -> SweepProgress:
    """Run the trials in ``folders`` to their end.

    A killed trial is restarted from its checkpoint, as long as it gets further from one kill to the next. A trial that
    another process runs is awaited, and taken over if that process dies. A trial that fails does not stop the others.

    Args:
        engine: the back end.
        folders: the folders of the trials.
        callback: called with the progress, about once a second and whenever a trial has ended.

    Raises:
        SweepError: the engine cannot run them.
        KeyboardInterrupt: Ctrl-C; the trials have been stopped, after a checkpoint where the engine allows.
    """
    progress = SweepProgress(deque(dict.fromkeys(folders)))
    deaths: dict[Path, int] = {}
    marks: dict[Path, int] = {}
    try:
        while progress.remaining:
            _check_foreign_trials(progress)
            _start(engine, progress, marks)
            callback(progress)
            for ended in engine.wait(TICK):
                _handle_exit(progress, ended, deaths, marks)
                callback(progress)
    except KeyboardInterrupt:
        engine.stop()
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
            _wait_for_all(engine, progress)
        raise
    return progress


def _start(engine: Engine, progress: SweepProgress, marks: dict[Path, int]) -> None:
    """Start as many waiting trials as fit."""
    room = len(progress.waiting) if engine.jobs is None else engine.jobs - len(progress.running)
    started: list[Path] = []
    while progress.waiting and len(started) < room:
        folder = progress.waiting.popleft()
        if is_finished(folder):  # another sweep has finished it
            progress.finished.append(folder)
            continue
        marks[folder] = checkpoint_time(folder)
        started.append(folder)
    if started:
        progress.running.update(started)
        engine.start(started)


def _handle_exit(progress: SweepProgress, ended: TrialExit, deaths: dict[Path, int], marks: dict[Path, int]) -> None:
    """Decide what happens to a trial whose process has ended."""
    folder, status, reason = ended
    progress.running.discard(folder)
    if is_finished(folder):
        progress.finished.append(folder)
    elif status is ExitStatus.FOLDER_MISSING:
        raise SweepError(
            f"a worker cannot see {folder}{f' ({reason})' if reason else ''}: the folder of a sweep must lie on a file "
            "system that all machines share, at the same path. Give such a --folder"
        )
    elif status is ExitStatus.FAILED:
        progress.failed[folder] = (
            failure_reason(folder) or reason or f"its process ended with an error: see {folder / LOG}"
        )
    elif status is ExitStatus.BUSY:
        progress.foreign.add(folder)
    else:
        reason = reason or ("it was stopped" if status is ExitStatus.STOPPED else "it ended without a result")
        further = checkpoint_time(folder) != marks[folder]
        deaths[folder] = 1 if further else deaths.get(folder, 0) + 1
        if deaths[folder] < ATTEMPTS:
            log.warning("%s: %s; restarting", folder.name, reason)
            progress.waiting.appendleft(folder)
            return
        reason = f"{reason}, {ATTEMPTS} times without getting any further"
        record_failure(folder, reason)
        progress.failed[folder] = reason


def _check_foreign_trials(progress: SweepProgress) -> None:
    """Take over trials of another driver that has gone, and record those that it has finished."""
    for folder in sorted(progress.foreign):
        if is_locked(folder / LOCK):
            continue
        progress.foreign.discard(folder)
        reason = failure_reason(folder)
        if is_finished(folder):
            progress.finished.append(folder)
        elif reason is not None:
            progress.failed[folder] = reason
        else:
            progress.waiting.append(folder)


def _wait_for_all(engine: Engine, progress: SweepProgress) -> None:
    until = time.monotonic() + GRACE
    while progress.running and time.monotonic() < until:
        progress.running.difference_update(ended.folder for ended in engine.wait(TICK))
