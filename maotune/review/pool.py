"""The unlabelled pool as a run has labelled it: what to check first, and what may be none of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from maotune.data.sets.catalog import load_unlabelled
from maotune.data.sets.dataset import Sample
from maotune.runs.events import Callback
from maotune.runs.predictions import Scoring
from maotune.runs.tuned import Run

SUSPECTS = 20
"""Where no held-out images say how much an image should resemble the classes, the lowest part of so many is suspect."""


@dataclass(frozen=True, slots=True)
class PoolImage:
    """An unlabelled image with its pseudo-label."""

    sample: Sample
    label: str
    """The label that the run was tuned with; where it has none, its prediction."""
    confidence: float
    predicted: str
    """What the run predicts after tuning."""
    suspect: bool
    """Whether it resembles the classes less than 95 % of the held-out images do."""


def label_pool(
    run: Run, folder: Path, pool: Path | None = None, callback: Callback = lambda event: None
) -> list[PoolImage]:
    """Return the images of a run's pool, or of another, with their labels, least sure first.

    Args:
        run: loaded from ``folder``.
        folder: holds its pseudo-labels, where it has any.
        pool: where the images are; default: the pool that the run was tuned with.
        callback: called with progress.

    Raises:
        ValueError: the run had no pool, and none is given; or none of its images can be read.
    """
    source = pool or run.recipe.data.unlabelled
    if source is None:
        raise ValueError("the run was tuned without unlabelled images: name a folder of some")
    samples = load_unlabelled(source).unlabelled
    predictions = run.predict([sample.image for sample in samples], bank=True, callback=callback)
    by_name = {sample.image.name: sample for sample in samples}
    recorded = _pseudo_labels(folder)
    floor = _least_resemblance(run, predictions.prompts, predictions.resemblance.tolist())
    images = []
    for (name, best), resemblance in zip(predictions, predictions.resemblance.tolist(), strict=True):
        predicted, probability = best[0]
        label, confidence = recorded.get(name, (predicted, probability))
        images.append(PoolImage(by_name[name], label, confidence, predicted, resemblance < floor))
    return sorted(images, key=lambda image: image.confidence)


def _pseudo_labels(folder: Path) -> Mapping[str, tuple[str, float]]:
    """Return label and confidence by the name of the image, as the run has recorded them."""
    scoring = Scoring.find(folder)
    if scoring is None or scoring.pseudo_labels is None:
        return {}
    found = scoring.pseudo_labels
    labels = [found["classes"][number] for number in found["given"]]
    return dict(zip(found["images"], zip(labels, found["confidence"], strict=True), strict=True))


def _least_resemblance(run: Run, prompts: str, seen: Sequence[float]) -> float:
    if (calibration := run.result.calibration.get(prompts)) is not None:
        return calibration.resemblance
    return quantiles(seen, n=SUSPECTS)[0] if len(seen) > 1 else float("-inf")
