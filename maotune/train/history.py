"""Records of a run, and the events that are reported while it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class EpochRecord:
    """Record of an epoch, finished or not."""

    lr: float = 0.0
    """Learning rate of this epoch (of parameter groups with factor 1)."""
    batches: int = 0
    updates: int = 0
    """Optimizer steps: one per batch, unless gradients are accumulated."""
    images: int = 0
    seconds: float = 0.0
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Terms of the loss, summed over the batches."""

    @property
    def losses(self) -> dict[str, float]:
        """Terms of the loss, mean over the batches."""
        return {name: value / self.batches for name, value in self.loss_sums.items()}

    def add(self, losses: Mapping[str, float], images: int, seconds: float) -> None:
        """Add a batch."""
        self.batches += 1
        self.images += images
        self.seconds += seconds
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value


@dataclass
class StageRecord:
    """Record of a stage, finished or not."""

    name: str
    epochs: list[EpochRecord] = field(default_factory=list)
    """The finished epochs."""
    current: EpochRecord = field(default_factory=EpochRecord)
    """The current epoch; with ``epochs`` it gives the position in the stage."""
    prompts: dict[str, Tensor] | None = None
    """Tuned parameters at the end of the stage (averaged, where averaging is on); None until it is finished."""

    def close_epoch(self) -> None:
        """Begin the next epoch."""
        self.epochs.append(self.current)
        self.current = EpochRecord()

    @property
    def batches(self) -> int:
        """Batches so far."""
        return sum(epoch.batches for epoch in (*self.epochs, self.current))

    @property
    def updates(self) -> int:
        """Updates so far."""
        return sum(epoch.updates for epoch in (*self.epochs, self.current))

    @property
    def images(self) -> int:
        """Images so far; an image counts each time it is used."""
        return sum(epoch.images for epoch in (*self.epochs, self.current))

    @property
    def seconds(self) -> float:
        """Seconds of tuning, without computing the features of the batches."""
        return sum(epoch.seconds for epoch in (*self.epochs, self.current))


@dataclass
class History:
    """Record of a run: its stages in order. Also the position at which an interrupted run is resumed."""

    stages: list[StageRecord] = field(default_factory=list)
    peak_memory: int = 0
    """Bytes: allocated on the CUDA device, else resident in the process."""

    def __getitem__(self, stage: str) -> StageRecord:
        """Return the record of a stage by name."""
        for record in self.stages:
            if record.name == stage:
                return record
        raise KeyError(f"no stage {stage!r}; there are {', '.join(record.name for record in self.stages) or 'none'}")

    def to_json(self) -> dict[str, Any]:
        """Return numbers and names, without the prompts."""
        return {
            "peak_memory": self.peak_memory,
            "stages": [
                {
                    "name": stage.name,
                    "finished": stage.prompts is not None,
                    "epochs": [vars(epoch) for epoch in stage.epochs],
                    "current": vars(stage.current),
                }
                for stage in self.stages
            ],
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "History":
        """Invert ``to_json``; the prompts of finished stages stay empty until they are loaded."""
        stages = [
            StageRecord(
                name=stage["name"],
                epochs=[EpochRecord(**epoch) for epoch in stage["epochs"]],
                current=EpochRecord(**stage["current"]),
                prompts={} if stage["finished"] else None,
            )
            for stage in tree["stages"]
        ]
        return cls(stages, tree["peak_memory"])


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins or is resumed."""

    stage: str
    classes: int
    epochs: int
    batches: int
    """Batches per epoch."""
    done: int
    """Batches of the stage that were done before the run was interrupted."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One update is done."""

    stage: str
    epoch: int
    """From 0."""
    step: int
    """Batches done in this epoch."""
    losses: dict[str, float]
    """Terms of the loss on the last batch."""
    lr: float
    images: int
    """Images in the last batch."""


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is done and a checkpoint is written."""

    stage: str
    epoch: int
    record: EpochRecord


@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage is done and its prompts are saved."""

    stage: str
    record: StageRecord


Event = StageStarted | StepDone | EpochDone | StageDone
