"""Where trials run is an engine's affair; what is done about those that end, fail or are killed is the same on all."""

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
from maotune.runs.result import RESULT
from maotune.sweep.trial import LOCK, LOG, ExitStatus, checkpoint_time, failure_reason, record_failure

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often in a row a trial may be killed without having saved anything new, before it counts as failed."""
TICK = 1.0
"""Seconds between looks at what has ended."""
GRACE = 60.0
"""Seconds that stopped trials get for the update under way and a checkpoint."""


class SweepError(ValueError):
    """Trials cannot be run here, and why."""


class TrialExit(NamedTuple):
    """A process of a trial has ended, by itself or not."""

    folder: Path
    status: ExitStatus | None
    """None: it was killed, or lost with its machine."""
    reason: str = ""
    """Of being lost; or, of a failure, what the engine knows beyond ``error.txt``."""


class Engine(ABC):
    """Processes for trials, here or elsewhere. As a context it leaves none behind."""

    jobs: int | None
    """Trials at a time; None: as many as there is room for."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def start(self, folders: Sequence[Path]) -> None:
        """Begin the trials in ``folders``, each in a process of its own, which calls ``trial.attempt``."""

    @abstractmethod
    def wait(self, seconds: float) -> list[TrialExit]:
        """What has ended since the last call; waits up to so many seconds where nothing has."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all trials to stop at their next checkpoint."""

    @abstractmethod
    def close(self) -> None:
        """End what still runs."""


@dataclass
class SweepProgress:
    """How a sweep goes: which trials are where."""

    waiting: deque[Path] = field(default_factory=deque)
    running: set[Path] = field(default_factory=set)
    """Handed to the engine; on a cluster they may still be in its queue."""
    foreign: set[Path] = field(default_factory=set)
    """Run by another sweep on the same folder."""
    finished: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    """With the reason."""

    @property
    def remaining(self) -> int:
        """Trials that have not ended yet."""
        return len(self.waiting) + len(self.running) + len(self.foreign)


def run_trials(
    engine: Engine, folders: Sequence[Path], listen: Callable[[SweepProgress], None] = lambda progress: None
) -> SweepProgress:
    """Run the trials in ``folders`` to their end.

    A killed one is begun again from its checkpoint, as long as it gets further between one death and the next. One that
    another process is running is waited for, and begun if that process dies. One that fails does not stop the others.

    Args:
        engine: where they run.
        folders: of the trials.
        listen: hears how it goes, about once a second and whenever a trial has ended.

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
            listen(progress)
            for ended in engine.wait(TICK):
                _handle_exit(progress, ended, deaths, marks)
                listen(progress)
    except KeyboardInterrupt:
        engine.stop()
        with contextlib.suppress(KeyboardInterrupt):  # the second one is in earnest
            _wait_for_all(engine, progress)
        raise
    return progress


def _start(engine: Engine, progress: SweepProgress, marks: dict[Path, int]) -> None:
    """Begin as many as there is room for."""
    room = len(progress.waiting) if engine.jobs is None else engine.jobs - len(progress.running)
    begun: list[Path] = []
    while progress.waiting and len(begun) < room:
        folder = progress.waiting.popleft()
        if (folder / RESULT).exists():  # another sweep was quicker
            progress.finished.append(folder)
            continue
        marks[folder] = checkpoint_time(folder)
        begun.append(folder)
    if begun:
        progress.running.update(begun)
        engine.start(begun)


def _handle_exit(progress: SweepProgress, ended: TrialExit, deaths: dict[Path, int], marks: dict[Path, int]) -> None:
    """Decide what becomes of a trial whose process has ended."""
    folder, status, reason = ended
    progress.running.discard(folder)
    if (folder / RESULT).exists():
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
            log.warning("%s: %s; it is begun again", folder.name, reason)
            progress.waiting.appendleft(folder)
            return
        reason = f"{reason}, {ATTEMPTS} times without getting any further"
        record_failure(folder, reason)
        progress.failed[folder] = reason


def _check_foreign_trials(progress: SweepProgress) -> None:
    """Take over the trials of a process that has gone, and take note of those that it has ended."""
    for folder in sorted(progress.foreign):
        if is_locked(folder / LOCK):
            continue
        progress.foreign.discard(folder)
        reason = failure_reason(folder)
        if (folder / RESULT).exists():
            progress.finished.append(folder)
        elif reason is not None:
            progress.failed[folder] = reason
        else:
            progress.waiting.append(folder)


def _wait_for_all(engine: Engine, progress: SweepProgress) -> None:
    until = time.monotonic() + GRACE
    while progress.running and time.monotonic() < until:
        progress.running.difference_update(ended.folder for ended in engine.wait(TICK))
