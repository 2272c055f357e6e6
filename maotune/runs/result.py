"""The result of a run, and its file."""

import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from typing_extensions import TypedDict

from maotune.contract import Predictors
from maotune.files import DamagedFile, read_json, write_json
from maotune.protocols.protocol import CROSS_VALIDATED
from maotune.runs.calibration import Calibration
from maotune.runs.comparison import Comparison
from maotune.runs.record import read_record
from maotune.train.session import CheckpointError

log = logging.getLogger(__name__)

RESULT = "result.json"
"""File of a run's folder that holds its result."""


class StageResult(TypedDict):
    """One stage of a run."""

    name: str
    updates: int
    images: int
    seconds: float
    losses: list[dict[str, float]]
    """Per epoch."""
    accuracy: dict[str, float]
    """Of its prompts, by test."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores and circumstances of a finished run, in numbers that JSON can hold. Accuracies in percent."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    dataset: str
    protocol: str
    learner: str
    method: str
    seed: int
    shots: int
    scores: dict[str, float]
    """Accuracy by test, and what sums them up: ``base``, ``new`` and their harmonic mean ``h``; ``val`` and ``test`` in
    adapt; ``all`` in few-shot; the data sets and their ``average`` in cross-dataset."""
    scored_with: dict[str, str]
    """Test -> the stage whose prompts scored it, a mixture (``0.8 plain + 0.2 parallel``), or ``zeroshot``."""
    zeroshot: dict[str, float]
    """``scores`` of zero-shot CLIP."""
    stages: list[StageResult]
    """Per stage: updates, images, seconds, losses per epoch, accuracy of its prompts on every test."""
    pseudo_labels: dict[str, float] | None
    """Quality of the pseudo-labels, where there are any."""
    skipped: list[dict[str, str]]
    """What was left out, with its kind and the reason: by the reader of the data, and images that could not be read."""
    templates: list[str]
    """Texts of zero-shot CLIP."""
    parameters: int
    """Number of learnable parameters."""
    peak_memory: int
    """Peak memory in bytes."""
    seconds: float
    """Wall time of the process that finished the run; seconds of stages count all processes."""
    environment: dict[str, Any]
    recipe: dict[str, Any]
    mean_per_class: dict[str, float] = field(default_factory=dict)
    """Test -> mean of the accuracies of its classes, beside that over images in ``scores``. Older versions: none."""
    departures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings that are not the paper's: dotted key -> value ``here`` and in the ``paper``. Older versions: none."""
    comparison: Comparison | None = None
    """What the prompts were chosen by, in adapt with cross-validation or the method best. Older versions: none."""
    remarks: list[str] = field(default_factory=list)
    """What is wrong with copies of pictures (two labels, tuned on and scored), and which show nothing."""
    labeler_alone: dict[str, dict[str, float]] = field(default_factory=dict)
    """``transductive``, ``inductive`` -> ``scores`` of the labeler of the unlabelled images, with no tuning. Runs
    without a new stage, and older versions: none."""
    predictors: Predictors | None = None
    """Whose prompts predict which classes, also in lists that were not scored. Older versions: none."""

    calibration: dict[str, Calibration] = field(default_factory=dict)
    """Prompts -> what held-out labelled images say of their probabilities: runs on own images. Older versions: none."""

    @property
    def cross_validated(self) -> bool:
        """Whether all labelled images were tuned on, and scored by cross-validation."""
        return CROSS_VALIDATED in self.scores

    def prompts_for(self, classes: Collection[str], base_classes: Collection[str]) -> str:
        """Return whose prompts predict among ``classes``.

        Raises:
            LookupError: a result of an older version does not say.
        """
        scored_with = [*self.scored_with.values()]  # of base and new, in this order, or of tests that all have the same
        predictors = self.predictors or Predictors(scored_with[0], scored_with[-1])
        return predictors.of(classes, base_classes)

    def save(self, folder: Path) -> None:
        """Write ``result.json`` atomically."""
        write_json(folder / RESULT, asdict(self))

    @classmethod
    def find(cls, folder: Path) -> "Result | None":
        """Read ``result.json`` of ``folder``; None where no run has been finished there.

        Raises:
            CheckpointError: it is damaged, or of a version of maotune with other results.
        """
        path = folder / RESULT
        try:
            return read_record(cls, read_json(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            reason = error.reason if isinstance(error, DamagedFile) else error
            raise CheckpointError(
                f"{path} is damaged or was not written by this version of maotune ({reason}): choose another folder, "
                "or delete it, and the run is scored again when it is resumed"
            ) from error


def is_finished(folder: Path) -> bool:
    """Whether a run has been finished in ``folder``; one whose result is damaged must be scored again."""
    try:
        read_json(folder / RESULT)
    except FileNotFoundError:
        return False
    except DamagedFile as error:
        log.warning("%s: the run is scored again", error)
        return False
    return True
