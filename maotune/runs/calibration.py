"""How far the probabilities of prompts can be trusted: a temperature, and the precision above a confidence.

All of it is learned from labelled images that the prompts were not tuned on.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor
from typing_extensions import TypedDict

_SPREAD = 1.0
"""Standard deviation of the logarithm of a temperature that is expected before any image is seen: a few images that are
all right do not make the model sure of everything."""
_MOST_POINTS = 100
"""Of a curve that is kept with a run."""
_KNOWN = 0.95
"""Share of images of known classes whose resemblance is to be high enough."""


class Precision(TypedDict):
    """What holds for answers of at least a ``confidence``."""

    confidence: float
    coverage: float
    """Share of the held-out images that are answered."""
    precision: float
    """Share of these answers that can be expected to be right: the lower of what was counted, where one error more than
    was seen counts, and of the mean of the calibrated probabilities, as the luckiest of many thresholds is chosen."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What held-out labelled images say of the probabilities of prompts."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    images: int
    temperature: Annotated[float, Field(gt=0)]
    """By which scores are divided, so that probabilities say how often an answer is right."""
    curve: list[Precision]
    """By decreasing coverage; each point is more precise than those before."""
    resemblance: float
    """Lowest resemblance to the classes (``resemblance_of``) of all but 5 % of the images."""

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Calibration":
        """Learn from the scores (N, C) of held-out images, and their labels (N,)."""
        temperature = fit_temperature(logits, labels)
        top = (logits / temperature).softmax(dim=1).max(dim=1)
        return cls(
            images=len(labels),
            temperature=temperature,
            curve=_precision_curve(top.values.numpy(), (top.indices == labels).numpy()),
            resemblance=float(np.quantile(resemblance_of(logits).numpy(), 1 - _KNOWN)),
        )

    def threshold(self, precision: float) -> Precision | None:
        """Return the lowest confidence above which answers have this precision; None where none is high enough."""
        return next((point for point in self.curve if point["precision"] >= precision), None)


@dataclass(frozen=True)
class Rejection:
    """Which images are left to a person."""

    calibration: Calibration
    precision: float | None
    """Wished share of right answers, if any."""
    threshold: Precision | None
    """What holds for the answers that are precise enough; None where none are, or none was asked for."""
    by_resemblance: bool
    """Whether images that resemble no class are left to a person."""

    @classmethod
    def of(cls, calibration: Calibration, precision: float | None, by_resemblance: bool) -> "Rejection":
        """Look up the threshold for a precision.

        Raises:
            ValueError: it is not between 0 and 1.
        """
        if precision is not None and not 0 < precision < 1:
            raise ValueError(f"the precision is {precision}: give a share of right answers, such as 0.95")
        threshold = None if precision is None else calibration.threshold(precision)
        return cls(calibration, precision, threshold, by_resemblance)

    def answered(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """Return (N,) bool: whether an image has an answer."""
        answered = torch.ones(len(logits), dtype=torch.bool)
        if self.precision is not None:
            least = self.threshold["confidence"] if self.threshold else math.inf
            answered &= probabilities.amax(dim=1) >= least
        if self.by_resemblance:
            answered &= resemblance_of(logits) >= self.calibration.resemblance
        return answered

    def say(self, answered: Tensor) -> str:
        """Return a sentence on the images that are left to a person, and why."""
        left, images = int((~answered).sum()), self.calibration.images
        reasons = []
        if self.threshold is not None:
            reasons.append(
                f"answers have a confidence of {self.threshold['confidence']:.3f} or more, for which a precision of "
                f"{self.threshold['precision']:.3f} can be expected from {images} held-out images"
            )
        elif self.precision is not None:
            best = max((point["precision"] for point in self.calibration.curve), default=0.0)
            reasons.append(
                f"no confidence is known to give a precision of {self.precision:g}: {images} held-out images show "
                f"{best:.3f} at best, more of them may show more"
            )
        if self.by_resemblance:
            reasons.append("images that resemble the classes less than 95 % of the held-out images are rejected")
        return (
            f"{left} of {len(answered)} images ({left / len(answered):.0%}) are left to a person: {'; '.join(reasons)}"
        )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature of the least cross-entropy (Guo et al., ICML 2017), drawn to 1 where images are few."""
    from scipy.optimize import minimize_scalar  # slow to import, and predictions do not need it

    scores, rows = logits.double(), torch.arange(len(labels))

    def loss(log_temperature: float) -> float:
        log_probabilities = (scores / math.exp(log_temperature)).log_softmax(dim=1)
        return float(-log_probabilities[rows, labels].sum()) + log_temperature**2 / (2 * _SPREAD**2)

    return round(math.exp(float(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)), 4)


def resemblance_of(logits: Tensor) -> Tensor:
    """Return (N,) how much an image resembles its nearest class: the highest score.

    It tells images of no known class better than the highest probability and MCM do (``benchmarks/out_of_class.py``).
    """
    return logits.amax(dim=1)


def _precision_curve(confidence: np.ndarray, correct: np.ndarray) -> list[Precision]:
    """Return the points of a curve from full coverage on, each of more precision than all before."""
    order = np.argsort(-confidence, kind="stable")
    confidence, errors = confidence[order], np.cumsum(~correct[order])
    answers = np.arange(1, len(order) + 1)
    precision = np.minimum(1 - (errors + 1) / (answers + 1), np.cumsum(confidence) / answers)
    last_of_ties = np.append(confidence[1:] < confidence[:-1], True)
    points: list[Precision] = []
    for number in np.flatnonzero(last_of_ties)[::-1]:
        if not points or precision[number] > points[-1]["precision"]:
            points.append(
                Precision(
                    confidence=float(confidence[number]),
                    coverage=float(answers[number] / len(order)),
                    precision=float(precision[number]),
                )
            )
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().astype(int))
    return [points[number] for number in kept]
