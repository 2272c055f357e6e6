"""One trial: an idempotent process that resumes where the last one was killed."""

import contextlib
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

from maotune.files import LockTaken, lock, read_json, write_atomic, write_json
from maotune.recipe import Recipe
from maotune.runs.events import Callback, Progress
from maotune.runs.folder import LOCK, LOCK_TIMEOUT, RECIPE
from maotune.runs.result import is_finished
from maotune.runs.tune import tune_recipe
from maotune.train.history import StageStarted, StepDone
from maotune.train.session import CHECKPOINT

PROGRESS = "progress.json"
"""File with the progress of a trial, and where it runs."""
ERROR = "error.txt"
"""File with the reason of a failure."""
LOG = "log.txt"
"""File with the log of a trial's processes."""


class ExitStatus(IntEnum):
    """Exit code of a trial's process."""

    FINISHED = 0
    FAILED = 1
    """The reason is in ``error.txt``."""
    FOLDER_MISSING = 66
    """The trial's folder does not exist on this machine."""
    BUSY = 75
    """Another process runs the trial."""
    STOPPED = 130
    """Stopped by Ctrl-C, or by the driver after it; there is a checkpoint."""


class WorkerEnvironment(NamedTuple):
    """Environment that a trial's process takes over from its driver, on whatever machine it runs."""

    directory: str
    """Working directory: relative paths of recipes are relative to it."""
    cache: str | None
    """``MAOTUNE_CACHE``."""

    @classmethod
    def current(cls) -> "WorkerEnvironment":
        """Return the environment of this process."""
        return cls(os.getcwd(), os.environ.get("MAOTUNE_CACHE"))

    def apply(self) -> None:
        """Apply to this process; a directory that this machine lacks is ignored."""
        with contextlib.suppress(FileNotFoundError):
            os.chdir(self.directory)
        if self.cache is not None:
            os.environ["MAOTUNE_CACHE"] = self.cache


def run_process(folder: Path, environment: WorkerEnvironment) -> ExitStatus:
    """Run a trial to its end from its last checkpoint; this is what every engine runs. Return the exit status."""
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
    """Run the trial in ``folder`` to its end, from its last checkpoint; do nothing if it is finished.

    Raises:
        LockTaken: another process runs it.
        Exception: any failure, which is also written to ``error.txt``.
    """
    with lock(folder / LOCK, LOCK_TIMEOUT):
        if is_finished(folder):
            return
        (folder / ERROR).unlink(missing_ok=True)
        try:
            recipe = Recipe.from_record(read_json(folder / RECIPE))
            tune_recipe(recipe, folder, resume=True, locked=True, callback=_progress_writer(folder), estimates=False)
        except Exception:
            write_atomic(folder / ERROR, traceback.format_exc())
            raise


def record_failure(folder: Path, reason: str) -> None:
    """Record why a trial is not retried, unless somebody else has finished it or is running it."""
    with contextlib.suppress(LockTaken), lock(folder / LOCK, LOCK_TIMEOUT):
        if not is_finished(folder):
            write_atomic(folder / ERROR, reason + "\n")


def failure_reason(folder: Path) -> str | None:
    """Return the last line of ``error.txt``, which is the message; None where there is none."""
    try:
        lines = (folder / ERROR).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return None
    return lines[-1] if lines else "the reason could not be written"


def checkpoint_time(folder: Path) -> int:
    """Return the time of the last checkpoint, which tells progress from none; 0 before the first."""
    try:
        return (folder / f"{CHECKPOINT}.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def log_to_folder(folder: Path) -> Iterator[None]:
    """Write what the library logs to the trial's folder."""
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
    """Return a callback that writes the progress of a trial, at the start of each part and then every few seconds."""
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
            write_json(folder / PROGRESS, state | {"time": time.time()})

    return listen
