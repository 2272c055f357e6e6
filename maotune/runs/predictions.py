"""What every set of prompts took every scored image for, kept beside a result: what accuracies are made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maotune.files import write_atomic
from maotune.mao.pseudo_labels import PseudoLabels
from maotune.protocols.protocol import Splits
from maotune.train.evaluate import Evaluation

SCORING = "scoring.json"
"""The file of a run's folder that says what was taken for what."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Labels as numbers of classes; images in the order of ``Splits.tests[test].samples``."""

    classes: dict[str, list[str]]
    """By test: what there was to choose from."""
    labels: dict[str, list[int]]
    """By test: what is right."""
    predicted: dict[str, dict[str, list[int]]]
    """By prompts (the name of a stage, or ``zeroshot``), then by test: what they said."""
    pseudo_labels: dict[str, Any] | None
    """``classes``, and for each unlabelled image ``given``, ``true`` (-1: unknown, or none of the classes) and
    ``confidence``; of the first view where each view has a label of its own."""

    @classmethod
    def of(
        cls, splits: Splits, evaluations: Mapping[str, Mapping[str, Evaluation]], pseudo_labels: PseudoLabels | None
    ) -> "Scoring":
        """From evaluations by prompts, then by test."""
        return cls(
            classes={name: list(test.classes) for name, test in splits.tests.items()},
            labels={name: [sample.label for sample in test.samples] for name, test in splits.tests.items()},
            predicted={
                prompts: {name: evaluation.predictions.tolist() for name, evaluation in of_tests.items()}
                for prompts, of_tests in evaluations.items()
            },
            pseudo_labels=_pseudo_labels(splits, pseudo_labels),
        )

    def save(self, folder: Path) -> None:
        """Write ``scoring.json``, whole or not at all."""
        write_atomic(folder / SCORING, json.dumps(asdict(self), separators=(",", ":")) + "\n")

    @classmethod
    def find(cls, folder: Path) -> "Scoring | None":
        """What ``save`` wrote into ``folder``; None where there is none."""
        path = folder / SCORING
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _pseudo_labels(splits: Splits, made: PseudoLabels | None) -> dict[str, Any] | None:
    if made is None or splits.unlabelled is None:
        return None
    labels, confidence = made.first_view()
    truth: Sequence[int] = splits.unlabelled.true_labels
    return {
        "classes": list(splits.new_classes),
        "given": labels.tolist(),
        "true": list(truth),
        "confidence": [round(value, 4) for value in confidence.tolist()],
    }
