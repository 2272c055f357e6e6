"""One trial: an idempotent process that goes on where the last one was killed."""

import fcntl
import json
import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maotune.api import tune_recipe
from maotune.protocols.run import RESULT, Listener
from maotune.recipe import Recipe
from maotune.sweep.manifest import RECIPE
from maotune.train.history import StageStarted, StepDone

PROGRESS = "progress.json"
"""How far a trial is, and where it runs."""
ERROR = "error.txt"
"""Why a trial failed."""
LOCK = "lock"
BUSY = 75
"""Exit code of a process that found its trial being run by another one (EX_TEMPFAIL)."""


class TrialBusy(RuntimeError):
    """Another process is running this trial."""


def run_trial(folder: Path) -> None:
    """Run the trial in ``folder`` to its end, from its last checkpoint; nothing is done where it is finished.

    Raises:
        TrialBusy: another process is at it.
        Exception: whatever went wrong; it stands in ``error.txt``, too.
    """
    with locked(folder):
        if (folder / RESULT).exists():
            return
        (folder / ERROR).unlink(missing_ok=True)
        try:
            recipe = Recipe.model_validate(json.loads((folder / RECIPE).read_text(encoding="utf-8")))
            tune_recipe(recipe, folder, resume=True, listen=_reporter(folder), estimates=False)
        except Exception:
            (folder / ERROR).write_text(traceback.format_exc(), encoding="utf-8")
            raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the trial in ``folder``; the system lets go of it when the process ends, however it ends."""
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrialBusy(f"{folder} is being run by another process") from None
        yield


def _reporter(folder: Path, every: float = 2.0) -> Listener:
    """Writes how far the trial is, every few seconds."""
    state: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}
    batches: dict[str, int] = {}
    last = 0.0

    def listen(event: Any) -> None:
        nonlocal last
        if isinstance(event, StageStarted):
            batches[event.stage] = event.batches
            state.update(stage=event.stage, done=event.done, total=event.epochs * event.batches)
        elif isinstance(event, StepDone):
            state["done"] = event.epoch * batches[event.stage] + event.step
        if time.monotonic() - last >= every:
            last = time.monotonic()
            temporary = folder / f"{PROGRESS}.tmp"
            temporary.write_text(json.dumps(state | {"time": time.time()}), encoding="utf-8")
            os.replace(temporary, folder / PROGRESS)

    return listen
