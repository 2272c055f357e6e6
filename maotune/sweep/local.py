"""Back end for this machine: a few processes at a time, one per trial."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from maotune.sweep.engine import Engine, TrialExit
from maotune.sweep.trial import LOG, ExitStatus, WorkerEnvironment

log = logging.getLogger(__name__)

MEMORY = 4e9
"""Memory in bytes that a trial on a CPU may need; sets the default number of trials at a time."""
LOST_SERVER = 255
"""Exit code of a process whose fork server was killed, so that its real exit status is unknown."""


class _Running(NamedTuple):
    process: ForkServerProcess
    folder: Path
    device: str | None


class LocalEngine(Engine):
    """Processes forked from a server that has imported everything and computed nothing, so they start at once.

    All end when this process ends, however it ends, and so does the server.

    Args:
        jobs: processes at a time; default: one for each of ``devices``, or, on CPUs, for each core (and each 4 GB).
        devices: what CUDA_VISIBLE_DEVICES may hold, one for a process, the least busy first; empty: left as it is.
    """

    def __init__(self, jobs: int | None = None, devices: Sequence[str] = ()) -> None:
        self.jobs: int = jobs or len(devices) or default_jobs()
        self.threads = max(1, cores() // self.jobs)
        """Threads of each process, unless OMP_NUM_THREADS says otherwise."""
        self.devices = tuple(devices)
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["maotune.sweep.preload"])
        self._running: dict[int, _Running] = {}  # by sentinel

    def start(self, folders: Sequence[Path]) -> None:
        """See ``Engine``."""
        for folder in folders:
            taken = Counter(running.device for running in self._running.values())
            device = min(self.devices, key=lambda name: taken[name], default=None)
            process = self._fork((folder, WorkerEnvironment.current(), self.threads, device))
            self._running[process.sentinel] = _Running(process, folder, device)

    def _fork(self, arguments: tuple[Path, WorkerEnvironment, int, str | None], tries: int = 5) -> ForkServerProcess:
        """Start a process; from a new fork server if the old one was killed."""
        for left in reversed(range(tries)):
            process = self._context.Process(target=_process, args=arguments, name=arguments[0].name)
            try:
                process.start()
            except (OSError, EOFError):
                if not left:
                    raise
                time.sleep(0.2)
                continue
            break
        return process

    def wait(self, seconds: float) -> list[TrialExit]:
        """See ``Engine``."""
        ended = []
        if not self._running:
            time.sleep(seconds)
        for sentinel in connection.wait(list(self._running), seconds):
            assert isinstance(sentinel, int)
            process, folder, _ = self._running.pop(sentinel)
            process.join()
            code = process.exitcode
            process.close()  # a process that has lost its server sees this, and ends
            ended.append(_ended(folder, LOST_SERVER if code is None else code))
        return ended

    def stop(self) -> None:
        """See ``Engine``."""
        self._signal(signal.SIGINT)

    def close(self) -> None:
        """See ``Engine``."""
        self._signal(signal.SIGKILL)
        while self._running:
            self.wait(1.0)

    def _signal(self, number: signal.Signals) -> None:
        for process, _, _ in self._running.values():
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)


def _ended(folder: Path, code: int) -> TrialExit:
    if code == -signal.SIGKILL:
        return TrialExit(folder, None, "killed (out of memory?)")
    if code < 0:
        return TrialExit(folder, None, f"killed by {signal.Signals(-code).name} (see {LOG})")
    if code == LOST_SERVER:
        return TrialExit(folder, None, "lost with the server that it was forked from")
    return TrialExit(folder, ExitStatus(code) if code in [*ExitStatus] else ExitStatus.FAILED)


def _process(folder: Path, environment: WorkerEnvironment, threads: int, device: str | None) -> None:
    """Run one trial in a forked process."""
    os.setpgid(0, 0)  # Ctrl-C goes to the driver alone, which tells us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _write_to_log(folder)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    import torch

    from maotune.sweep.trial import run_process

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    sys.exit(run_process(folder, environment))


def _write_to_log(folder: Path) -> None:
    """Redirect output of libraries to the trial's log, away from the driver's display."""
    with contextlib.suppress(OSError), (folder / LOG).open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _end_with_parent() -> None:
    """End this process with its driver: otherwise it would hold its lock against the next driver."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """Return the default number of trials at a time on CPUs: small models tune fastest with a core each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores(), int(memory / MEMORY)))


def visible_devices() -> list[str]:
    """Return the CUDA devices for trials, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name][: torch.cuda.device_count()]
    return [str(number) for number in range(torch.cuda.device_count())]
