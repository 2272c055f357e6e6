"""Candidates compared on the same held-out images: what the best of them is expected to score, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from typing_extensions import TypedDict

RESAMPLES = 1000
"""Bootstrap samples of the images."""


class CandidateResult(TypedDict):
    """A candidate; one that was not tried has no accuracy."""

    name: str
    accuracy: float | None
    """On the held-out images, in percent."""
    seconds: float
    """Spent on it, or estimated where it was not tried."""
    note: str
    """Why it was not tried."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Candidates by their accuracy on held-out images. The first is zero-shot CLIP. Numbers are in percent."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    test: str
    """``val``, the user's validation images, or ``cv``, cross-validation over the labelled ones."""
    folds: int
    """Folds of the cross-validation; 0: none."""
    images: int
    """Held-out images."""
    candidates: list[CandidateResult]
    """In the order in which they were tried."""
    chosen: str
    """Name of the best; the first of several."""
    expected: list[float]
    """Accuracy that is expected of the choice, and the ends of its 95 % interval."""
    gain: list[float]
    """How far the choice is above zero-shot CLIP, and the ends of the 95 % interval."""
    stability: float
    """How often the choice is the best when the images are resampled."""

    @property
    def clear(self) -> bool:
        """Whether the choice can be told apart from zero-shot CLIP."""
        return self.gain[1] > 0

    def sentences(self) -> list[str]:
        """Say what was chosen, what is expected of it, and how sure that is."""
        tried = sum(candidate["accuracy"] is not None for candidate in self.candidates)
        means = f"{self.folds}-fold cross-validation over" if self.folds else "the accuracy on"
        kind = "labelled" if self.folds else "validation"
        lines = [
            f"chosen: {self.chosen}. Expected accuracy {self.expected[0]:.1f} % (95 % interval {self.expected[1]:.1f} "
            f"to {self.expected[2]:.1f}): {means} {self.images} {kind} images, less what choosing the best of {tried} "
            "adds by chance."
        ]
        if self.chosen == self.candidates[0]["name"]:
            return [*lines, f"Nothing that was tuned is better than zero-shot CLIP (the best in {self.stability:.0f} % "
                            f"of {RESAMPLES:,} resamples of the images)."]  # fmt: skip
        gain = f"{self.gain[0]:+.1f} points ({self.gain[1]:+.1f} to {self.gain[2]:+.1f})"
        verdict = f"It is above zero-shot CLIP by {gain}" if self.clear else (
            f"It cannot be told apart from zero-shot CLIP: {gain}; more labelled images would tell"
        )  # fmt: skip
        return [
            *lines,
            f"{verdict}. It is the best in {self.stability:.0f} % of {RESAMPLES:,} resamples of the images.",
        ]


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share of right images, from 0 to 1, where images are drawn anew."""
    from scipy.stats import binomtest  # slow to import, and predictions do not need it

    interval = binomtest(right, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def compare(
    test: str, folds: int, candidates: Sequence[tuple[CandidateResult, Tensor]], skipped: Sequence[CandidateResult] = ()
) -> Comparison:
    """Compare candidates on the same images.

    The best of several is best partly by chance. Its accuracy is corrected by the bootstrap (Tsamardinos et al., 2018):
    the best candidate on each resample of the images is scored on the images that are not in it; the mean of these is
    what the choice is expected to score.

    Args:
        test: name of the test.
        folds: of the cross-validation.
        candidates: zero-shot CLIP first; each with (N,) whether the images are classified correctly.
        skipped: candidates that were not tried.
    """
    correct = torch.stack([each for _, each in candidates], dim=1).double()  # (N, M)
    images = len(correct)
    accuracy = correct.mean(0)
    best = int(accuracy.argmax())
    random = torch.Generator().manual_seed(0)
    winners, outside, gains = [], [], []
    for _ in range(RESAMPLES):
        counts = torch.randint(images, (images,), generator=random).bincount(minlength=images)
        resampled = counts.double() @ correct / images
        winner = int(resampled.argmax())
        winners.append(winner == best)
        gains.append(float(resampled[best] - resampled[0]))
        if (left := counts == 0).any():
            outside.append(float(correct[left, winner].mean()))
    expected = min(float(accuracy[best]), sum(outside) / len(outside)) if outside else float(accuracy[best])
    by_chance = float(accuracy[best]) - expected
    low, high = torch.tensor(gains).quantile(torch.tensor([0.025, 0.975])).tolist()
    gain = (
        [0.0] * 3 if best == 0 else [float(accuracy[best] - accuracy[0]) - by_chance, low - by_chance, high - by_chance]
    )
    low_end, high_end = wilson_interval(round(images * expected), images)
    interval = (min(low_end, expected), max(high_end, expected))
    return Comparison(
        test=test,
        folds=folds,
        images=images,
        candidates=[*(result for result, _ in candidates), *skipped],
        chosen=candidates[best][0]["name"],
        expected=[100 * value for value in (expected, *interval)],
        gain=[100 * value for value in gain],
        stability=100 * sum(winners) / RESAMPLES,
    )
