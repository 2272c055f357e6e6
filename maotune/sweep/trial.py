"""One trial: an idempotent process that goes on where the last one was killed."""

import contextlib
import json
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from maotune.files import LockTaken, lock, write_atomic
from maotune.recipe import Recipe
from maotune.runs.events import Callback, Progress
from maotune.runs.folder import RECIPE
from maotune.runs.result import RESULT
from maotune.runs.tune import tune_recipe
from maotune.train.history import StageStarted, StepDone
from maotune.train.session import CHECKPOINT

PROGRESS = "progress.json"
"""How far a trial is, and where it runs."""
ERROR = "error.txt"
"""Why a trial failed."""
LOG = "log.txt"
"""What its processes had to say."""
LOCK = "lock"
"""Held by the process that runs the trial."""
LOCK_TIMEOUT = 1.0
"""Seconds to wait for the process of a driver that was killed just now, or for somebody who looks whether one runs."""


class ExitStatus(IntEnum):
    """How a process of a trial has ended, as its exit code."""

    FINISHED = 0
    FAILED = 1
    """The reason stands in ``error.txt``."""
    FOLDER_MISSING = 66
    """The trial's folder is not there, on this machine."""
    BUSY = 75
    """Another process runs the trial."""
    STOPPED = 130
    """By Ctrl-C, or by the driver after it; there is a checkpoint."""


class WorkerEnvironment(NamedTuple):
    """What a trial takes over from the process that ordered it, on whatever machine it runs."""

    directory: str
    """That relative paths of recipes count from."""
    cache: str | None
    """``MAOTUNE_CACHE``."""

    @classmethod
    def current(cls) -> "WorkerEnvironment":
        """Of this process."""
        return cls(os.getcwd(), os.environ.get("MAOTUNE_CACHE"))

    def apply(self) -> None:
        """Make them this process's own; a directory that this machine does not have is passed over."""
        with contextlib.suppress(FileNotFoundError):
            os.chdir(self.directory)
        if self.cache is not None:
            os.environ["MAOTUNE_CACHE"] = self.cache


def run_process(folder: Path, environment: WorkerEnvironment) -> ExitStatus:
    """What the process of a trial does on every engine: run it to its end, from where it stands; tell how it ended."""
    environment.apply()
    if not (folder / RECIPE).exists():
        return ExitStatus.FOLDER_MISSING
    try:
        with log_to_folder(folder):
            run_trial(folder)
    except LockTaken:
        return ExitStatus.BUSY
    except KeyboardInterrupt:
        return ExitStatus.STOPPED
    except Exception:
        return ExitStatus.FAILED
    return ExitStatus.FINISHED


def run_trial(folder: Path) -> None:
    """Run the trial in ``folder`` to its end, from its last checkpoint; nothing is done where it is finished.

    Raises:
        LockTaken: another process runs it.
        Exception: whatever went wrong; it stands in ``error.txt``, too.
    """
    with lock(folder / LOCK, LOCK_TIMEOUT):
        if (folder / RESULT).exists():
            return
        (folder / ERROR).unlink(missing_ok=True)
        try:
            recipe = Recipe.model_validate(json.loads((folder / RECIPE).read_text(encoding="utf-8")))
            tune_recipe(recipe, folder, resume=True, callback=_progress_writer(folder), estimates=False)
        except Exception:
            write_atomic(folder / ERROR, traceback.format_exc())
            raise


def record_failure(folder: Path, reason: str) -> None:
    """Write down why a trial is not tried again, unless it has been finished, or is run, by somebody else."""
    with contextlib.suppress(LockTaken), lock(folder / LOCK, LOCK_TIMEOUT):
        if not (folder / RESULT).exists():
            write_atomic(folder / ERROR, reason + "\n")


def failure_reason(folder: Path) -> str | None:
    """The last line of ``error.txt``, which says what went wrong; None where there is none."""
    try:
        lines = (folder / ERROR).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return None
    return lines[-1] if lines else "the reason could not be written"


def checkpoint_time(folder: Path) -> int:
    """A number that changes with every checkpoint; 0 before the first."""
    try:
        return (folder / f"{CHECKPOINT}.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def log_to_folder(folder: Path) -> Iterator[None]:
    """Keep what the library logs in the trial's folder."""
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter(f"%(asctime)s {socket.gethostname()} {os.getpid()} %(message)s"))
    log = logging.getLogger("maotune")
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
        handler.close()


def _progress_writer(folder: Path, every: float = 1.0) -> Callback:
    """Writes how far the trial is, at the beginning of each part and then every so many seconds."""
    state: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
    batches: dict[str, int] = {}
    images, since, last = 0, time.monotonic(), -every

    def listen(event: Any) -> None:
        nonlocal images, since, last
        now, before = time.monotonic(), state.get("stage")
        if isinstance(event, StageStarted):
            batches[event.stage] = event.batches
            images, since = 0, now
            state.update(stage=event.stage, done=event.done, total=event.epochs * event.batches)
        elif isinstance(event, StepDone):
            images += event.images
            rate = round(images / max(now - since, 1e-3), 1)
            state.update(stage=event.stage, done=event.epoch * batches[event.stage] + event.step, images_a_second=rate)
        elif isinstance(event, Progress):
            state.pop("images_a_second", None)
            state.update(stage=event.what, done=event.done, total=event.total)
        if now - last >= every or state.get("stage") != before:
            last = now
            write_atomic(folder / PROGRESS, json.dumps(state | {"time": time.time()}))

    return listen
