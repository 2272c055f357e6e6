"""Trials on this machine: a few processes at a time, one for each trial."""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerProcess
from pathlib import Path

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a trial is begun again after its process was killed, in one sweep."""


def run_local(folders: Sequence[Path], jobs: int, on_end: Callable[[Path], None] = lambda folder: None) -> None:
    """Run the trials in ``folders``, ``jobs`` at a time, each in a process of its own.

    The processes fork from a server that has imported everything and computed nothing, so they begin at once. A killed
    one is begun again, and goes on from its checkpoint; all end when this process ends, however it ends.

    Args:
        folders: of the trials.
        jobs: processes at a time.
        on_end: called with the folder of each trial whose process has ended for good.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    context = get_context("forkserver")
    context.set_forkserver_preload(["maotune.sweep.trial"])
    waiting = deque((folder, 1) for folder in folders)
    running: dict[object, tuple[ForkServerProcess, Path, int]] = {}  # by sentinel
    while waiting or running:
        while waiting and len(running) < jobs:
            folder, attempt = waiting.popleft()
            process = context.Process(target=_process, args=(folder,), name=folder.name)
            process.start()
            running[process.sentinel] = (process, folder, attempt)
        for sentinel in connection.wait([process.sentinel for process, _, _ in running.values()]):
            process, folder, attempt = running.pop(sentinel)
            process.join()
            code = process.exitcode or 0
            if code < 0 and attempt < ATTEMPTS:
                log.warning("%s was killed (signal %d): it is begun again", folder.name, -code)
                waiting.appendleft((folder, attempt + 1))
            else:
                on_end(folder)


def _process(folder: Path) -> None:
    """What a process does: one trial."""
    from maotune.sweep.trial import BUSY, TrialBusy, run_trial

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_trial(folder)
    except TrialBusy:
        sys.exit(BUSY)
    except Exception:
        sys.exit(1)  # the reason stands in the trial's folder


def _end_with_parent() -> None:
    """A trial whose driver was killed would hold its lock against the next driver."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        time.sleep(0.1)
        os._exit(1)
