"""Per-image predictions of each stage, kept beside the result of a run."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict
from torch import Tensor

from maotune.files import read_json, write_json
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.protocol import Splits
from maotune.runs.record import read_record
from maotune.train.evaluate import Evaluation

log = logging.getLogger(__name__)

SCORING = "scoring.json"
"""File of a run's folder that holds its predictions."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Predictions for every scored image. Classes are numbers; images are in the order of the tests."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    classes: dict[str, list[str]]
    """Test -> names of the classes to choose from."""
    labels: dict[str, list[int]]
    """Test -> true classes."""
    predicted: dict[str, dict[str, list[int]]]
    """Prompts (a stage, or ``zeroshot``) -> test -> predicted classes."""
    pseudo_labels: dict[str, Any] | None
    """``classes``, and for each unlabelled image ``given``, ``true`` (-1: unknown, or none of the classes),
    ``confidence`` and ``images``, its name; of the first view where each view has a label of its own."""
    images: dict[str, list[str]] | None = None
    """Test -> names of the images; None in runs of older versions."""
    highest: dict[str, dict[str, dict[str, list[float]]]] | None = None
    """Prompts -> test -> list of classes (a test's name) -> the highest score of each image among these. Beside the
    test's own list those of the others, where the protocol has a joint vocabulary. None in runs of older versions."""
    neighbours: list[list[int]] | None = None
    """For each class that is tuned on, the K classes with the nearest names, itself first, where MAO used them."""

    @classmethod
    def of(
        cls,
        splits: Splits,
        evaluations: Mapping[str, Mapping[str, Evaluation]],
        pseudo_labels: PseudoLabels | None,
        neighbours: Tensor | None = None,
    ) -> "Scoring":
        """Collect the evaluations of a run (by prompts, then by test), its pseudo-labels and hard negatives."""
        return cls(
            classes={name: list(test.classes) for name, test in splits.tests.items()},
            labels={name: [sample.label for sample in test.samples] for name, test in splits.tests.items()},
            predicted={
                prompts: {name: evaluation.predictions.tolist() for name, evaluation in by_test.items()}
                for prompts, by_test in evaluations.items()
            },
            highest={
                prompts: {
                    name: {
                        among: [round(score, 4) for score in scores.tolist()]
                        for among, scores in {name: evaluation.highest, **evaluation.rivals}.items()
                    }
                    for name, evaluation in by_test.items()
                }
                for prompts, by_test in evaluations.items()
            },
            pseudo_labels=_pseudo_labels(splits, pseudo_labels),
            images={name: [sample.image.name for sample in test.samples] for name, test in splits.tests.items()},
            neighbours=None if neighbours is None else neighbours.tolist(),
        )

    def save(self, folder: Path) -> None:
        """Write ``scoring.json`` atomically."""
        write_json(folder / SCORING, asdict(self), indent=None)

    @classmethod
    def find(cls, folder: Path) -> "Scoring | None":
        """Read ``scoring.json`` of ``folder``; None where there is none that can be used."""
        try:
            return read_record(cls, read_json(folder / SCORING))
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("the predictions in %s are left out: %s", folder, error)
            return None


def _pseudo_labels(splits: Splits, pseudo_labels: PseudoLabels | None) -> dict[str, Any] | None:
    if pseudo_labels is None or splits.unlabelled is None:
        return None
    labels, confidence = pseudo_labels.first_view()
    return {
        "classes": list(splits.new_classes),
        "given": labels.tolist(),
        "true": list(splits.unlabelled.true_labels),
        "confidence": [round(value, 4) for value in confidence.tolist()],
        "images": list(pseudo_labels.images),
    }
