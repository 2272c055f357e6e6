"""Trials as Slurm jobs, through submitit: an array of them, each element a trial."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maotune.sweep.engine import Engine, SweepError, TrialExit
from maotune.sweep.trial import ExitStatus, WorkerEnvironment, run_process

FOLDER = "slurm"
"""Of a sweep's folder: scripts and logs of its jobs."""
ASKED = {"timeout_min": 240, "cpus_per_task": 2}
"""What a job asks for unless told otherwise."""
COMMON = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
"""Parameters of submitit that are not Slurm's own."""
LARGEST = 1000
"""Elements of an array, at most: Slurm's own limit unless its administrator sets another."""


class SlurmTrial:
    """What a job does: one trial. submitit calls ``checkpoint`` ahead of a time limit or a preemption, and queues the
    job again; the trial goes on from its last checkpoint then."""

    def __call__(self, folder: str, environment: tuple[str, str | None]) -> int:
        """Run the trial; returns how it ended."""
        return int(run_process(Path(folder), WorkerEnvironment(*environment)))

    def checkpoint(self, *arguments: Any) -> Any:
        """The same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class SlurmEngine(Engine):
    """Slurm jobs. The folder of the sweep must lie on a file system that all nodes share, at the same path.

    Args:
        folder: of the sweep.
        jobs: trials at a time; default: as many as Slurm runs.
        asked: parameters of submitit: ``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``; and Slurm's
            own, ``partition``, ``account``, ``constraint``, ...
        cluster: ``slurm``, or ``local`` to try it with processes on this machine.

    Raises:
        SweepError: submitit is not installed, there is no Slurm, or a parameter is not known.
    """

    def __init__(
        self, folder: Path, jobs: int | None = None, asked: Mapping[str, Any] | None = None, cluster: str = "slurm"
    ) -> None:
        self.jobs = jobs if cluster == "local" else None  # Slurm counts for itself
        try:
            import submitit
        except ImportError:
            raise SweepError(
                'the engine slurm needs submitit, which is not installed: pip install "maotune[slurm]"'
            ) from None
        if cluster == "slurm" and not shutil.which("sbatch"):
            raise SweepError(
                "there is no Slurm here (no sbatch): run this on a login node, or give --address local to try it "
                "with processes on this machine"
            )
        named = {key if key in COMMON else f"slurm_{key}": value for key, value in {**ASKED, **(asked or {})}.items()}
        if jobs:
            named["slurm_array_parallelism"] = jobs
        try:
            self._executor = submitit.AutoExecutor(folder / FOLDER, cluster=cluster)
            self._executor.update_parameters(name="maotune", **named)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise SweepError(f"submitit does not take what a job shall ask for: {error}") from error
        self._lost = (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError)
        self._running: list[tuple[Any, Path]] = []
        self._stopping = False

    def start(self, folders: Sequence[Path]) -> None:
        """See ``Engine``."""
        here = tuple(WorkerEnvironment.current())
        for first in range(0, len(folders), LARGEST):
            some = folders[first : first + LARGEST]
            jobs = self._executor.map_array(SlurmTrial(), [str(folder) for folder in some], [here] * len(some))
            self._running += zip(jobs, some, strict=True)

    def wait(self, seconds: float) -> list[TrialExit]:
        """See ``Engine``."""
        # Slurm is asked about jobs without a result once a minute, unless there is reason to hurry.
        ended = [(job, folder) for job, folder in self._running if job.done(force_check=self._stopping)]
        if not ended:
            time.sleep(seconds)
            return []
        self._running = [pair for pair in self._running if pair not in ended]
        return [self._ended(job, folder) for job, folder in ended]

    def _ended(self, job: Any, folder: Path) -> TrialExit:
        try:
            return TrialExit(folder, ExitStatus(job.result()), f"job {job.job_id}")
        except self._lost as error:
            state = str(job.state)
            if state.startswith("CANCELLED"):
                return TrialExit(folder, ExitStatus.FAILED, f"job {job.job_id} was cancelled")
            said = str(error).strip().splitlines()
            return TrialExit(folder, None, f"job {job.job_id} ended as {state} ({said[-1] if said else 'no message'})")

    def stop(self) -> None:
        """See ``Engine``."""
        self._stopping = True
        for job, _ in self._running:
            job.cancel(check=False)

    def close(self) -> None:
        """See ``Engine``."""
        self.stop()
