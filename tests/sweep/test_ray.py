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
from tests.sweep.processes import children, kill, maotune, runs, until
from tests.sweep.test_kill import numbers

ASKED = ("--data", "icons-weather", "--learners", "coop,kgcoop", "--methods", "mao", "--seeds", "1,2")
SIZE = ("--shots", 2, "--epochs", 30, "data.views=1")
KILLS = 5

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


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray head node with a token; its address, and the environment to reach it."""
    port, short = free_port(), tempfile.mkdtemp(prefix="ray")  # the paths of Ray's sockets must not be long
    environment = {
        **environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_worker_niceness": "0",  # its 15 may starve a worker beside other tests
        "PYTHONPATH": os.getcwd(),
    }
    options = ("--head", f"--port={port}", f"--temp-dir={short}", "--include-dashboard=false")
    try:
        with node("127.0.0.1", environment, *options):
            yield f"127.0.0.1:{port}", environment
    finally:
        shutil.rmtree(short, ignore_errors=True)


def test_a_lost_node_costs_no_trial(tmp_path: Path, output: Path, environment: dict[str, str]) -> None:
    sweep = tmp_path / "sweep"
    with (
        cluster(environment) as (address, environment),
        node("127.0.0.2", environment, f"--address={address}") as second,
    ):
        until(lambda: nodes(address, environment) == 2, "two nodes")
        command = ("run", "base-to-new", *ASKED, *SIZE, "--folder", sweep, "--engine", "ray", "--address", address)
        with maotune(*command, output=output, environment=environment) as driver:
            there = lambda: {*running(sweep)} & {*children(second.pid)}  # noqa: E731
            until(lambda: driver.poll() is not None or bool(there()), "a trial there")
            assert there(), output.read_text()
            for pid in (second.pid, *children(second.pid)):
                kill(pid)
            assert driver.wait() == 0, output.read_text()
    said = output.read_text()
    assert "; restarting" in said
    trials = Sweep.read(sweep).trials
    assert len(trials) == 4
    assert all(trial.result() is not None for trial in trials)


def test_kills_of_the_driver_change_nothing(tmp_path: Path, output: Path, environment: dict[str, str]) -> None:
    torn, whole = tmp_path / "torn", tmp_path / "whole"
    few = ("run", "base-to-new", "--data", "icons-weather", "--learners", "coop", "--methods", "mao", "--seeds", "1,2")
    kills = 0
    with cluster(environment) as (address, environment):
        until(lambda: nodes(address, environment) == 1, "the node")
        command = (*few, *SIZE, "--folder", torn, "--engine", "ray", "--address", address)
        while kills < KILLS:
            with maotune(*command, output=output, environment=environment) as driver:
                before = {path: path.stat().st_mtime_ns for path in torn.glob("*/checkpoint.safetensors")}
                further = lambda: any(  # noqa: E731
                    path.stat().st_mtime_ns != before.get(path)  # noqa: B023
                    for path in torn.glob("*/checkpoint.safetensors")
                )
                until(lambda: driver.poll() is not None or further(), "a checkpoint")  # noqa: B023
                assert driver.poll() is None, f"finished ahead of {KILLS - kills} kills: {output.read_text()}"
                trials = [*running(torn)]
                kill(driver.pid)
                driver.wait()
            kills += 1
            until(lambda: not any(map(runs, trials)), "Ray to end the trials of its driver")  # noqa: B023
        with maotune(*command, output=output, environment=environment) as driver:
            assert driver.wait() == 0, output.read_text()
    with maotune(*few, *SIZE, "--folder", whole, output=output, environment=environment) as driver:
        assert driver.wait() == 0, output.read_text()
    assert numbers(torn) == numbers(whole)
    print(f"killed the driver {kills} times")
