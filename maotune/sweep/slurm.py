"""Back end for Slurm, through submitit: a job array with an element per trial."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maotune.sweep.engine import Engine, SweepError, TrialExit
from maotune.sweep.trial import ExitStatus, WorkerEnvironment, run_process

FOLDER = "slurm"
"""Folder below the sweep's for scripts and logs of its jobs."""
NEEDS = {"timeout_min": 240, "cpus_per_task": 2}
"""Default resources of a job."""
COMMON = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
"""Parameters of submitit that are not Slurm's own."""
LARGEST = 1000
"""Largest number of elements of an array: Slurm's default limit."""


class SlurmTrial:
    """A job: one trial.

    submitit calls ``checkpoint`` ahead of a time limit or a preemption and queues the job again; the trial then resumes
    from its last checkpoint.
    """

    def __call__(self, folder: str, environment: tuple[str, str | None]) -> int:
        """Run the trial; return its exit status."""
        return int(run_process(Path(folder), WorkerEnvironment(*environment)))

    def checkpoint(self, *arguments: Any) -> Any:
        """Resubmit the same job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class SlurmEngine(Engine):
    """Slurm jobs. All nodes must share the file system of the sweep's folder, at the same path.

    Args:
        folder: of the sweep.
        jobs: trials at a time; default: as many as Slurm runs.
        needs: parameters of submitit: ``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``; and Slurm's
            own, ``partition``, ``account``, ``constraint``, ...
        cluster: ``slurm``, or ``local`` to try it with processes on this machine.

    Raises:
        SweepError: submitit is not installed, there is no Slurm, or a parameter is not known.
    """

    def __init__(
        self, folder: Path, jobs: int | None = None, needs: Mapping[str, Any] | None = None, cluster: str = "slurm"
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
        named = {key if key in COMMON else f"slurm_{key}": value for key, value in {**NEEDS, **(needs or {})}.items()}
        if jobs:
            named["slurm_array_parallelism"] = jobs
        try:
            self._executor = submitit.AutoExecutor(folder / FOLDER, cluster=cluster)
            self._executor.update_parameters(name="maotune", **named)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise SweepError(f"submitit refuses the resources of a job: {error}") from error
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
            message = str(error).strip().splitlines()
            return TrialExit(
                folder, None, f"job {job.job_id} ended as {state} ({message[-1] if message else 'no message'})"
            )

    def stop(self) -> None:
        """See ``Engine``."""
        self._stopping = True
        for job, _ in self._running:
            job.cancel(check=False)

    def close(self) -> None:
        """See ``Engine``."""
        self.stop()
