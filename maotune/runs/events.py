"""Events that a run reports to its callback."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from maotune.contract import Stage
from maotune.train.history import Event


@dataclass(frozen=True, slots=True)
class Progress:
    """Images that have been read, encoded or scored so far."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Estimated cost of a run: seconds by part, and bytes."""

    features: int
    """Number of image features that are not in the bank yet."""
    encoding: float
    """Seconds to compute these."""
    tuning: float
    scoring: float
    """Seconds of scoring, where it takes more than features from the bank."""
    memory: int
    """Peak memory in bytes: of the CUDA device, else of the process."""

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.encoding + self.tuning + self.scoring

    def __str__(self) -> str:
        parts = {"image features": self.encoding, "tuning": self.tuning, "scoring": self.scoring}
        spent = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items() if seconds > 0)
        return f"estimated {duration(self.seconds)} ({spent}) and {self.memory / 1e9:.1f} GB of memory"


def duration(seconds: float) -> str:
    """Write seconds as people do: ``2.5 min``."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


@dataclass(frozen=True)
class RunPlan:
    """Plan of a run, reported before it begins."""

    recipe: str
    """Which recipe is run, and where it departs from the paper's settings."""
    stages: Sequence[Stage]
    shots: int
    """Labelled images."""
    unlabelled: int
    tests: Mapping[str, int]
    """Images to score, by test."""
    views: int
    """Features per image in the bank; 0 where the image tower is tuned."""
    candidates: float | None
    """Mean number of classes in a batch of MAO's base stage, where the loss is over these alone."""
    parameters: int
    remarks: Sequence[str]
    """What is wrong with copies of pictures, a sentence each."""
    estimate: CostEstimate
    """Of all fits."""
    folds: int = 0
    """Fits before the one on all images, each without a fold of them."""

    @property
    def updates(self) -> int:
        """Updates of all stages."""
        return sum(stage.epochs * (stage.updates or 0) for stage in self.stages)

    def __str__(self) -> str:
        stages = ", then ".join(
            f"{stage.name}: "
            + (f"{stage.epochs} x {stage.updates} updates" if stage.epochs else "in closed form")
            + f" over {len(stage.classes)} classes"
            + (f", {self.candidates:.1f} a batch on average" if self.candidates and stage.batch_candidates else "")
            for stage in self.stages
        )
        validation = self.tests.get("val", 0)
        scored = [f"{validation} validation"] * bool(validation) + [f"{sum(self.tests.values()) - validation} test"]
        images = f"{self.shots} labelled, {self.unlabelled} unlabelled, {', '.join(scored)} images"
        views = f"{self.views} views of each from the bank" if self.views else "the image tower in each step"
        folds = f"; before that, the same without each of {self.folds} folds, to choose" if self.folds else ""
        return (
            f"plan: {stages} (epochs x updates, {self.updates:,} in all); {self.parameters:,} parameters{folds}\n"
            f"      {images}; {views}; {self.estimate.features:,} image features to compute\n"
            f"      {self.estimate}\n"
            f"      {self.recipe}" + "".join(f"\n      note: {remark}" for remark in self.remarks)
        )


Callback = Callable[[Event | Progress | RunPlan], None]
"""Called with what happens, as it happens."""
