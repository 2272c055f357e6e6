"""Slurm's engine through submitit's executor for one machine."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from maotune.sweep.engine import SweepError
from maotune.sweep.manifest import Sweep
from tests.sweep.processes import maotune

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason='needs submitit: pip install "maotune[slurm]"')

COMMAND = ("run", "base-to-new", "--data", "icons-weather", "--learners", "coop", "--methods", "plain,mao")
SIZE = ("--seeds", "1", "--shots", "1", "--epochs", "2", "data.views=1")
LOCAL = ("--engine", "slurm", "--address", "local")


@pytest.mark.slow
def test_a_sweep_through_submitit(tmp_path: Path, output: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "sweep"
    command = (*COMMAND, *SIZE, *LOCAL, "--ask", "timeout_min=30", "--folder", folder)
    with maotune(*command, output=output, environment=environment) as driver:
        assert driver.wait() == 0, output.read_text()
    trials = Sweep.read(folder).trials
    assert len(trials) == 2
    assert all(trial.result() is not None for trial in trials)
    assert list((folder / "slurm").glob("*_log.out")), "what the jobs had to say"


def test_without_slurm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maotune.sweep.slurm import SlurmEngine

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match=r"no Slurm here \(no sbatch\).*--address local"):
        SlurmEngine(tmp_path)


def test_what_slurm_does_not_know_is_named(tmp_path: Path) -> None:
    from maotune.sweep.slurm import SlurmEngine

    with pytest.raises(SweepError, match="partitoin"):
        SlurmEngine(tmp_path, needs={"partitoin": "gpu"}, cluster="local")
    with pytest.raises(SweepError, match="timeout_min"):
        SlurmEngine(tmp_path, needs={"timeout_min": "soon"}, cluster="local")
    SlurmEngine(tmp_path, needs={"partition": "gpu", "account": "me", "gpus_per_node": 1}, cluster="local")
