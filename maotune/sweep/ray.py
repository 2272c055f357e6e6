"""Back end for Ray clusters: a task per trial, each in a worker process of its own."""

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maotune.sweep.engine import Engine, SweepError, TrialExit
from maotune.sweep.trial import ExitStatus, WorkerEnvironment

NEEDS = {"num_cpus": 1.0}
"""Resources that Ray reserves per trial by default; and a GPU, where the cluster has any and recipes may use it."""


class RayEngine(Engine):
    """Ray core tasks. All nodes must share the file system of the sweep's folder, at the same path, and have maotune.

    Ray itself never retries a task: it would do so for ever where a trial needs more memory than there is.
    ``run_trials`` does, which knows whether a trial makes progress.

    Args:
        address: of the cluster: ``auto`` (the one that this machine is part of), ``HOST:PORT``, ``ray://HOST:PORT``.
        jobs: trials at a time; default: as many as fit.
        needs: arguments of ``ray.remote`` for a trial: ``num_cpus``, ``num_gpus`` (a fraction shares one), ``memory``.
        gpus: whether a trial takes a GPU, unless ``needs`` says so, where the cluster has any.

    Raises:
        SweepError: Ray is not installed, there is no cluster, or it never has what a trial needs.
    """

    def __init__(
        self,
        address: str = "auto",
        jobs: int | None = None,
        needs: Mapping[str, Any] | None = None,
        *,
        gpus: bool = True,
    ) -> None:
        self.jobs = jobs
        self._ray = _connected(address)
        available = self._ray.cluster_resources()
        resources = {**NEEDS, **({"num_gpus": 1.0} if gpus and available.get("GPU") else {}), **(needs or {})}
        _check(resources, available)
        try:
            remote = self._ray.remote(max_calls=1, max_retries=0, **resources)
        except (TypeError, ValueError) as error:
            raise SweepError(f"Ray refuses the resources of a trial ({error})") from error
        self._task = remote(_trial)
        self._running: dict[Any, Path] = {}  # by Ray's reference

    def start(self, folders: Sequence[Path]) -> None:
        """See ``Engine``."""
        for folder in folders:
            reference = self._task.options(name=folder.name).remote(str(folder), tuple(WorkerEnvironment.current()))
            self._running[reference] = folder

    def wait(self, seconds: float) -> list[TrialExit]:
        """See ``Engine``."""
        if not self._running:
            time.sleep(seconds)
            return []
        try:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=seconds)
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise SweepError(f"the Ray cluster is gone ({error}): the same command resumes when it is back") from error
        return [self._ended(reference, self._running.pop(reference)) for reference in ready]

    def _ended(self, reference: Any, folder: Path) -> TrialExit:
        known = self._ray.exceptions
        try:
            code, host = self._ray.get(reference)
        except known.OutOfMemoryError:
            return TrialExit(folder, None, "Ray killed it: its node was out of memory")
        except known.WorkerCrashedError:
            return TrialExit(folder, None, "its worker was killed")
        except known.NodeDiedError:
            return TrialExit(folder, None, "its node was lost")
        except known.TaskCancelledError:
            return TrialExit(folder, ExitStatus.STOPPED)
        except known.RayError as error:  # what it cannot import, for one
            return TrialExit(folder, None, " ".join(str(error).strip().splitlines()[-1:]) or type(error).__name__)
        return TrialExit(folder, ExitStatus(code), f"on {host}")

    def stop(self) -> None:
        """See ``Engine``."""
        for reference in self._running:
            self._ray.cancel(reference, force=False)

    def close(self) -> None:
        """See ``Engine``."""
        with contextlib.suppress(ConnectionError, self._ray.exceptions.RayError):  # a cluster that has gone
            for reference in self._running:
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _trial(folder: str, environment: tuple[str, str | None]) -> tuple[int, str]:
    """Run one trial in a worker; return its exit status and the host."""
    from maotune.sweep.trial import WorkerEnvironment, run_process

    return int(run_process(Path(folder), WorkerEnvironment(*environment))), socket.gethostname()


def _connected(address: str) -> Any:
    """Return the ray module, connected to the cluster."""
    try:
        import ray
    except ImportError:
        raise SweepError('the engine ray needs Ray, which is not installed: pip install "maotune[cluster]"') from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except Exception as error:  # of many kinds
        message = " ".join(str(error).strip().splitlines()[:1])
        raise SweepError(
            f"no Ray cluster at {address} ({message or type(error).__name__}): start one with `ray start --head` (on "
            "other machines `ray start --address HOST:PORT`), or give its --address"
        ) from error
    return ray


def _check(resources: Mapping[str, Any], available: Mapping[str, float]) -> None:
    """Refuse requests that the cluster can never meet: Ray would wait for ever."""
    for need, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
        if resources.get(need, 0) > available.get(resource, 0):
            raise SweepError(
                f"a trial needs {resources[need]:g} {resource} ({need}), the whole Ray cluster has "
                f"{available.get(resource, 0):g}: add nodes, or ask for less (--ask {need}=...)"
            )
