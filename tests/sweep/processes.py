"""The command in processes of its own, and the processes below them, to be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from maotune.cli import main; main()"]


def children(pid: int) -> list[int]:
    """All processes below ``pid``, the nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (name) state parent ...", and the name may hold anything
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def runs(pid: int) -> bool:
    """Whether a process is there, and has not just ended without a parent that asks for its exit status."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], what: str, seconds: float = 1800) -> None:
    """Wait for something that must happen; the limit only stops a test that would hang, on the busiest machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} seconds for {what}"
        time.sleep(0.05)


@contextmanager
def maotune(*arguments: object, output: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with what it says appended to a file; killed at the end with all below it."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        below = children(process.pid)
        for pid in (process.pid, *below):
            kill(pid)
        process.wait()
