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
from maotune.sweep.trial import LOCK, LOG, Ending, give_up, reason_of, saved

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often in a row a trial may be killed without having saved anything new, before it counts as failed."""
TICK = 1.0
"""Seconds between looks at what has ended."""
GRACE = 60.0
"""Seconds that stopped trials get for the update under way and a checkpoint."""


class SweepError(ValueError):
    """Trials cannot be run here, and why."""


class Ended(NamedTuple):
    """A process of a trial has ended, by itself or not."""

    folder: Path
    ending: Ending | None
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
    def wait(self, seconds: float) -> list[Ended]:
        """What has ended since the last call; waits up to so many seconds where nothing has."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all trials to stop at their next checkpoint."""

    @abstractmethod
    def close(self) -> None:
        """End what still runs."""


@dataclass
class Course:
    """How a sweep goes: which trials are where."""

    waiting: deque[Path] = field(default_factory=deque)
    running: set[Path] = field(default_factory=set)
    """Handed to the engine; on a cluster they may still be in its queue."""
    elsewhere: set[Path] = field(default_factory=set)
    """Run by another sweep on the same folder."""
    finished: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    """With the reason."""

    @property
    def left(self) -> int:
        """Trials that have not ended yet."""
        return len(self.waiting) + len(self.running) + len(self.elsewhere)


def drive(engine: Engine, folders: Sequence[Path], listen: Callable[[Course], None] = lambda course: None) -> Course:
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
    course = Course(deque(dict.fromkeys(folders)))
    deaths: dict[Path, int] = {}
    marks: dict[Path, int] = {}
    try:
        while course.left:
            _look_elsewhere(course)
            _start(engine, course, marks)
            listen(course)
            for ended in engine.wait(TICK):
                _settle(course, ended, deaths, marks)
                listen(course)
    except KeyboardInterrupt:
        engine.stop()
        with contextlib.suppress(KeyboardInterrupt):  # the second one is in earnest
            _wait_for_all(engine, course)
        raise
    return course


def _start(engine: Engine, course: Course, marks: dict[Path, int]) -> None:
    """Begin as many as there is room for."""
    room = len(course.waiting) if engine.jobs is None else engine.jobs - len(course.running)
    begun: list[Path] = []
    while course.waiting and len(begun) < room:
        folder = course.waiting.popleft()
        if (folder / RESULT).exists():  # another sweep was quicker
            course.finished.append(folder)
            continue
        marks[folder] = saved(folder)
        begun.append(folder)
    if begun:
        course.running.update(begun)
        engine.start(begun)


def _settle(course: Course, ended: Ended, deaths: dict[Path, int], marks: dict[Path, int]) -> None:
    """Decide what becomes of a trial whose process has ended."""
    folder, ending, reason = ended
    course.running.discard(folder)
    if (folder / RESULT).exists():
        course.finished.append(folder)
    elif ending is Ending.UNSEEN:
        raise SweepError(
            f"a worker cannot see {folder}{f' ({reason})' if reason else ''}: the folder of a sweep must lie on a file "
            "system that all machines share, at the same path. Give such a --folder"
        )
    elif ending is Ending.FAILED:
        course.failed[folder] = reason_of(folder) or reason or f"its process ended with an error: see {folder / LOG}"
    elif ending is Ending.BUSY:
        course.elsewhere.add(folder)
    else:
        reason = reason or ("it was stopped" if ending is Ending.STOPPED else "it ended without a result")
        further = saved(folder) != marks[folder]
        deaths[folder] = 1 if further else deaths.get(folder, 0) + 1
        if deaths[folder] < ATTEMPTS:
            log.warning("%s: %s; it is begun again", folder.name, reason)
            course.waiting.appendleft(folder)
            return
        reason = f"{reason}, {ATTEMPTS} times without getting any further"
        give_up(folder, reason)
        course.failed[folder] = reason


def _look_elsewhere(course: Course) -> None:
    """Take over the trials of a process that has gone, and take note of those that it has ended."""
    for folder in sorted(course.elsewhere):
        if is_locked(folder / LOCK):
            continue
        course.elsewhere.discard(folder)
        reason = reason_of(folder)
        if (folder / RESULT).exists():
            course.finished.append(folder)
        elif reason is not None:
            course.failed[folder] = reason
        else:
            course.waiting.append(folder)


def _wait_for_all(engine: Engine, course: Course) -> None:
    until = time.monotonic() + GRACE
    while course.running and time.monotonic() < until:
        course.running.difference_update(ended.folder for ended in engine.wait(TICK))
