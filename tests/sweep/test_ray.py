"""Ray: two real nodes on this machine; one of them dies in the middle of a trial."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from maotune.sweep.manifest import Sweep
from tests.sweep.processes import children, kill, maotune, until

ASKED = ("--data", "icons-weather", "--learners", "coop,kgcoop", "--methods", "mao", "--seeds", "1,2")
SIZE = ("--shots", 2, "--epochs", 30, "data.views=1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "maotune[cluster]"'),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def node(ip: str, environment: dict[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Ray node of one core, all of whose processes are below the one that is returned."""
    ray = Path(sys.executable).parent / "ray"
    size = (
        "--num-cpus=1",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--object-store-memory=80000000",
        "--disable-usage-stats",
        "--block",
    )
    process = subprocess.Popen(
        [ray, "start", f"--node-ip-address={ip}", *options, *size],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        below = children(process.pid)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for pid in (process.pid, *below):
            kill(pid)
        process.wait()


def nodes(address: str, environment: dict[str, str]) -> int:
    """How many nodes the cluster has."""
    code = f"import ray; ray.init('{address}', logging_level='ERROR'); print(len(ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def running(sweep: Path) -> dict[int, Path]:
    """The trials of a sweep that have begun to tune, by process."""
    found = {}
    for path in sweep.glob("*/progress.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told.get("done", 0) > 0 and not (path.parent / "result.json").exists():
            found[told["pid"]] = path.parent
    return found


def test_a_lost_node_costs_no_trial(tmp_path: Path, output: Path, environment: dict[str, str]) -> None:
    sweep, port = tmp_path / "sweep", free_port()
    short = tempfile.mkdtemp(prefix="ray")  # the paths of Ray's sockets must not be long
    environment = {
        **environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",  # its 15 may starve a worker beside other tests
        "PYTHONPATH": os.getcwd(),
    }
    address = f"127.0.0.1:{port}"
    head = node(
        "127.0.0.1", environment, "--head", f"--port={port}", f"--temp-dir={short}", "--include-dashboard=false"
    )
    try:
        with head, node("127.0.0.2", environment, f"--address={address}") as second:
            until(lambda: nodes(address, environment) == 2, "two nodes")
            command = ("run", "base-to-new", *ASKED, *SIZE, "--folder", sweep, "--engine", "ray", "--address", address)
            with maotune(*command, output=output, environment=environment) as driver:
                there = lambda: {*running(sweep)} & {*children(second.pid)}  # noqa: E731
                until(lambda: driver.poll() is not None or bool(there()), "a trial there")
                assert there(), output.read_text()
                for pid in (second.pid, *children(second.pid)):
                    kill(pid)
                assert driver.wait() == 0, output.read_text()
    finally:
        shutil.rmtree(short, ignore_errors=True)
    said = output.read_text()
    assert "; restarting" in said
    trials = Sweep.read(sweep).trials
    assert len(trials) == 4
    assert all(trial.result() is not None for trial in trials)
